"""Starts the console: `python -m services.console`, configured by the environment (see `config`)."""

import functools
import multiprocessing
import os
import socket
import sys

import structlog
from granian.constants import Interfaces
from granian.server import Server

from services.console.config import BadConfig, Config
from services.console.signing_keys import BadKeyFile, open_signing_keys
from services.console.worker import THREADS, load_app, log_json

_log = structlog.get_logger()


def main() -> None:
    """Serve until SIGTERM or SIGINT. Exits with 2 and one sentence when it cannot start as configured."""
    multiprocessing.set_start_method("spawn")
    log_json()
    try:
        config = Config.from_env(os.environ)
        open_signing_keys(config.state_dir)
        _refuse_taken_port(config)
    except (BadConfig, BadKeyFile, OSError) as error:
        _log.error("the console cannot start", why=str(error))
        sys.exit(2)
    server = Server(
        "console",
        address=config.host,
        port=config.port,
        interface=Interfaces.WSGI,
        blocking_threads=THREADS,
        log_enabled=False,
    )
    _log.info("console", host=config.host, port=config.port)
    server.serve(target_loader=functools.partial(load_app, config), wrap_loader=False)


def _refuse_taken_port(config: Config) -> None:
    try:
        socket.create_server((config.host, config.port)).close()
    except OSError as error:
        raise BadConfig(f"The console cannot listen on {config.host}:{config.port}: {error.strerror}.") from error


if __name__ == "__main__":
    main()
