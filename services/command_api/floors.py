"""Writes the floors of this command API (DESIGN section 7), in a thread of its own.

Floors are cumulative, so all who ask while one is being written share the next. What was not acknowledged is tried
again until it is, and the newest floor is repeated every minute for checkers that begin to read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Final

import structlog

from schemas import checker_status
from schemas.checker_status import Floor
from schemas.topics import CHECKER_STATUS
from services.command_api.effect import Target
from services.ledger.log import Log, Message
from services.ledger.seal import LedgerKeys

REPEAT_S: Final = 60.0
FLOOR_S: Final = 5.0
"""So long one try to write a floor may take."""
_AGAIN_S: Final = 0.5
_log = structlog.get_logger("keyledger.command_api")


@dataclass(slots=True)
class Raised:
    """A floor that was asked for. `acknowledged_ns` is the clock when it, or a later one, was seen acknowledged."""

    number: int
    acknowledged_ns: int | None = None


class Floors:
    """The floors of one start of a command API, named `api`. Thread-safe.

    `now_ns` is CLOCK_BOOTTIME; `on_acknowledged` is called after a floor was.
    """

    def __init__(
        self, log: Log, keys: LedgerKeys, api: str, now_ns: Callable[[], int], on_acknowledged: Callable[[], None]
    ) -> None:
        self._log, self._keys, self._api, self._now_ns = log, keys, api, now_ns
        self._on_acknowledged = on_acknowledged
        self._changed = Condition()
        self._offsets: dict[int, int] = {}
        self._next = Raised(1)
        self._unacknowledged: list[Raised] = []
        self._wanted = self._stopping = False
        self._thread = Thread(target=self._run, name="floors", daemon=True)

    def start(self) -> None:
        """Begin writing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the write under way, and wait for the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def raise_floor(self, target: Target) -> Raised:
        """Have a floor written that holds this target; does not wait for it."""
        with self._changed:
            self._offsets[target.partition] = max(self._offsets.get(target.partition, 0), target.offset)
            self._wanted = True
            if self._next not in self._unacknowledged[-1:]:
                self._unacknowledged.append(self._next)
            self._changed.notify_all()
            return self._next

    def unacknowledged(self) -> int:
        """How many floors somebody asked for and the log did not acknowledge yet."""
        with self._changed:
            return len(self._unacknowledged)

    def _run(self) -> None:
        while (floor := self._due()) is not None:
            try:
                self._log.append(self._message(floor), FLOOR_S)
            except Exception as error:  # noqa: BLE001  # Whatever the client raises, who waits goes on being served.
                _log.error("floor_not_written", number=floor.number, error=repr(error))
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, _AGAIN_S)
                    self._wanted = True
            else:
                self._acknowledged(floor.number)
                self._on_acknowledged()

    def _due(self) -> Floor | None:
        """The next floor to write, once it is wanted or a minute has passed; None when stopping."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._wanted or self._stopping, REPEAT_S)
                if self._stopping:
                    return None
                if self._offsets:
                    number, self._wanted = self._next.number, False
                    # Who asks from here on comes too late for this one.
                    self._next = Raised(number + 1)
                    return Floor(self._api, number, dict(self._offsets))

    def _acknowledged(self, number: int) -> None:
        with self._changed:
            now_ns = self._now_ns()
            for raised in self._unacknowledged:
                if raised.number <= number:
                    raised.acknowledged_ns = now_ns
            self._unacknowledged = [raised for raised in self._unacknowledged if raised.acknowledged_ns is None]

    def _message(self, floor: Floor) -> Message:
        value, key = checker_status.encode(floor), checker_status.message_key(floor)
        headers = (("ce_type", b"Floor"), *self._keys.seal(value))
        return Message(CHECKER_STATUS, checker_status.PARTITION, key, value, headers)
