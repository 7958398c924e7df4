"""A reader's own LMDB: named tables of bytes, one transaction per batch, read by any number of processes.

Opened without sync, for speed: a killed process loses nothing, but a machine that went down may leave half a store.
So a small file beside it, written through to the disk, tells the machine's boot id or that it was closed in order,
and the store starts empty when neither vouches for it; the log then fills it again.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb

from services.ledger.fold import StoreFailure

_FORMAT: Final = "keyledger store 1, "
_CLOSED: Final = "closed in order"
_VOUCHER: Final = "voucher"
_LMDB_FILES: Final = ("data.mdb", "lock.mdb")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MAP_BYTES: Final = 64 * 1024**3
META: Final = "meta"


class Transaction:
    """A view of the tables at one moment; writable inside `Store.write`."""

    def __init__(self, txn: Any, tables: dict[str, Any]) -> None:
        self._txn, self._tables = txn, tables

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of a key."""
        found: bytes | None = self._txn.get(key, db=self._tables[table])
        return found

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Set a key. Raises StoreFailure when the disk or the map is full."""
        try:
            self._txn.put(key, value, db=self._tables[table])
        except lmdb.Error as error:
            raise StoreFailure(str(error)) from error

    def delete(self, table: str, key: bytes) -> None:
        """Remove a key, if it is there. Raises StoreFailure when the disk or the map is full."""
        try:
            self._txn.delete(key, db=self._tables[table])
        except lmdb.Error as error:
            raise StoreFailure(str(error)) from error

    def scan(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys and values whose key begins with the prefix, in the order of the keys."""
        with self._txn.cursor(db=self._tables[table]) as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value

    def clear(self) -> None:
        """Empty every table."""
        for table in self._tables.values():
            self._txn.drop(table, delete=False)


class Store:
    """The tables of one reader in one folder; at most one process writes, any number reads."""

    def __init__(self, folder: Path, tables: Sequence[str], *, read_only: bool = False) -> None:
        """Open the folder, made when missing. A reader must open it after the writer did."""
        names = [META, *tables]
        self._folder, self._read_only = folder, read_only
        if not read_only:
            # Judged before LMDB looks at its file: half a store may be no LMDB at all.
            folder.mkdir(parents=True, exist_ok=True)
            if not self._vouched_for():
                for name in _LMDB_FILES:
                    (folder / name).unlink(missing_ok=True)
            self._vouch(_boot_id())
        self._env = self._open(len(names))
        self._tables = {name: self._env.open_db(name.encode(), create=not read_only) for name in names}

    def _open(self, tables: int) -> Any:
        return lmdb.open(
            str(self._folder),
            max_dbs=tables,
            map_size=_MAP_BYTES,
            max_readers=1024,
            sync=False,
            readonly=self._read_only,
            create=not self._read_only,
        )

    def _vouched_for(self) -> bool:
        voucher = self._folder / _VOUCHER
        return voucher.exists() and voucher.read_text() in {_FORMAT + _boot_id(), _FORMAT + _CLOSED}

    def _vouch(self, state: str) -> None:
        draft = self._folder / f"{_VOUCHER}.draft"
        with draft.open("w") as file:
            file.write(_FORMAT + state)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._folder / _VOUCHER)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent view; cheap, from any thread."""
        with self._env.begin(buffers=False) as txn:
            yield Transaction(txn, self._tables)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction: all of it or, when the block raises, nothing."""
        with self._env.begin(write=True) as txn:
            yield Transaction(txn, self._tables)

    def close(self) -> None:
        """Write everything to the disk and close in order."""
        if not self._read_only:
            self._env.sync(True)
            self._vouch(_CLOSED)
        self._env.close()


_TOPIC_ID: Final = b"topic-id/"


def known_topic_ids(store: Store) -> dict[str, str]:
    """The topic ids that were remembered at an earlier start."""
    with store.read() as txn:
        return {at[len(_TOPIC_ID) :].decode(): value.decode() for at, value in txn.scan(META, _TOPIC_ID)}


def remember_topic_ids(store: Store, ids: Mapping[str, str]) -> None:
    """Remember the topics' ids, beside the places in them."""
    with store.write() as txn:
        for topic, topic_id in ids.items():
            txn.put(META, _TOPIC_ID + topic.encode(), topic_id.encode())


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "no boot id"
