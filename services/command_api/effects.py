"""When what took rights away is in effect everywhere (DESIGN section 7): asking for floors, waiting, and telling.

The rules are in `effect`, pure; `floors` writes, `listener` reads; this brings them together for the calls.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import token_hex
from threading import Condition
from typing import Final

import structlog

from schemas.checker_status import Said
from schemas.topics import LIFECYCLE, partition_of
from services.command_api.effect import Hearing, Target
from services.command_api.floors import FLOOR_S, Floors, Raised
from services.command_api.listener import Listener
from services.ledger.lmdb_chain import LmdbChain, places
from services.ledger.log import Log, OutcomeUnknown
from services.ledger.records import TopicPartition
from services.ledger.seal import LedgerKeys
from services.ledger.store import Store

LONGEST_S: Final = 20.0
"""So long a request waits at most for checkers, once the floor is written; it bounds M for whoever waits for answers."""
_MOST_KNOWN: Final = 10_000
_LOOK_S: Final = 0.05
_log = structlog.get_logger("keyledger.command_api")


def boot_ns() -> int:
    """CLOCK_BOOTTIME in nanoseconds: it runs on while the process, or the machine, sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Effect:
    """What is to be in effect everywhere. `effective_ms`, from the arrival of the request, once it is seen to be."""

    target: Target
    raised: Raised
    arrived_ns: int
    effective_ms: int | None = None


class Effects:
    """The effects of one start of a command API. Thread-safe.

    A request that waits holds one of few threads: tens of milliseconds when all checkers are well, up to M + margin
    when one is away. So at most `most_waiting` wait at once, and who comes beyond them is told at once that it is not
    known yet (202), so that other commands are served. `now_ns` is CLOCK_BOOTTIME.
    """

    def __init__(  # Callers pass them in this order.
        self,
        log: Log,
        store: Store,
        keys: LedgerKeys,
        max_staleness_ms: int,
        most_waiting: int,
        now_ns: Callable[[], int] = boot_ns,
    ) -> None:
        self._store, self.now_ns = store, now_ns
        self._api, self._most_waiting, self._waiting = token_hex(16), most_waiting, 0
        self._changed = Condition()
        self._hearing = Hearing(self._api, max_staleness_ms, now_ns())
        self._known: dict[tuple[str, int], Effect] = {}
        self._pending: dict[tuple[str, int], Effect] = {}
        self.floors = Floors(log, keys, self._api, now_ns, self._wake)
        self.listener = Listener(log, keys, self._begin_hearing, self._hear)

    def start(self) -> None:
        """Begin writing floors and reading what checkers say."""
        self.floors.start()
        self.listener.start()

    def stop(self) -> None:
        """Stop both, and wait for them."""
        self.floors.stop()
        self.listener.stop()

    def take(self, org: str, revision: int, arrived_ns: int) -> Effect:
        """A new floor for all that this process has applied of the organisation, at least up to this revision.

        What has been known as `revision` stays so. Raises OutcomeUnknown when the log is being read anew.
        """
        target = self._target(org, revision)
        effect = Effect(target, self.floors.raise_floor(target), arrived_ns)
        with self._changed:
            if (org, revision) not in self._known:
                self._remember((org, revision), effect)
        return effect

    def wait(self, effect: Effect) -> str | None:
        """Wait until it is in effect: None then, else why that is not known in time, in one word."""
        begun = time.monotonic()
        with self._changed:
            if self._judge(effect):
                return None
            if self._waiting >= self._most_waiting:
                return "too_many_waiting"
            self._waiting += 1
            try:
                while not self._judge(effect):
                    waited_s = time.monotonic() - begun
                    if effect.raised.acknowledged_ns is None and waited_s > FLOOR_S:
                        return "floor_not_written"
                    if waited_s > FLOOR_S + LONGEST_S:
                        return "checkers_late"
                    self._changed.wait(_LOOK_S)
            finally:
                self._waiting -= 1
        return None

    def look(self, org: str, revision: int, arrived_ns: int) -> Effect:
        """What is known of a revision now. An unknown one, of another start or instance, gets a floor of its own."""
        with self._changed:
            known = self._known.get((org, revision))
        effect = known or self.take(org, revision, arrived_ns)
        with self._changed:
            self._judge(effect)
        return effect

    def pending(self) -> int:
        """How many of the remembered effects are not known to be in effect everywhere."""
        with self._changed:
            return len(self._pending)

    def _target(self, org: str, revision: int) -> Target:
        partition = partition_of(org)
        # One transaction, so that the place is behind all that the answer rests on, whatever the log tells of its end.
        with self._store.read() as txn:
            head, place = LmdbChain(txn).head(org), places(txn).get(TopicPartition(LIFECYCLE, partition))
        if place is None or head.revision < revision:
            raise OutcomeUnknown("done, but the log is being read anew")
        return Target(partition, place.next_offset - 1)

    def _remember(self, key: tuple[str, int], effect: Effect) -> None:
        self._known[key] = self._pending[key] = effect
        if len(self._known) > _MOST_KNOWN:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._pending.pop(oldest, None)

    def _judge(self, effect: Effect) -> bool:
        """Whether it is in effect; the first time is kept."""
        if effect.effective_ms is None and effect.raised.acknowledged_ns is not None:
            raised, now_ns = effect.raised, self.now_ns()
            if self._hearing.is_effective(effect.target, raised.number, effect.raised.acknowledged_ns, now_ns):
                effect.effective_ms = (now_ns - effect.arrived_ns) // 1_000_000
        return effect.effective_ms is not None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _begin_hearing(self) -> None:
        with self._changed:
            self._hearing = Hearing(self._api, self._hearing.max_staleness_ms, self.now_ns())

    def _hear(self, sayings: Sequence[Said]) -> None:
        with self._changed:
            now_ns, longest_ms = self.now_ns(), self._hearing.max_staleness_ms
            for said in sayings:
                self._hearing.read(said, now_ns)
            if self._hearing.max_staleness_ms > longest_ms:
                _log.error("max_staleness_differs", ours_ms=longest_ms, a_checkers_ms=self._hearing.max_staleness_ms)
            self._pending = {key: effect for key, effect in self._pending.items() if not self._judge(effect)}
            if sayings:
                self._changed.notify_all()
