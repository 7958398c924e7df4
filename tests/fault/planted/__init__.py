"""Flaws that are planted into the real checker, for the hunter to find; `sitecustomize` plants them in each process of it.

`KEYLEDGER_PLANTED` names them: slow, ahead, uncounted, held.
"""

import time
from collections.abc import Mapping
from threading import Event
from typing import Any, Final

from schemas.checker_status import Pulse, Said
from schemas.topics import PARTITIONS
from services.auth_checker import status
from services.auth_checker.index_reader import IndexReader
from services.auth_checker.lease import Granted, Lessee, Moment
from services.auth_checker.pulses import Listener, Pulses
from services.auth_checker.status import IndexHandler, Status
from services.ledger.records import Batch

SLOW_S: Final = 4.0
"""Longer than M + margin: a revoke is effective before a slow follower has applied it."""
HOLD_S: Final = 4.0
_FLOOR_WAITS_S: Final = 0.05
_AHEAD: Final = 1_000_000


class _Pause:
    """One pause for all threads of a process: it begins with a revoke and ends `SLOW_S` later."""

    until = 0.0

    def begin(self) -> None:
        self.until = time.monotonic() + SLOW_S
        self.wait()

    def wait(self) -> None:
        Event().wait(max(0.0, self.until - time.monotonic()))


def slow() -> None:
    """No flaw by itself: a follower that stands still before it applies a revoke, and then hears no floor either."""
    pause, apply_ledger, apply_status = _Pause(), IndexHandler.apply, Listener.apply

    def apply_late(self: IndexHandler, batch: Batch) -> None:
        if any(record.header("ce_type") == b"KeyRevoked" for record in batch.records):
            pause.begin()
        apply_ledger(self, batch)

    def hear_late(self: Listener, batch: Batch) -> None:
        if any(b'"Floor"' in (record.value or b"") for record in batch.records):
            Event().wait(_FLOOR_WAITS_S)  # The revoke that the floor is about shall have begun the pause.
        pause.wait()
        apply_status(self, batch)

    _replace(IndexHandler, "apply", apply_late)
    _replace(Listener, "apply", hear_late)


def ahead() -> None:
    """It reports positions that it has not applied."""
    begin, read = Lessee.begin, Lessee.read
    true: dict[int, Mapping[int, int]] = {}

    def begin_ahead(self: Lessee, t0: Moment, positions: Mapping[int, int]) -> Pulse:
        pulse = begin(self, t0, positions)
        true[pulse.number] = positions
        return Pulse(pulse.checker, pulse.incarnation, pulse.number, dict.fromkeys(range(PARTITIONS), _AHEAD))

    def read_ahead(self: Lessee, said: Said) -> Granted | None:
        granted = read(self, said)
        return None if granted is None else Granted(granted.lease, true[said.number])

    _replace(Lessee, "begin", begin_ahead)
    _replace(Lessee, "read", read_ahead)


def uncounted() -> None:
    """Its pulses count as soon as they are sent, without being read back."""
    beat = Pulses.beat

    def beat_and_believe(self: Pulses) -> bool:
        t0, positions = self._clocks.now(), self._positions()
        sent = beat(self)
        if sent and self._lessee._is_past_floors(positions):
            with self._store.write() as txn:
                status.write(txn, Status(self._lessee._lease(t0)))
        return sent

    _replace(Pulses, "beat", beat_and_believe)


def held() -> None:
    """Its workers judge by a clock that they read before the look-up, up to HOLD_S ago, and hold that verdict."""
    is_fresh = IndexReader.is_fresh
    fresh_at = float("-inf")

    def was_fresh(self: IndexReader, current: Status | None, now: Moment | None = None) -> bool:
        nonlocal fresh_at
        if is_fresh(self, current, now):
            fresh_at = time.monotonic()
        return time.monotonic() < fresh_at + HOLD_S

    _replace(IndexReader, "is_fresh", was_fresh)


FLAWS: Final = {flaw.__name__: flaw for flaw in (slow, ahead, uncounted, held)}


def _replace(owner: Any, name: str, flawed: Any) -> None:
    assert callable(getattr(owner, name)), "what is to be replaced is there"
    setattr(owner, name, flawed)
