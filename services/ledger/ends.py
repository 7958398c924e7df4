"""Asks for the ends of partitions: once a second for lag and readiness, at once for a barrier.

Barriers that arrive while a question is under way share the next one: an answer counts only when it was asked for
after the barrier began.
"""

import time
from collections.abc import Sequence
from threading import Condition, Thread
from typing import Final

import structlog

from services.ledger.log import Log, LogUnavailable
from services.ledger.records import TopicPartition

EVERY_S: Final = 1.0
_ASK_TIMEOUT_S: Final = 2.0
_log = structlog.get_logger("keyledger.ledger")


class Ends:
    """The newest known end offsets of some partitions, kept fresh by a thread of its own."""

    def __init__(self, log: Log, partitions: Sequence[TopicPartition]) -> None:
        self._log, self._partitions = log, tuple(partitions)
        self._changed = Condition()
        self._asked = self._answered = 0
        self._wanted = 1  # The first question is asked at once.
        self._ends: dict[TopicPartition, int] = {}
        self._answered_at: float | None = None
        self._stopping = False
        self._thread = Thread(target=self._run, name="ends", daemon=True)

    def start(self) -> None:
        """Begin asking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop asking, and wait until the thread is gone."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def known(self) -> dict[TopicPartition, int]:
        """The newest answer; empty before the first."""
        with self._changed:
            return dict(self._ends)

    def age_s(self) -> float:
        """Seconds since the newest answer; infinite before the first."""
        with self._changed:
            return float("inf") if self._answered_at is None else time.monotonic() - self._answered_at

    def ask(self, timeout_s: float) -> dict[TopicPartition, int]:
        """The ends as of now or later. Raises LogUnavailable when no answer came in time."""
        with self._changed:
            self._wanted += 1
            # A question that is under way was asked before us; the one after it is ours.
            mine = self._asked + 1
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._answered >= mine or self._stopping, timeout_s):
                raise LogUnavailable(f"the log did not tell its ends within {timeout_s} s")
            if self._answered < mine:
                raise LogUnavailable("stopping")
            return dict(self._ends)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._stopping, EVERY_S)
                if self._stopping:
                    return
                self._wanted, self._asked = 0, self._asked + 1
                asked = self._asked
            try:
                ends = self._log.end_offsets(self._partitions, _ASK_TIMEOUT_S)
            except Exception as error:  # noqa: BLE001  # Whatever the client raises, who waits goes on being served.
                _log.warning("ends_unavailable", error=repr(error))
                with self._changed:  # Who waits must be asked for again, but not in a hot loop.
                    self._changed.wait_for(lambda: self._stopping, EVERY_S / 5)
                    self._wanted = max(self._wanted, 1)
                continue
            with self._changed:
                self._ends, self._answered, self._answered_at = ends, asked, time.monotonic()
                self._changed.notify_all()
