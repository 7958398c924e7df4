"""When an event that took rights away is in effect at every checker (DESIGN section 7).

Pure: times and the records of `checker-status` are passed in. All times are CLOCK_BOOTTIME of this machine in
nanoseconds, because that clock runs on while the process is paused.

Why the answer is safe. A pulse behind our floor in the topic counts at its checker only when past the floor. A pulse
before it was read here before the floor was, or stood before the place where we began to read; and it began before the
floor was acknowledged. So whoever may still believe tables without the event is an incarnation seen here that has not
reported past the event and was heard within M, or began before we did: each is waited for, at most until
M + margin after the floor was acknowledged. The margin is for clocks that differ in speed.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from schemas.checker_status import Offsets, Pulse, Said, margin_ms

_NS_PER_MS: Final = 1_000_000
_REMEMBERED: Final = 4
"""An incarnation is forgotten when unheard for so many times M + margin."""


class Target(NamedTuple):
    """A place in the ledger: the event that took rights away, or one behind it in its partition."""

    partition: int
    offset: int


@dataclass(slots=True)
class _Heard:
    """What an incarnation said last, by its own numbers, and when a record of it was last read here."""

    number: int
    positions: Offsets
    at_ns: int


class Hearing:
    """What this command API has read of `checker-status` since it began. Not thread-safe: its user holds a lock.

    `began_ns` is taken after the answer that said where the topic ends, the place where reading begins: whatever stands
    before that place was written before `began_ns`. Whoever loses records (they were deleted before being read) begins
    a new hearing, with the largest M it knows.

    M is to be the same everywhere. Where a checker says a larger one than ours, `max_staleness_ms` becomes that, so that
    every answer from then on waits for that checker too.
    """

    def __init__(self, api: str, max_staleness_ms: int, began_ns: int) -> None:
        self._api, self._began_ns = api, began_ns
        self._wait_for(max_staleness_ms)
        self._own_number = 0
        self._heard: dict[str, _Heard] = {}

    def read(self, said: Said, now_ns: int) -> None:
        """Take note of the next record, in the order of the topic. `now_ns` was taken after the record had arrived."""
        if isinstance(said, Pulse):
            self._hear(said, now_ns)
        elif said.api == self._api:
            self._own_number = max(self._own_number, said.number)

    def read_back(self, number: int) -> bool:
        """Whether the own floor of that number, or a later one, which says no less, was read."""
        return 0 < number <= self._own_number

    def is_effective(self, target: Target, number: int, acknowledged_ns: int, now_ns: int) -> bool:
        """Whether no validation that begins from now on believes tables without the target.

        `number` is of an own floor that holds the target, `acknowledged_ns` was taken after that floor was acknowledged.
        """
        if now_ns >= acknowledged_ns + self._wait_ns:
            return True
        # Who pulsed before we began and never since is unknown here; its lease has ended when this has.
        if now_ns < self._began_ns + self._wait_ns or not self.read_back(number):
            return False
        return all(
            heard.positions.get(target.partition, 0) > target.offset or now_ns >= heard.at_ns + self._wait_ns
            for heard in self._heard.values()
        )

    def _wait_for(self, max_staleness_ms: int) -> None:
        self.max_staleness_ms = max_staleness_ms
        self._wait_ns = (max_staleness_ms + margin_ms(max_staleness_ms)) * _NS_PER_MS

    def _hear(self, pulse: Pulse, now_ns: int) -> None:
        if pulse.max_staleness_ms > self.max_staleness_ms:
            self._wait_for(pulse.max_staleness_ms)
        heard = self._heard.get(pulse.incarnation)
        if heard is None:
            self._forget(now_ns)
            self._heard[pulse.incarnation] = _Heard(pulse.number, pulse.positions, now_ns)
            return
        heard.at_ns = now_ns
        # A copy, or a send that arrives late, says nothing of how far its checker is now.
        if pulse.number > heard.number:
            heard.number, heard.positions = pulse.number, pulse.positions

    def _forget(self, now_ns: int) -> None:
        """Those unheard for long: incarnations are never merged, and each restart of a checker is a new one."""
        oldest_ns = now_ns - _REMEMBERED * self._wait_ns
        self._heard = {name: heard for name, heard in self._heard.items() if heard.at_ns > oldest_ns}
