"""The chain of every organisation in LMDB, and the handler that folds `key-lifecycle` into a Store.

Keys begin with the org id and a zero byte, which no org id holds; revisions and offsets are eight bytes, big-endian,
so that LMDB's order is theirs.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec
import structlog

from services.ledger.chain import REMEMBERED, Head
from services.ledger.fold import Archive, BrokenRecord, Fold, Folder, Halt, Waiting
from services.ledger.records import Batch, Place, Places, TopicPartition
from services.ledger.seal import LedgerKeys
from services.ledger.store import META, Store, Transaction

CHAIN_TABLES: Final = ("heads", "hashes", "halts", "broken", "waiting")
_PLACE: Final = b"place/"
_encode = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(Head).decode
_log = structlog.get_logger("keyledger.ledger")


def _decode(value: bytes, kind: Any) -> Any:
    return msgspec.msgpack.decode(value, type=kind)


def _key(org: str, number: int) -> bytes:
    return org.encode() + b"\0" + number.to_bytes(8)


def head_of(txn: Transaction, org: str) -> Head:
    """The organisation's head; Head() for one never seen."""
    value = txn.get("heads", org.encode())
    return Head() if value is None else _head(value)


class LmdbChain:
    """The ChainStore of one LMDB transaction."""

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn

    def head(self, org: str) -> Head:
        """See ChainStore."""
        return head_of(self._txn, org)

    def heads(self) -> Iterator[tuple[str, Head]]:
        """Every organisation with its head."""
        for org, value in self._txn.scan("heads"):
            yield org.decode(), _head(value)

    def hash_at(self, org: str, revision: int) -> str | None:
        """See ChainStore."""
        value = self._txn.get("hashes", _key(org, revision))
        return None if value is None else value.hex()

    def move_head(self, org: str, head: Head) -> None:
        """See ChainStore."""
        self._txn.put("heads", org.encode(), _encode(head))
        self._txn.put("hashes", _key(org, head.revision), bytes.fromhex(head.hash))
        if head.revision > REMEMBERED:
            self._txn.delete("hashes", _key(org, head.revision - REMEMBERED))

    def halt(self, org: str) -> Halt | None:
        """See ChainStore."""
        value = self._txn.get("halts", org.encode())
        return None if value is None else _decode(value, Halt)

    def halted(self) -> list[str]:
        """The organisations that are halted."""
        return [org.decode() for org, _ in self._txn.scan("halts")]

    def set_halt(self, org: str, halt: Halt | None) -> None:
        """See ChainStore."""
        if halt is None:
            self._txn.delete("halts", org.encode())
        else:
            self._txn.put("halts", org.encode(), _encode(halt))

    def broken(self, org: str) -> list[BrokenRecord]:
        """See ChainStore."""
        found = self._txn.scan("broken", org.encode() + b"\0")
        return [_decode(value, BrokenRecord) for _, value in found]

    def add_broken(self, org: str, record: BrokenRecord) -> None:
        """See ChainStore."""
        self._txn.put("broken", _key(org, record.offset), _encode(record))

    def drop_broken(self, org: str, offsets: Iterable[int]) -> None:
        """See ChainStore."""
        for offset in offsets:
            self._txn.delete("broken", _key(org, offset))

    def waiting(self, org: str) -> list[Waiting]:
        """See ChainStore."""
        return [_decode(value, Waiting) for _, value in self._txn.scan("waiting", org.encode() + b"\0")]

    def add_waiting(self, org: str, event: Waiting) -> None:
        """See ChainStore."""
        self._txn.put("waiting", _key(org, event.revision), _encode(event))

    def drop_waiting(self, org: str, revision: int) -> None:
        """See ChainStore."""
        self._txn.delete("waiting", _key(org, revision))


class LmdbHandler:
    """Folds `key-lifecycle` into a Store: chain, the service's own tables and the places in one transaction.

    `on_counts` is told how many records were applied, void, foreign, broken and halted, for metrics; `archive` what
    each sealed record turned out to be.
    """

    def __init__(
        self,
        store: Store,
        keys: LedgerKeys,
        fold_of: Callable[[Transaction], Fold],
        on_counts: Callable[[dict[str, int]], None] = lambda _: None,
        archive: Archive | None = None,
    ) -> None:
        self._store, self._keys, self._fold_of, self._on_counts = store, keys, fold_of, on_counts
        self._archive = archive

    def resume_from(self) -> Places:
        """Where to go on; organisations that newer software can fold are folded first."""
        with self._store.write() as txn:
            folder = self._folder(txn)
            for org in LmdbChain(txn).halted():
                folder.retry(org)
        with self._store.read() as txn:
            return places(txn)

    def apply(self, batch: Batch) -> None:
        """Fold a batch. Raises StoreFailure, and then nothing of it is stored."""
        with self._store.write() as txn:
            folder = self._folder(txn)
            for record in batch.records:
                folder.take(record)
            for at, place in batch.places.items():
                txn.put(META, _PLACE + f"{at.topic}/{at.partition}".encode(), _encode(place))
        self._on_counts(dict(folder.counts))

    def log_was_cut(self, why: str) -> None:
        """The log is not the one we read: start again from nothing."""
        _log.error("store_emptied", why=why)
        with self._store.write() as txn:
            txn.clear()

    def lost(self, at: TopicPartition, next_offset: int, first_offset: int) -> None:
        """See Handler: `key-lifecycle` is kept for ever, so this is reported, not expected."""
        _log.error("records_lost", topic=at.topic, partition=at.partition, next=next_offset, first=first_offset)

    def _folder(self, txn: Transaction) -> Folder:
        return Folder(self._keys, LmdbChain(txn), self._fold_of(txn), self._archive)


def places(txn: Transaction) -> Places:
    """Where each partition goes on: all that this transaction sees stands before, and all before is in it."""
    return {_partition(key): _decode(value, Place) for key, value in txn.scan(META, _PLACE)}


def _partition(key: bytes) -> TopicPartition:
    topic, partition = key[len(_PLACE) :].decode().rsplit("/", 1)
    return TopicPartition(topic, int(partition))
