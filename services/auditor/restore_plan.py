"""What a partition will hold when what a source has is appended to it, and which organisations that does not fit."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.auditor.sorting import Sorting
from services.ledger.chain import Foreign, Head, read_link
from services.ledger.log import Message
from services.ledger.records import Place, Record, TopicPartition, value_hash
from services.ledger.seal import LedgerKeys
from services.ledger.store import Transaction


@dataclass
class Alone:
    """What a source says by itself of the organisations of a partition: heads, halting records (hashes), and of those
    with a record that is none of ours why.
    """

    heads: dict[str, Head] = field(default_factory=dict)
    broken: dict[str, set[str]] = field(default_factory=dict)
    unsealed: dict[str, str] = field(default_factory=dict)


def sort_alone(txn: Transaction, keys: LedgerKeys, records: Iterable[Record]) -> Alone:
    """Sort the records of a source as if they were the log."""
    sorting, alone, orgs = Sorting(txn, keys), Alone(), set()
    for record in records:
        found = read_link(record, keys)
        if isinstance(found, Foreign):
            alone.unsealed[org_of(record)] = (
                f"the record for {record.topic}/{record.partition}, offset {record.offset}, is none of ours ({found.why}): it"
                " was changed, or its ledger key is not in the file of keys"
            )
        else:
            sorting.take(record)
            orgs.add(found.org)
    alone.heads, alone.broken = sorting.heads(), {org: sorting.broken(org) for org in orgs}
    return alone


@dataclass
class Choice:
    """Whose records are not to be appended, and whose all are, though the log has some: so many halting records wait there
    that readers have dropped some.
    """

    refused: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)


@dataclass
class Plan:
    """`chosen` has a byte for each record of the source, 1 where it is to be appended; `new` counts these by organisation.

    `end` is that of the log, `next_offset` that after what will be appended. `is_unmoved` says whether `place` is still
    where it was.
    """

    at: TopicPartition
    sorting: Sorting
    end: int
    place: Place | None
    next_offset: int = 0
    present: int = 0
    is_unmoved: bool = False
    chosen: bytearray = field(default_factory=bytearray)
    new: Counter[str] = field(default_factory=Counter)
    markers: list[Message] = field(default_factory=list)

    def read(self, log: Iterable[Record], source: Iterable[Record], choice: Choice) -> None:
        """Sort what is in the log, and after it what the source has beyond that."""
        held: Counter[bytes] = Counter()
        for record in log:
            # A record without our seal is nothing: the same bytes with it are still missing.
            if not isinstance(self._sort(record), Foreign):
                held[value_hash(record)] += 1
        self.next_offset, self.present = self.end, sum(held.values())
        for record in source:
            hash_, org = value_hash(record), org_of(record)
            is_there = held[hash_] > 0
            held[hash_] -= is_there
            is_chosen = org not in choice.refused and (not is_there or org in choice.whole)
            self.chosen.append(is_chosen)
            if is_chosen:
                self.new[org] += 1
                self.take(record)

    def take(self, message: Record | Message) -> None:
        """Sort what will be appended next."""
        self._sort(Record(*self.at, self.next_offset, message.key, message.value, message.headers))
        self.next_offset += 1

    def too_short(self, alone: Alone) -> set[str]:
        """The organisations whose ledger does not go as far as the source's."""
        return {org for org, head in alone.heads.items() if self.sorting.head(org).revision < head.revision}

    def contradicted(self, alone: Alone, choice: Choice) -> dict[str, str]:
        """Why what the source has does not fit what the log has, by organisation."""
        found = {}
        for org in self.new:
            head, stands = alone.heads.get(org, Head()), self.sorting.head(org)
            # What halted the organisation in the source too is no news.
            news = [one.link for one in self.sorting.halting(org) if one.link.hash not in alone.broken[org]]
            forks = [link.revision for link in news if link.revision <= stands.revision + 1]
            is_short = org in choice.whole and stands.revision < head.revision
            if forks or is_short or (head.revision and not self.sorting.holds(org, head.revision, head.hash)):
                found[org] = (
                    f"it and the log have two histories, which part at or before revision {min([*forks, head.revision])}"
                )
        return found

    def _sort(self, record: Record) -> object:
        place = self.place
        if place and place.next_offset == record.offset + 1 and place.last_hash == value_hash(record):
            self.is_unmoved = True
        return self.sorting.take(record)


def org_of(record: Record) -> str:
    """The organisation that a record of a source is said to be of."""
    return (record.key or b"").decode()
