"""The rules of a checker's lease (DESIGN section 7): for how long its tables may be believed, and what it says for that.

Pure: times, positions and the records of `checker-status` are passed in. `pulses.py` sends and reads, workers ask
`Lease.covers`, and tests/lease_world.py runs these very rules through pauses, stale reads and clocks that differ.

Why a lease is safe. Of a pulse and a floor one is first in the topic. If the floor is, it was read before the pulse,
and the pulse counts only when its positions are past it. If the pulse is, it began before the floor was acknowledged,
so its lease ends within M of that, and whoever wrote the floor and read the topic up to it knows whom to wait for.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from schemas.checker_status import Floor, Offsets, Pulse, Said

NS_PER_MS: Final = 1_000_000


class Moment(NamedTuple):
    """CLOCK_BOOTTIME in nanoseconds and the wall clock in milliseconds since 1970, read together."""

    boot_ns: int
    wall_ms: int


class Lease(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The tables may be believed from `begun` until, not including, `until`, by both clocks of one boot."""

    boot_id: str
    incarnation: str
    begun_boot_ns: int
    until_boot_ns: int
    begun_wall_ms: int
    until_wall_ms: int

    def covers(self, boot_id: str, now: Moment) -> bool:
        """Whether what was read beside this lease may be believed. Take `now` after reading: a pause may lie between.

        A wall clock that was set back changes nothing; one that was set forward ends the lease early.
        """
        return (
            self.begun_boot_ns <= now.boot_ns < self.until_boot_ns
            and now.wall_ms < self.until_wall_ms
            and self.boot_id == boot_id
        )


class Granted(NamedTuple):
    """A pulse counted. `lease` may be written only in a transaction that finds all before `positions` in the store:
    after a cut of the log the tables are emptied, and what the pulse said of them is true no longer.
    """

    lease: Lease
    positions: Offsets


class Lessee:
    """What one incarnation of a checker has said and heard. Not thread-safe: its user holds a lock.

    `floors` are those stored with the place in `checker-status` from which reading goes on; empty where it begins at
    the topic's beginning. Records lost in between would be floors not heard: then too, begin at the beginning.
    """

    def __init__(
        self, checker: str, incarnation: str, boot_id: str, max_staleness_ms: int, floors: Mapping[int, int]
    ) -> None:
        self._checker, self._incarnation, self._boot_id = checker, incarnation, boot_id
        self._max_staleness_ms = max_staleness_ms
        self._floors = dict(floors)
        self._number = 0
        self._begun: dict[int, Moment] = {}
        self._granted_until_ns = 0

    @property
    def floors(self) -> Offsets:
        """For each partition the highest offset of all floors read; to be stored with the place in the topic."""
        return dict(self._floors)

    def begin(self, t0: Moment, positions: Mapping[int, int]) -> Pulse:
        """A pulse to send. `t0` was taken before the store was asked for `positions`, so before anything was sent: only
        then does a lease that counts from it end within M of every floor that stands behind the pulse.
        """
        # A pulse of M ago could grant nothing any more, so those that were never read back need no memory.
        oldest_ns = t0.boot_ns - self._max_staleness_ms * NS_PER_MS
        self._begun = {number: begun for number, begun in self._begun.items() if begun.boot_ns > oldest_ns}
        self._number += 1
        self._begun[self._number] = t0
        return Pulse(self._checker, self._incarnation, self._number, dict(positions), self._max_staleness_ms)

    def read(self, said: Said) -> Granted | None:
        """Take note of the next record of `checker-status`; each is to be passed in, in the order of the topic.

        A lease, when it is this incarnation's own pulse, past every floor before it in the topic, and ends later than
        the lease given last. It may have ended already: a worker will see that.
        """
        if isinstance(said, Floor):
            for partition, offset in said.offsets.items():
                self._floors[partition] = max(offset, self._floors.get(partition, offset))
            return None
        if said.incarnation != self._incarnation:
            return None
        # Taken out at its first reading: a copy further on in the topic can only have more floors before it.
        t0 = self._begun.pop(said.number, None)
        if t0 is None or not self._is_past_floors(said.positions):
            return None
        lease = self._lease(t0)
        if lease.until_boot_ns <= self._granted_until_ns:
            return None
        self._granted_until_ns = lease.until_boot_ns
        return Granted(lease, said.positions)

    def _is_past_floors(self, positions: Offsets) -> bool:
        return all(positions.get(partition, 0) > offset for partition, offset in self._floors.items())

    def _lease(self, t0: Moment) -> Lease:
        return Lease(
            boot_id=self._boot_id,
            incarnation=self._incarnation,
            begun_boot_ns=t0.boot_ns,
            until_boot_ns=t0.boot_ns + self._max_staleness_ms * NS_PER_MS,
            begun_wall_ms=t0.wall_ms,
            until_wall_ms=t0.wall_ms + self._max_staleness_ms,
        )
