"""The process that serves the reads: granian spawns it.

It is a module of its own because a spawned process cannot load anything from a package's `__main__`.
"""

import multiprocessing
import multiprocessing.util
import os
import sys
import threading
from typing import Any, Final

import structlog
import urllib3

from schemas.times import wall_clock_ms
from services.projector.app import create_app
from services.projector.callers import Callers
from services.projector.config import Config
from services.projector.database import read_pool
from services.projector.reads import Reads
from services.projector.routes import Parts
from services.projector.status import StatusFile

THREADS: Final = 16


def load_app(config: Config) -> Any:
    """Make the app, in the process that serves it."""
    log_json()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pool = read_pool(config.database_url, THREADS)
    multiprocessing.util.Finalize(None, pool.close, exitpriority=10)
    callers = Callers(config.checker_url, config.checker_token, urllib3.PoolManager(maxsize=THREADS))
    return create_app(Parts(Reads(pool), callers, StatusFile(config.metrics_file), wall_clock_ms, config.notary_keys))


def log_json() -> None:
    """Log JSON lines on stderr."""
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
    if parent is not None:
        os.setpgrp()  # Ctrl-C goes to a whole group; told twice to stop, by it and by the parent, the server hangs.
        parent.join()
        os._exit(1)  # A killed parent must not leave an orphan on the port.
