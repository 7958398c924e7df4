"""What a reader does with each record of `key-lifecycle`, whatever it keeps its state in.

A store keeps the chain of each organisation (ChainStore) and the service's own state (Fold); `Folder` sorts a record
and carries out what its outcome asks, inside the store's transaction.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Protocol, assert_never

import msgspec
import structlog

from schemas.decoder import UndecodableEvent, UnknownEvent, decode
from schemas.events import Envelope, LedgerResumed
from services.ledger.chain import Applied, Broken, Foreign, Head, Link, Sorted, Void, read_link, sort
from services.ledger.records import Record
from services.ledger.seal import LedgerKeys

MOST_BROKEN: Final = 1000
"""So many halting records of one organisation are kept to be sorted again; an operator needs no more to see a fork."""
_log = structlog.get_logger("keyledger.ledger")


class Halt(msgspec.Struct, frozen=True, gc=False):
    """Why an organisation is closed. `why`: `gap`, `fork`, `upgrade_me` (unknown event) or `evolve` (it broke a rule)."""

    why: str
    detail: str


class BrokenRecord(msgspec.Struct, frozen=True, gc=False):
    """A halting record that waits to be sorted again."""

    offset: int
    link: Link
    value: bytes


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """An applied event that was not folded because its organisation is halted."""

    revision: int
    offset: int
    value: bytes


class ChainStore(Protocol):
    """The chain of every organisation, inside one transaction of a reader's store."""

    def head(self, org: str) -> Head:
        """The head; Head() for an organisation never seen."""

    def hash_at(self, org: str, revision: int) -> str | None:
        """The hash of an applied revision, if it is still remembered."""

    def move_head(self, org: str, head: Head) -> None:
        """Store the new head and remember its hash."""

    def halt(self, org: str) -> Halt | None:
        """Why the organisation is halted, None when it is not."""

    def set_halt(self, org: str, halt: Halt | None) -> None:
        """Halt the organisation, or end its halt."""

    def broken(self, org: str) -> Sequence[BrokenRecord]:
        """The halting records that are kept, by offset."""

    def add_broken(self, org: str, record: BrokenRecord) -> None:
        """Keep a halting record."""

    def drop_broken(self, org: str, offsets: Iterable[int]) -> None:
        """Forget halting records: they are applied, void or set aside now."""

    def waiting(self, org: str) -> Iterable[Waiting]:
        """The applied events that were not folded yet, by revision."""

    def add_waiting(self, org: str, event: Waiting) -> None:
        """Keep an applied event until the halt ends."""

    def drop_waiting(self, org: str, revision: int) -> None:
        """The event was folded."""


class Fold(Protocol):
    """A service's own state. Either all of an event is folded or none: check first, write last."""

    def evolve(self, envelope: Envelope, offset: int) -> None:
        """Take an applied event in. Whatever it raises halts the organisation."""


class BrokenTransition(Exception):
    """An event that its organisation's state forbids, such as a second revocation."""


class Archive(Protocol):
    """Wants to know what every sealed record turned out to be; the projector's archive does."""

    def sorted(self, record: Record, outcome: Sorted) -> None:
        """A record was sorted for the first time."""

    def resorted(self, org: str, offset: int, outcome: Applied | Void) -> None:
        """A halting record turned out to be applied or void after all."""


class StoreFailure(Exception):
    """The store itself failed (full, away). Nothing is wrong with the event: the transaction is tried again."""


class Folder:
    """Sorts records and folds what is applied, inside one transaction. `counts` are by outcome, for metrics."""

    def __init__(self, keys: LedgerKeys, chain: ChainStore, fold: Fold, archive: Archive | None = None) -> None:
        self._keys, self._chain, self._fold, self._archive = keys, chain, fold, archive
        self.counts: Counter[str] = Counter()

    def take(self, record: Record) -> Sorted:
        """Sort one record and do what its outcome asks."""
        link = read_link(record, self._keys)
        if isinstance(link, Foreign) or record.value is None:
            foreign = link if isinstance(link, Foreign) else Foreign("size")
            self.counts["foreign"] += 1
            _log.warning("foreign", why=foreign.why, partition=record.partition, offset=record.offset)
            return foreign
        outcome = sort(link, self._chain.head(link.org), self._chain.hash_at)
        if self._archive is not None:
            self._archive.sorted(record, outcome)
        match outcome:
            case Applied():
                if self._extend(link, record.offset, record.value):
                    self._sort_again(link.org)
            case Void():
                self.counts["void"] += 1
            case Broken(why=why):
                self._break(BrokenRecord(record.offset, link, record.value), why)
            case _:
                assert_never(outcome)
        return outcome

    def retry(self, org: str) -> None:
        """Fold what waits in a halted organisation: newer software may know the event, or no longer break on it."""
        if self._chain.halt(org) is not None and not self._chain.broken(org):
            self._end_halt(org)

    def _extend(self, link: Link, offset: int, value: bytes) -> bool:
        """Move the head; True when halting records waited for that."""
        self.counts["applied"] += 1
        self._chain.move_head(link.org, Head(link.revision, link.hash, link.time))
        waiting = Waiting(link.revision, offset, value)
        if self._chain.halt(link.org) is None:
            self._fold_or_halt(link.org, waiting)
            return False
        self._chain.add_waiting(link.org, waiting)
        had_broken = bool(self._chain.broken(link.org))
        self._set_aside(link.org, value)
        return had_broken

    def _fold_or_halt(self, org: str, event: Waiting) -> bool:
        try:
            self._fold.evolve(decode(event.value), event.offset)
        except StoreFailure:
            raise
        except UnknownEvent as error:
            self._halt(org, Halt("upgrade_me", str(error)), event)
        except Exception as error:  # noqa: BLE001  # Whatever evolve raises closes this organisation, and only this one.
            _log.exception("evolve_failed", org=org, revision=event.revision)
            self._halt(org, Halt("evolve", f"revision {event.revision}: {error}"), event)
        else:
            return True
        return False

    def _halt(self, org: str, halt: Halt, event: Waiting) -> None:
        self.counts["halted"] += 1
        _log.error("org_halted", org=org, why=halt.why, detail=halt.detail, offset=event.offset)
        self._chain.set_halt(org, halt)
        self._chain.add_waiting(org, event)

    def _break(self, record: BrokenRecord, why: str) -> None:
        org = record.link.org
        self.counts["broken"] += 1
        kept = self._chain.broken(org)
        if len(kept) >= MOST_BROKEN:
            # The highest revision is always kept: the halt must not end before all that was dropped came again.
            last = max(kept[-1], record, key=lambda candidate: candidate.link.revision)
            self._chain.drop_broken(org, [kept[-1].offset])
            self._chain.add_broken(org, last)
        else:
            self._chain.add_broken(org, record)
        if self._chain.halt(org) is None:
            detail = f"revision {record.link.revision} at offset {record.offset} does not extend the head"
            _log.error("org_halted", org=org, why=why, detail=detail, offset=record.offset)
            self._chain.set_halt(org, Halt(why, detail))

    def _set_aside(self, org: str, value: bytes) -> None:
        """A LedgerResumed ends the wait for the halting records it names."""
        try:
            event = decode(value).event
        except UndecodableEvent:
            return  # It waits with the others; the halt's end will look at it again.
        if isinstance(event, LedgerResumed):
            self._chain.drop_broken(org, event.offsets)

    def _sort_again(self, org: str) -> None:
        while (settled := self._settle_one(org)) is not None:
            if self._archive is not None:
                self._archive.resorted(org, *settled)
        if not self._chain.broken(org):
            self._end_halt(org)

    def _settle_one(self, org: str) -> tuple[int, Applied | Void] | None:
        for record in self._chain.broken(org):
            outcome = sort(record.link, self._chain.head(org), self._hash_still_known)
            if isinstance(outcome, Broken):
                continue
            self._chain.drop_broken(org, [record.offset])
            if isinstance(outcome, Applied):
                self._extend(record.link, record.offset, record.value)
            return record.offset, outcome
        return None

    def _hash_still_known(self, org: str, revision: int) -> str:
        # A gap's records are sorted again at every move of the head, so what is forgotten by now was seen to be a fork.
        return self._chain.hash_at(org, revision) or ""

    def _end_halt(self, org: str) -> None:
        self._chain.set_halt(org, None)
        for event in list(self._chain.waiting(org)):
            self._chain.drop_waiting(org, event.revision)
            if not self._fold_or_halt(org, event):
                return
        _log.warning("halt_ended", org=org)
