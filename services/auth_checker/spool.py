"""The spool: uses on this machine's disk until the log has acknowledged them.

Every process that answers puts its windows in, the publisher takes the records out; all of them write the same LMDB
folder. A window gets its partition, its number and its bytes in the transaction that puts it in, so every copy that is
sent is the same, and numbers are dense: `sequence` counts from 1 in each partition of a source, and a source is a
random id that is made with the spool's file. A machine that went down may leave half a file: then the store begins
empty, and so with a new source (see `services.ledger.store`).
"""

import secrets
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from schemas.times import Clock, wall_clock_ms
from schemas.topics import CHECKER_SOURCE, PARTITIONS
from services.auth_checker import key_used
from services.auth_checker.windows import Window
from services.ledger.log import Message
from services.ledger.store import META, Store, Transaction

LIMIT_BYTES: Final = 256 * 1024**2
_TABLE: Final = "chunks"
_TOTALS: Final = b"totals"
_KEY: Final = struct.Struct(">QQQ")
"""A chunk's key: records and bytes that were ever put in before it, and when it was, in milliseconds since 1970.

Chunks so stand in the order they were put in, and the first key tells, beside the totals, how much is waiting.
"""


class _Totals(msgspec.Struct, array_like=True):
    """What was ever put in, and the last `sequence` of each partition."""

    source: str
    records: int
    bytes: int
    sequences: list[int]


class Chunk(NamedTuple):
    """Records that were put in together, and the name to remove them by."""

    name: bytes
    messages: list[Message]


_Records = list[tuple[int, bytes, bytes]]
"""Partition, key id and value of each."""
_encode: Final = msgspec.msgpack.Encoder().encode
_decode_records: Final = msgspec.msgpack.Decoder(_Records).decode
_decode_totals: Final = msgspec.msgpack.Decoder(_Totals).decode


class Spool:
    """One spool, at most `limit_bytes` of records. Thread-safe, and shared with other processes.

    All methods raise StoreFailure when the disk fails.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int = LIMIT_BYTES,
        clock: Clock = wall_clock_ms,
        random_bits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        """Open the folder, made when missing; one process must open it once only."""
        self._limit_bytes, self._clock, self._random_bits = limit_bytes, clock, random_bits
        self._store = Store(folder, (_TABLE,), shared=True)

    def put(self, windows: Sequence[Window]) -> bool:
        """Keep these windows, all in one transaction; False, and none is kept, when there is no room for them.

        No other process can put anything in meanwhile, so give a few hundred at once, not all.
        """
        with self._store.write() as txn:
            totals, now_ms = self._totals(txn), self._clock()
            random = self._random_bits(128)  # Once for all: the ids of one transaction follow one another.
            records = [_record(window, totals, now_ms, random + number) for number, window in enumerate(windows)]
            chunk = _encode(records)
            if totals.bytes + len(chunk) - _first(txn, totals)[1] > self._limit_bytes:
                return False
            txn.put(_TABLE, _KEY.pack(totals.records, totals.bytes, now_ms), chunk)
            totals.records += len(records)
            totals.bytes += len(chunk)
            txn.put(META, _TOTALS, _encode(totals))
        return True

    def oldest(self, most: int) -> list[Chunk]:
        """The chunks that wait longest: so many that they hold `most` records, or all."""
        found, records = list[Chunk](), 0
        with self._store.read() as txn:
            for name, value in txn.scan(_TABLE):
                found.append(Chunk(name, [key_used.message(*record) for record in _decode_records(value)]))
                records += len(found[-1].messages)
                if records >= most:
                    break
        return found

    def remove(self, chunks: Iterable[Chunk]) -> None:
        """Forget what was acknowledged."""
        with self._store.write() as txn:
            for chunk in chunks:
                txn.delete(_TABLE, chunk.name)

    def figures(self) -> dict[str, float]:
        """What waits: `records`, `bytes`, `fill` (1 is full) and `age_s` of the oldest; `room` in bytes for more; and how many
        were ever `sent`.
        """
        with self._store.read() as txn:
            totals = self._totals(txn)
            sent, sent_bytes, since_ms = _first(txn, totals)
        waiting, waiting_bytes = totals.records - sent, totals.bytes - sent_bytes
        return {
            "records": waiting,
            "bytes": waiting_bytes,
            "room": self._limit_bytes - waiting_bytes,
            "fill": waiting_bytes / self._limit_bytes,
            "age_s": max(0, self._clock() - since_ms) / 1000 if waiting else 0.0,
            "sent": sent,
        }

    def close(self) -> None:
        """Write everything through to the disk."""
        self._store.close()

    def _totals(self, txn: Transaction) -> _Totals:
        value = txn.get(META, _TOTALS)
        if value is None:
            return _Totals(f"{CHECKER_SOURCE}{self._random_bits(128):032x}", 0, 0, [0] * PARTITIONS)
        return _decode_totals(value)


def _record(window: Window, totals: _Totals, now_ms: int, random: int) -> tuple[int, bytes, bytes]:
    at = key_used.partition(window)
    totals.sequences[at] += 1
    value = key_used.encode(window, totals.source, totals.sequences[at], now_ms, random)
    return at, window.key_id.encode(), value


def _first(txn: Transaction, totals: _Totals) -> tuple[int, int, int]:
    """The key of the oldest chunk; what the next one's would be when there is none."""
    for name, _ in txn.scan(_TABLE):
        records, count_bytes, at_ms = _KEY.unpack(name)
        return records, count_bytes, at_ms
    return totals.records, totals.bytes, 0
