"""Starts a command API: `python -m services.command_api`, configured by the environment (see `config`)."""

import multiprocessing
import socket
import sys
from functools import partial

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from services.command_api.config import BadConfig, Config
from services.command_api.worker import load_app
from services.ledger.seal import BadKeyFile, load_or_make


def main() -> int:
    """Serve until SIGTERM or SIGINT; 2, with one sentence, when it cannot start as configured."""
    multiprocessing.set_start_method("spawn")
    try:
        config = Config.from_env()
        load_or_make(config.ledger_keys)
        _refuse_taken_port(config)
    except (BadConfig, BadKeyFile) as error:
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


def _refuse_taken_port(config: Config) -> None:
    try:
        socket.create_server((config.host, config.port)).close()
    except OSError as error:
        raise BadConfig(f"cannot listen on {config.host}:{config.port}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
