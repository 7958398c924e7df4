"""Starts the auth checker: `python -m services.auth_checker`, configured by the environment (see `config`).

The main process only watches over others: one follower, which keeps the index and holds the lease, and the workers,
which read the same memory map and answer over HTTP. It starts either anew when it dies.
"""

import functools
import multiprocessing
import os
import socket
import sys
import time
from typing import Final

import msgspec
import structlog
from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server import Server

from services.auth_checker import metrics, status
from services.auth_checker.config import BadConfig, Config
from services.auth_checker.process import SERVER_LOG, log_json
from services.auth_checker.supervisor import Supervisor
from services.auth_checker.worker import THREADS, load_app
from services.ledger.preflight import PreflightFailed, prepare_patiently
from services.ledger.seal import BadKeyFile, load_or_make

_AGAIN_S: Final = 1.0
_KILL_AFTER_S: Final = 10
_log = structlog.get_logger("keyledger.auth_checker")


def main() -> int:
    """Serve until SIGTERM or SIGINT. 2 and one sentence when something is wrong with what was given."""
    multiprocessing.set_start_method("spawn")
    log_json()
    try:
        config = Config.from_env(os.environ)
        load_or_make(config.ledger_keys)
        config.state_dir.mkdir(parents=True, exist_ok=True)
        _refuse_taken_port(config)
        _check_topics(config)
    except (BadConfig, BadKeyFile, PreflightFailed, OSError) as error:
        _log.critical("cannot_start", why=str(error))
        return 2
    metrics.forget(config.state_dir / "figures")
    _make_index(config)
    supervisor = Supervisor(config)
    supervisor.start()
    _log.info("serving", host=config.host, port=config.port, workers=config.workers)
    try:
        while not _serve(config):
            continue
    finally:
        supervisor.stop()
    return 0


def _make_index(config: Config) -> None:
    """Workers begin beside the follower and can only open what is there; they must not believe an old lease."""
    store = status.open_index(config.state_dir)
    status.forget(store)
    store.close()


def _serve(config: Config) -> bool:
    """Serve, with workers that are started anew when they die. False when they died again and again, and nobody said stop."""
    server = Server(
        "auth_checker",
        address=config.host,
        port=config.port,
        interface=Interfaces.WSGI,
        workers=config.workers,
        blocking_threads=THREADS,
        log_level=LogLevels.error,
        log_dictconfig=SERVER_LOG,
        respawn_failed_workers=True,
        workers_kill_timeout=_KILL_AFTER_S,
        **(config.tls.options() if config.tls else {}),
    )
    try:
        server.serve(target_loader=functools.partial(load_app, config), wrap_loader=False)
    except SystemExit:  # Granian gives up when a worker dies within seconds of its start; then it is tried anew here.
        _log.error("workers_keep_dying", again_in_s=_AGAIN_S)
        time.sleep(_AGAIN_S)
        return server.interrupt_signal
    return True


def _refuse_taken_port(config: Config) -> None:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        socket.create_server((config.host, config.port), family=family).close()
    except OSError as error:
        raise BadConfig(f"The auth checker cannot listen on {config.host} port {config.port}: {error}") from error


def _check_topics(config: Config) -> None:
    """The preflight, with the topic ids of the last start: a topic that was made again is not the one that was folded."""
    file = config.state_dir / "topic-ids.json"
    known = msgspec.json.decode(file.read_bytes(), type=dict[str, str]) if file.exists() else {}
    ids = prepare_patiently(config.kafka, known_ids=known)
    draft = file.with_suffix(".draft")
    draft.write_bytes(msgspec.json.encode(ids))
    draft.replace(file)


if __name__ == "__main__":
    sys.exit(main())
