"""Listens to `checker-status` from its end on, in a thread of its own: what is sealed is passed on, in order."""

import time
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Final

import structlog

from schemas import checker_status
from schemas.checker_status import BadStatus, Said
from schemas.topics import CHECKER_STATUS
from services.ledger.log import Log, LogUnavailable, OffsetGone
from services.ledger.records import Record, TopicPartition
from services.ledger.seal import LedgerKeys

_AT: Final = TopicPartition(CHECKER_STATUS, checker_status.PARTITION)
_POLL_MS: Final = 50
_END_TIMEOUT_S: Final = 2.0
_AGAIN_S: Final = 0.2
_log = structlog.get_logger("keyledger.command_api")


class Listener:
    """`begin` is called when reading begins at the end of the topic, at first and whenever records were lost.

    `hear` is called after every poll with what was said, also when that is nothing.
    """

    def __init__(
        self, log: Log, keys: LedgerKeys, begin: Callable[[], None], hear: Callable[[Sequence[Said]], None]
    ) -> None:
        self._log, self._keys, self._begin, self._hear = log, keys, begin, hear
        self._next: int | None = None
        self._polled_at = time.monotonic()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="listener", daemon=True)
        self.foreign = 0

    def start(self) -> None:
        """Begin listening."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the poll under way, and wait for the thread."""
        self._stopping.set()
        self._thread.join()

    def idle_s(self) -> float:
        """Seconds since the topic was last looked at."""
        return time.monotonic() - self._polled_at

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except OffsetGone as error:
                _log.warning("checker_status_lost", error=repr(error))
                self._next = None
            except Exception as error:  # noqa: BLE001  # A broker that is away, or whatever its client raises.
                _log.warning("listen_again", error=repr(error), exc_info=not isinstance(error, LogUnavailable))
            self._stopping.wait(_AGAIN_S)

    def _listen(self) -> None:
        if self._next is None:
            self._next = self._log.end_offsets([_AT], _END_TIMEOUT_S)[_AT]
            self._begin()
        reader = self._log.reader({_AT: self._next})
        try:
            while not self._stopping.is_set():
                records = reader.poll(_POLL_MS)
                self._polled_at = time.monotonic()
                self._hear([said for record in records if (said := self._said(record)) is not None])
                if records:
                    self._next = records[-1].offset + 1
        finally:
            reader.close()

    def _said(self, record: Record) -> Said | None:
        """What a record says; None, counted and logged, when it is foreign."""
        try:
            if self._keys.is_sealed(record):
                return checker_status.decode(record.value)
            why = "not sealed"
        except BadStatus as error:
            why = str(error)
        self.foreign += 1
        _log.warning("foreign", topic=record.topic, offset=record.offset, why=why)
        return None
