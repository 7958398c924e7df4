"""One HTTP worker process: what it is made of, and what runs in it beside the app.

It is a module of its own because a spawned process cannot load anything from a package's `__main__`.
"""

import multiprocessing
import multiprocessing.util
import os
import secrets
import sys
import threading
from typing import Final

import structlog
import urllib3

from schemas.times import wall_clock_ms
from schemas.tokens import KeySet
from services.auth_checker import status
from services.auth_checker.app import create_app
from services.auth_checker.callers import Callers, fetch_from
from services.auth_checker.config import Config
from services.auth_checker.doors import Door
from services.auth_checker.fast_lane import FastLane
from services.auth_checker.handler import Checker
from services.auth_checker.index_reader import IndexReader
from services.auth_checker.metrics import Metrics
from services.auth_checker.routes import Service
from services.auth_checker.status import open_index
from services.auth_checker.uses import Numbering, Uses
from services.ledger.kafka_log import KafkaLog

THREADS: Final = 4
_STOP_S: Final = 5.0


def load_app(config: Config) -> FastLane:
    """Make the app, in granian's worker process, and start what runs beside it."""
    log_json()
    _end_with_parent()
    name = secrets.token_hex(8)
    store = open_index(config.state_dir, read_only=True)
    log = KafkaLog(config.kafka, f"auth-checker-{name}")
    uses = Uses(log, Numbering(name, wall_clock_ms, secrets.randbits))
    reader = IndexReader(store, status.machine_clocks(), config.max_staleness_ms)
    checker = Checker(reader, uses, config.prefix)
    callers = Callers(reader, checker, KeySet(fetch_from(config.console_url, urllib3.PoolManager(maxsize=THREADS))))
    figures = Metrics(config.state_dir / "figures", name, uses, reader)
    door = Door(config.checker_token, checker)
    uses.start()
    figures.start()

    def finish() -> None:
        uses.stop(_STOP_S)
        figures.stop()
        log.close()

    multiprocessing.util.Finalize(None, finish, exitpriority=10)
    return FastLane(create_app(Service(reader, checker, callers, door, figures)), checker, door)


def log_json() -> None:
    """Log one JSON object a line on stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # Ctrl-C reaches a whole process group, and granian's worker hangs for ever when it is told twice to stop.
    os.setpgrp()

    def watch() -> None:
        parent.join()
        os._exit(1)  # A killed parent must not leave an orphan on the port.

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
