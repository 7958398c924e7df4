"""Appends to `key-lifecycle` the sealed records that it has lost and somebody has kept.

A copy of what is there is void, so to append too much does no harm; what may not happen is that a restored ledger is
shorter than what was believed before: then a revoked key would be good again. So every organisation is sorted as readers
will sort it before anything of it is appended, and one that stays behind what is known of it gets a `marker`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from schemas.times import Clock
from schemas.topics import LIFECYCLE, PARTITIONS, partition_of
from services.auditor.known_heads import Known
from services.auditor.marker import marker
from services.auditor.restore_plan import Alone, Choice, Plan, sort_alone
from services.auditor.sorting import Sorting, records_of
from services.auditor.stored_records import Source
from services.ledger.chain import Broken, Link, sort
from services.ledger.log import Log, LogUnavailable, Message
from services.ledger.records import Place, Record, TopicPartition
from services.ledger.seal import LedgerKeys
from services.ledger.store import Store

_LIFECYCLE: Final = tuple(TopicPartition(LIFECYCLE, partition) for partition in range(PARTITIONS))
_ASK_S: Final = 10.0
_APPEND_S: Final = 30.0
_AT_ONCE: Final = 500
_Heads = defaultdict[str, set[Known]]


class CannotRestore(Exception):
    """Nothing was appended; the message says why."""


@dataclass
class Restored:
    """What came of it: how many records of each organisation were `appended`, and how many sealed ones were `present`.

    `marked` are the organisations that got a marker; `refused` and `halted` say why, by organisation. `unmoved` are the
    partitions in which the projector's place is still right.
    """

    appended: Counter[str] = field(default_factory=Counter)
    present: int = 0
    marked: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    halted: dict[str, str] = field(default_factory=dict)
    unmoved: set[int] = field(default_factory=set)


class Restore:
    """`store` is for this restore alone; `places` are those of the projector; `tell` hears how many records are looked at."""

    def __init__(
        self,
        log: Log,
        store: Store,
        keys: LedgerKeys,
        source: Source,
        known: Iterable[Known],
        clock: Clock,
        places: Mapping[int, Place] | None = None,
        tell: Callable[[int, int], None] = lambda done, of: None,
    ) -> None:
        self._log, self._store, self._keys, self._source, self._clock = log, store, keys, source, clock
        self._known: defaultdict[int, _Heads] = defaultdict(lambda: defaultdict(set))
        for one in known:
            self._known[partition_of(one.org)][one.org].add(one)
        self._places, self._tell = places or {}, tell
        self._done = self._total = 0

    def run(self) -> Restored:
        """Partition by partition: sort, and append what is missing and fits.

        Raises CannotRestore, LogUnavailable, and what the source raises.
        """
        first, ends = self._log.first_offsets(_LIFECYCLE, _ASK_S), self._log.end_offsets(_LIFECYCLE, _ASK_S)
        for at, offset in first.items():
            if offset > 0:
                raise CannotRestore(
                    f"{at.topic}/{at.partition} begins at offset {offset}, and no reader follows a log without its beginning:"
                    " make the topic again, then restore into that"
                )
        self._must_be_ours(ends)
        self._total = sum(ends.values()) + 3 * self._source.count()
        restored = Restored()
        for at, end in ends.items():
            self._restore(at, end, restored)
        return restored

    def _must_be_ours(self, ends: Mapping[TopicPartition, int]) -> None:
        """A topic that holds records, and none that our keys sealed, is another installation's, or the keys are.

        An empty one is ours to fill when the source vouches for the keys.
        """
        if any(ends.values()):
            found, what = (records_of(self._log, at, end) for at, end in ends.items()), LIFECYCLE
        else:
            found, what = (self._source.records(at.partition) for at in ends), self._source.name
        if not any(self._keys.is_sealed(record) for records in found for record in records):
            raise CannotRestore(
                f"{what} has no record that is sealed with these ledger keys: is this the right Kafka, the right database or"
                " bundle, and the right file of keys?"
            )

    def _restore(self, at: TopicPartition, end: int, restored: Restored) -> None:
        with self._store.write() as txn:
            alone = sort_alone(txn, self._keys, self._read(self._source.records(at.partition)))
        known = self._known[at.partition]
        for org, head in alone.heads.items():
            known[org].add(Known(self._source.name, org, head.revision, head.hash))
        wanted = {(one.org, one.revision) for heads in known.values() for one in heads}
        refused, choice = dict(alone.unsealed), Choice(set(alone.unsealed))
        while True:  # Without what is refused, other records stand at other offsets: until nothing more is.
            with self._store.write() as txn:
                plan = Plan(at, Sorting(txn, self._keys, wanted), end, self._places.get(at.partition))
                log, source = records_of(self._log, at, end), self._source.records(at.partition)
                plan.read(self._read(log), self._read(source), choice)
                if self._is_settled(plan, alone, choice, refused):
                    restored.halted |= self._close_what_is_behind(plan, known)
                    break
        restored.appended += plan.new
        restored.present += plan.present
        restored.marked |= {made.key.decode() for made in plan.markers}
        restored.refused |= {org: f"{self._source.name}: {why}" for org, why in refused.items()}
        restored.unmoved |= {at.partition} if plan.is_unmoved else set()
        self._append(plan)

    def _is_settled(self, plan: Plan, alone: Alone, choice: Choice, refused: dict[str, str]) -> bool:
        """Whether the plan can be carried out; if not, the choice is another one now."""
        again = plan.too_short(alone) - choice.whole - choice.refused
        choice.whole |= again
        if again:
            return False
        contradicted = plan.contradicted(alone, choice)
        refused |= contradicted
        choice.refused |= contradicted.keys()
        return not contradicted

    def _close_what_is_behind(self, plan: Plan, known: Mapping[str, set[Known]]) -> dict[str, str]:
        """Mark the ledgers that are behind what is known of them; gives who is halted, and why."""
        sorting, halted = plan.sorting, {}
        for org in {*known, *plan.new}:
            missing = [one for one in known.get(org, ()) if not sorting.holds(org, one.revision, one.hash)]
            furthest = max(missing, key=lambda one: (one.revision, one.hash), default=None)
            if furthest and not sorting.names_as_parent(org, furthest.hash):
                self._mark(plan, furthest)
            if halting := sorting.halting(org):
                why = sorting.why_halted(org)
                if furthest:
                    why = (
                        f"{furthest.reader} knows revision {furthest.revision} ({furthest.hash}), which the log has not; its"
                        f" ledger stands at {sorting.head(org).revision}"
                    )
                offsets = [record.offset for record in halting]
                halted[org] = f"{why}; halting records: {LIFECYCLE}/{plan.at.partition}, offsets {offsets}"
        return halted

    def _mark(self, plan: Plan, known: Known) -> None:
        head = plan.sorting.head(known.org)
        link = Link(known.org, known.revision + 1, known.hash, "", "")
        # So far back that readers have forgotten the hash it would be void; after the head it is a fork.
        halts = isinstance(sort(link, head, plan.sorting.hash_at), Broken)
        made = marker(known, known.revision + 1 if halts else head.revision + 1, self._keys, self._clock())
        plan.take(made)
        plan.markers.append(made)

    def _append(self, plan: Plan) -> None:
        if plan.next_offset == plan.end:
            return
        if self._log.end_offsets([plan.at], _ASK_S)[plan.at] != plan.end:
            raise LogUnavailable(_meanwhile(plan.at))
        messages, at_offset = self._messages(plan), plan.end
        while some := list(islice(messages, _AT_ONCE)):
            offsets = self._log.append_all(some, _APPEND_S)
            if offsets != list(range(at_offset, at_offset + len(some))):
                raise LogUnavailable(_meanwhile(plan.at))
            at_offset += len(some)

    def _messages(self, plan: Plan) -> Iterator[Message]:
        records = self._read(self._source.records(plan.at.partition))
        for record, is_chosen in zip(records, plan.chosen, strict=True):
            if is_chosen:
                yield Message(*plan.at, record.key or b"", record.value or b"", record.headers)
        yield from plan.markers

    def _read(self, records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            self._done += 1
            if self._done % _AT_ONCE == 0:
                self._tell(self._done, max(self._done, self._total))
            yield record


def _meanwhile(at: TopicPartition) -> str:
    return (
        f"somebody else appends to {at.topic}/{at.partition}: stop the command APIs and run this again; what was appended is"
        " found then"
    )
