"""Sorts the records of a partition as every reader of the log would, to see what these will find before they do."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import closing
from typing import Final

from schemas.events import Envelope
from services.ledger.chain import Applied, Broken, Head, Link, Sorted, Void
from services.ledger.fold import BrokenRecord, Folder
from services.ledger.lmdb_chain import LmdbChain
from services.ledger.log import Log, LogUnavailable
from services.ledger.records import Record, TopicPartition
from services.ledger.seal import LedgerKeys
from services.ledger.store import Transaction

_POLL_MS: Final = 1000
_SILENT_POLLS: Final = 60


def records_of(log: Log, at: TopicPartition, end: int, first: int = 0) -> Iterator[Record]:
    """The records of a partition from offset `first` up to offset `end`. Raises LogUnavailable."""
    if first >= end:
        return
    with closing(log.reader({at: first})) as reader:
        silent = 0
        while reader.positions()[at] < end:
            found = reader.poll(_POLL_MS)
            silent = 0 if found else silent + 1
            if silent > _SILENT_POLLS:
                raise LogUnavailable(f"no record came from {at.topic}/{at.partition}, which ends at {end}")
            yield from (record for record in found if record.offset < end)


class _Watch:
    """The Fold of who judges chains only, and the Archive that remembers what turned out how."""

    def __init__(self, wanted: Collection[tuple[str, int]]) -> None:
        self._wanted = wanted
        self.applied: dict[tuple[str, int], str] = {}
        self.broken: defaultdict[str, dict[int, Link]] = defaultdict(dict)

    def evolve(self, envelope: Envelope, offset: int) -> None:
        """See Fold."""

    def sorted(self, record: Record, outcome: Sorted) -> None:
        """See Archive."""
        if isinstance(outcome, Applied):
            self._apply(outcome.link)
        elif isinstance(outcome, Broken):
            self.broken[outcome.link.org][record.offset] = outcome.link

    def resorted(self, org: str, offset: int, outcome: Applied | Void) -> None:
        """See Archive."""
        del self.broken[org][offset]
        if isinstance(outcome, Applied):
            self._apply(outcome.link)

    def _apply(self, link: Link) -> None:
        if (link.org, link.revision) in self._wanted:
            self.applied[link.org, link.revision] = link.hash


class Sorting:
    """One sorting, in a transaction of a store that nobody else uses: it is emptied first.

    `wanted` are the revisions of organisations that `holds` will be asked about.
    """

    def __init__(self, txn: Transaction, keys: LedgerKeys, wanted: Collection[tuple[str, int]] = ()) -> None:
        txn.clear()
        self._chain, self._watch = LmdbChain(txn), _Watch(wanted)
        self._folder = Folder(keys, self._chain, self._watch, self._watch)

    def take(self, record: Record) -> Sorted:
        """The next record of the partition, and what it is."""
        return self._folder.take(record)

    @property
    def counts(self) -> Counter[str]:
        """How many records there were by outcome."""
        return self._folder.counts

    def head(self, org: str) -> Head:
        """Where an organisation's ledger stands."""
        return self._chain.head(org)

    def heads(self) -> dict[str, Head]:
        """Where each ledger with an applied event stands."""
        return {org: head for org, head in self._chain.heads() if head.revision}

    def hash_at(self, org: str, revision: int) -> str | None:
        """The hash of an applied event, while readers remember it."""
        return self._chain.hash_at(org, revision)

    def applied(self, org: str, revision: int) -> str | None:
        """The hash of an applied event that was asked for."""
        return self._watch.applied.get((org, revision))

    def holds(self, org: str, revision: int, hash_: str) -> bool:
        """Whether this record is part of the ledger, or halts it, or was set aside by an operator: nobody overlooks it."""
        return self.applied(org, revision) == hash_ or hash_ in self.broken(org)

    def names_as_parent(self, org: str, hash_: str) -> bool:
        """Whether a halting record, be it set aside or not, says that this one was before it."""
        return any(link.parent == hash_ for link in self._watch.broken.get(org, {}).values())

    def broken(self, org: str) -> set[str]:
        """The hashes of the records that halt the organisation or were set aside."""
        return {link.hash for link in self._watch.broken.get(org, {}).values()}

    def halting(self, org: str) -> list[BrokenRecord]:
        """The records that halt the organisation now, by offset."""
        return self._chain.broken(org)

    def halted(self) -> list[str]:
        """The organisations that are halted now."""
        return self._chain.halted()

    def why_halted(self, org: str) -> str:
        """In words; '' when it is not."""
        halt = self._chain.halt(org)
        return f"{halt.why}: {halt.detail}" if halt else ""
