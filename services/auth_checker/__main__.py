"""Starts the auth checker: `python -m services.auth_checker`, configured by the environment (see `config`).

The main process follows `key-lifecycle` into LMDB and vouches for it; each worker process reads the same memory map,
answers over HTTP and sends the uses it counted.
"""

import functools
import multiprocessing
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog
from granian.constants import Interfaces
from granian.server import Server

from services.auth_checker import metrics, status
from services.auth_checker.config import BadConfig, Config
from services.auth_checker.status import IndexHandler, Watch
from services.auth_checker.worker import THREADS, load_app, log_json
from services.ledger.follow import Follower
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import Log
from services.ledger.preflight import PreflightFailed, prepare_patiently
from services.ledger.seal import BadKeyFile, LedgerKeys, load_or_make

_log = structlog.get_logger("keyledger.auth_checker")


@contextmanager
def following(config: Config, keys: LedgerKeys, log: Log) -> Iterator[None]:
    """Keep the index while the block runs."""
    store = status.open_index(config.state_dir)
    status.forget(store)
    handler = IndexHandler(store, keys)
    follower = Follower(log, status.FOLLOWED, handler, "auth-checker")
    watch = Watch(log, store, handler, follower.next_offsets, status.machine_clocks(), config.max_staleness_ms)
    follower.start()
    watch.start()
    try:
        yield
    finally:
        watch.stop()
        follower.stop()
        store.close()


def main() -> int:
    """Serve until SIGTERM or SIGINT. 2 and one sentence when something is wrong with what was given."""
    multiprocessing.set_start_method("spawn")
    log_json()
    try:
        config = Config.from_env(os.environ)
        keys = load_or_make(config.ledger_keys)
        config.state_dir.mkdir(parents=True, exist_ok=True)
        _refuse_taken_port(config)
        _check_topics(config)
    except (BadConfig, BadKeyFile, PreflightFailed, OSError) as error:
        _log.critical("cannot_start", why=str(error))
        return 2
    metrics.forget(config.state_dir / "figures")
    log = KafkaLog(config.kafka, "auth-checker")
    with following(config, keys, log):
        server = Server(
            "auth_checker",
            address=config.host,
            port=config.port,
            interface=Interfaces.WSGI,
            workers=config.workers,
            blocking_threads=THREADS,
            log_enabled=False,
        )
        _log.info("serving", host=config.host, port=config.port, workers=config.workers)
        server.serve(target_loader=functools.partial(load_app, config), wrap_loader=False)
    log.close()
    return 0


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
