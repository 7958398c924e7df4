"""Starts a command API: `python -m services.command_api`, configured by the environment (see `config`)."""

import multiprocessing
import socket
import sys
from functools import partial

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from services.command_api.config import BadConfig, Config
from services.command_api.worker import load_app, log_json, open_store
from services.ledger.preflight import PreflightFailed, prepare_patiently
from services.ledger.seal import BadKeyFile, load_or_make
from services.ledger.store import known_topic_ids, remember_topic_ids


def main() -> int:
    """Serve until SIGTERM or SIGINT; 2, with one sentence, when it cannot start as configured."""
    multiprocessing.set_start_method("spawn")
    log_json()
    try:
        config = Config.from_env()
        load_or_make(config.ledger_keys)
        _refuse_taken_port(config)
        _check_topics(config)
    except (BadConfig, BadKeyFile, PreflightFailed) as error:
        print(f"command API: {error}", file=sys.stderr)
        return 2
    server = Granian(
        "services.command_api",
        address=config.host,
        port=config.port,
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=config.threads,
        log_level=LogLevels.error,  # Its warning about many threads is about CPU-bound ones; ours wait for Kafka.
    )
    server.serve(target_loader=partial(load_app, config), wrap_loader=False)
    return 0


def _check_topics(config: Config) -> None:
    """The preflight, with the topic ids of the last start beside the places in them; waits while Kafka is away."""
    store = open_store(config)
    try:
        remember_topic_ids(store, prepare_patiently(config.bootstrap, known_ids=known_topic_ids(store)))
    finally:
        store.close()


def _refuse_taken_port(config: Config) -> None:
    try:
        socket.create_server((config.host, config.port)).close()
    except OSError as error:
        raise BadConfig(f"cannot listen on {config.host}:{config.port}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
