"""Sealed records and small folds for tests of the ledger."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from schemas import examples
from schemas.codec import encode
from schemas.decoder import decode
from schemas.events import Envelope, KeyRenamed, LedgerEvent
from schemas.topics import LIFECYCLE, partition_of
from services.ledger.chain import ROOT, Head
from services.ledger.fold import BrokenTransition, Halt
from services.ledger.lmdb_chain import CHAIN_TABLES, LmdbChain, LmdbHandler
from services.ledger.log import Message
from services.ledger.records import Batch, Place, Record, value_hash
from services.ledger.seal import Headers, LedgerKeys
from services.ledger.store import Store, Transaction

KEYS = LedgerKeys("k1", {"k1": b"1" * 32, "k0": b"0" * 32})
POISON = "poison"
TABLES = (*CHAIN_TABLES, "seen")


def named(name: str) -> LedgerEvent:
    """An event that differs from others by a name."""
    return KeyRenamed(examples.KEY, name)


def value_of(org: str, revision: int, parent: str, event: LedgerEvent, time: str = "2026-11-23T10:00:00.000Z") -> bytes:
    """The bytes of an event of this place in the chain."""
    return encode(replace(examples.envelope(event, revision, parent), org=org, time=time))


def hash_of(value: bytes) -> str:
    """SHA-256 (hex)."""
    return sha256(value).hexdigest()


def chain(org: str, names: Sequence[str], start: Head | None = None) -> list[bytes]:
    """Values that extend one another, one for each name."""
    head = start or Head()
    values: list[bytes] = []
    for revision, name in enumerate(names, head.revision + 1):
        parent = hash_of(values[-1]) if values else head.hash
        values.append(value_of(org, revision, parent, named(name)))
    return values


def record(org: str, value: bytes | None, offset: int = 0, headers: Headers | None = None) -> Record:
    """A sealed record in its organisation's place."""
    sealed = KEYS.seal(value or b"") if headers is None else headers
    return Record(LIFECYCLE, partition_of(org), offset, org.encode(), value, sealed)


def message(org: str, value: bytes, keys: LedgerKeys = KEYS) -> Message:
    """The same, to be appended to a log."""
    return Message(LIFECYCLE, partition_of(org), org.encode(), value, keys.seal(value))


class NamesFold:
    """Keeps the name of every event by revision; refuses an event out of order, one folded twice, and POISON."""

    def __init__(self, txn: Transaction, poison: str) -> None:
        self._txn, self._poison = txn, poison

    def evolve(self, envelope: Envelope, offset: int) -> None:
        """See Fold."""
        name = getattr(envelope.event, "name", None) or type(envelope.event).__name__
        if name == self._poison:
            raise BrokenTransition(name)
        before = len(names_in(self._txn, envelope.org))
        if envelope.revision != before + 1:
            raise AssertionError(f"revision {envelope.revision} folded after {before}")
        self._txn.put("seen", envelope.org.encode() + b"\0" + envelope.revision.to_bytes(8), name.encode())


def names_in(txn: Transaction, org: str) -> list[str]:
    """What NamesFold kept of an organisation, in order."""
    return [name.decode() for _, name in txn.scan("seen", org.encode() + b"\0")]


class Reader:
    """A store with an LmdbHandler and a NamesFold."""

    def __init__(self, folder: Path, poison: str = POISON) -> None:
        self.store = Store(folder, TABLES)
        self.counts: dict[str, int] = {}
        self.handler = LmdbHandler(self.store, KEYS, lambda txn: NamesFold(txn, poison), self._count)
        self.offset = 0

    def take(self, org: str, *values: bytes) -> None:
        """Hand over one batch of sealed records, at the next offsets."""
        self._hand_over([(org, value) for value in values])

    def take_all(self, *values: bytes) -> None:
        """The same with events of any organisations."""
        self._hand_over([(decode(value).org, value) for value in values])

    def _hand_over(self, values: Sequence[tuple[str, bytes]]) -> None:
        records = tuple(record(org, value, self.offset + at) for at, (org, value) in enumerate(values))
        self.offset += len(records)
        places = {one.at: Place(one.offset + 1, value_hash(one)) for one in records}
        self.handler.apply(Batch(records, places))

    def head(self, org: str) -> Head:
        """The organisation's head."""
        with self.store.read() as txn:
            return LmdbChain(txn).head(org)

    def halt(self, org: str) -> Halt | None:
        """Why it is halted."""
        with self.store.read() as txn:
            return LmdbChain(txn).halt(org)

    def names(self, org: str) -> list[str]:
        """What was folded, in order."""
        with self.store.read() as txn:
            return names_in(txn, org)

    def _count(self, counts: dict[str, int]) -> None:
        for name, number in counts.items():
            self.counts[name] = self.counts.get(name, 0) + number


__all__ = [
    "KEYS",
    "POISON",
    "ROOT",
    "NamesFold",
    "Reader",
    "chain",
    "hash_of",
    "message",
    "named",
    "names_in",
    "record",
    "value_of",
]
