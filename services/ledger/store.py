"""A reader's own LMDB: named tables of bytes, one transaction per batch, read by any number of processes.

Opened without sync, for speed: a killed process loses nothing, but a machine that went down may leave half a store.
So a small file beside it, written through to the disk, tells the machine's boot id or that it was closed in order,
and the store starts empty when neither vouches for it; the log then fills it again.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import lmdb

from services.ledger.fold import StoreFailure

_FORMAT: Final = "keyledger store 2, "
_CLOSED: Final = "closed in order"
_VOUCHER: Final = "voucher"
_VOUCHER_LOCK: Final = "voucher.lock"
_LMDB_FILES: Final = ("data.mdb", "lock.mdb")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MAP_BYTES: Final = 64 * 1024**3
META: Final = "meta"


class Transaction:
    """A view of the tables at one moment; writable inside `Store.write`. A reader's ends with its `with`."""

    __slots__ = ("_tables", "_txn")

    def __init__(self, txn: Any, tables: dict[str, Any]) -> None:
        self._txn, self._tables = txn, tables

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the view."""
        self._txn.abort()

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of a key."""
        found: bytes | None = self._txn.get(key, None, self._tables[table])
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
    """The tables of one folder; at most one process writes them, unless they are `shared`; any number reads."""

    def __init__(self, folder: Path, tables: Sequence[str], *, read_only: bool = False, shared: bool = False) -> None:
        """Open the folder, made when missing. A reader must open it after a writer did."""
        names = [META, *tables]
        self._folder, self._read_only, self._shared = folder, read_only, shared
        if not read_only:
            # Judged before LMDB looks at its file: half a store may be no LMDB at all.
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder):
                if not self._vouched_for():
                    for name in _LMDB_FILES:
                        (folder / name).unlink(missing_ok=True)
                _vouch(folder, _boot_id())
        self._env = self._open(len(names))
        self._env.reader_check()  # A reader that was killed would hold on to all that was deleted since.
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

    def read(self) -> Transaction:
        """A consistent view, for a `with`; cheap, from any thread."""
        return Transaction(self._env.begin(), self._tables)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction: all of it or, when the block raises, nothing. Raises StoreFailure when the disk is full."""
        try:
            with self._env.begin(write=True) as txn:
                if self._shared:
                    self._vouch_again()
                yield Transaction(txn, self._tables)
        except lmdb.Error as error:
            raise StoreFailure(str(error)) from error

    def _vouch_again(self) -> None:
        # Another writer may have closed in order meanwhile, and what is written now is not on the disk yet.
        if (self._folder / _VOUCHER).read_text() != _FORMAT + _boot_id():
            with _alone(self._folder):
                _vouch(self._folder, _boot_id())

    def snapshot(self, folder: Path) -> None:
        """Copy the tables of this moment to a new folder, which opens as a store that was closed in order.

        Whoever writes goes on meanwhile. Raises StoreFailure when the disk is full, or when nothing vouches for the
        tables: they may be what a machine that went down left half written.
        """
        if not self._vouched_for():
            raise StoreFailure(f"nothing vouches for the tables in {self._folder}")
        folder.mkdir(parents=True)
        try:
            self._env.copy(str(folder), compact=True)
        except lmdb.Error as error:
            raise StoreFailure(str(error)) from error
        with (folder / "data.mdb").open("rb") as copy:
            os.fsync(copy.fileno())
        _vouch(folder, _CLOSED)

    def close(self) -> None:
        """Write everything to the disk and close in order."""
        if not self._read_only:
            with self._env.begin(write=True):  # Nobody else may write between the two steps.
                self._env.sync(True)
                with _alone(self._folder):
                    _vouch(self._folder, _CLOSED)
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


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other process touch the voucher while the block runs."""
    with (folder / _VOUCHER_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _vouch(folder: Path, state: str) -> None:
    draft = folder / f"{_VOUCHER}.draft"
    with draft.open("w") as file:
        file.write(_FORMAT + state)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / _VOUCHER)


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "no boot id"
