"""What every process of the checker does first: log in one way, and never outlive the main process."""

import logging
import multiprocessing
import os
import sys
import threading
from typing import Any, Final

import structlog


class _ToStructlog(logging.Handler):
    """Passes on what the HTTP server logs."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger("keyledger.auth_checker").error("http_server", what=record.getMessage())


SERVER_LOG: Final[dict[str, Any]] = {
    "handlers": {"structlog": {"()": _ToStructlog}},
    "formatters": {},
    "loggers": {"_granian": {"handlers": ["structlog"], "propagate": False}},
}
"""For granian: the errors of its log, such as the unexpected end of a worker, beside our own."""


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


def end_with_parent() -> None:
    """See to it that a killed parent leaves no orphan: on the port, or writing the store."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # Ctrl-C reaches a whole process group, and granian's worker hangs for ever when it is told twice to stop.
    os.setpgrp()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
