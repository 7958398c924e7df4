"""Sends the spool to `key-usage`, in the order it was filled, by a thread of its own.

A batch is sent until it is acknowledged, and only then forgotten; whoever is killed in between sends the same bytes
again after the next start, and readers know the copies by their numbers.
"""

import time
from threading import Event, Thread
from typing import Final

import structlog

from services.auth_checker.spool import Spool
from services.ledger.log import Log, LogUnavailable

_AT_ONCE: Final = 4000
_LOOK_EVERY_S: Final = 0.1
_SEND_TIMEOUT_S: Final = 5.0
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_log = structlog.get_logger("keyledger.auth_checker")


class Publisher:
    """One for each spool; a second one does no harm but send copies."""

    def __init__(self, log: Log, spool: Spool) -> None:
        self._log, self._spool = log, spool
        self._stopping = Event()
        self._give_up_s = float("inf")
        self._thread = Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin sending."""
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """Send what waits, for at most so many seconds; the rest stays in the spool. Stop whoever fills it first."""
        self._give_up_s = time.monotonic() + within_s
        self._stopping.set()
        self._thread.join(within_s + _SEND_TIMEOUT_S)
        left = self._spool.figures()["records"]
        if left:
            _log.warning("uses_wait_in_spool", windows=left)

    def _run(self) -> None:
        failures = 0
        while (left_s := self._give_up_s - time.monotonic()) > 0:
            is_last_look = self._stopping.is_set()
            try:
                found = self._send(min(_SEND_TIMEOUT_S, left_s))
            except Exception as error:  # noqa: BLE001 - a thread that ended would let the spool fill up.
                _log.warning(
                    "uses_not_sent", exc_info=None if isinstance(error, LogUnavailable) else error, error=str(error)
                )
                self._pause(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
                continue
            failures = 0
            if not found:
                if is_last_look:
                    return
                self._stopping.wait(_LOOK_EVERY_S)

    def _send(self, timeout_s: float) -> bool:
        """Send the oldest records; whether there were any. Raises LogUnavailable and StoreFailure."""
        chunks = self._spool.oldest(_AT_ONCE)
        if chunks:
            self._log.append_all([message for chunk in chunks for message in chunk.messages], timeout_s)
            self._spool.remove(chunks)
        return bool(chunks)

    def _pause(self, wait_s: float) -> None:
        if self._stopping.is_set():  # A second wait for that event would be none at all.
            time.sleep(max(0.0, min(wait_s, self._give_up_s - time.monotonic())))
        else:
            self._stopping.wait(wait_s)
