"""The log as a rebuild reads it when Kafka's `key-lifecycle` is damaged: lifecycle from the archive, key use from Kafka."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from schemas.topics import LIFECYCLE
from services.ledger.log import Reader
from services.ledger.records import Record, TopicPartition
from services.projector.database import Writer
from services.projector.projector import MOST_RECORDS
from services.projector.rebuild import CannotRebuild, Records

_ROWS: Final = """
    SELECT "offset", org_id, hash, value, headers FROM ledger_records
    WHERE partition = %s AND "offset" >= %s AND "offset" < %s ORDER BY "offset" LIMIT %s
"""
_ENDS: Final = "SELECT partition, next_offset FROM checkpoints WHERE topic = %s"
_decode_headers: Final = msgspec.json.Decoder(tuple[tuple[str, bytes | None], ...]).decode


class ArchiveLog:
    """See Records. `connect` opens a session on the live tables, `log` is the real one.

    A partition of the archive begins at offset 0 and ends where its projector stands. A row whose value has not the hash
    that was stored beside it raises CannotRebuild; with `accept_damage` it is handed on as it is, and the fold judges it.
    """

    def __init__(self, connect: Callable[[], Writer], log: Records, accept_damage: bool = False) -> None:
        self._session, self._log, self._accept_damage = connect(), log, accept_damage

    def reader(self, offsets: Mapping[TopicPartition, int]) -> "ArchiveReader":
        """See Log. Raises psycopg.Error too."""
        archived, others = _parted(list(offsets))
        reader = self._log.reader({at: offsets[at] for at in others}) if others else None
        ends = self._ends(archived)
        return ArchiveReader(self.rows, {at: offsets[at] for at in archived}, ends, reader)

    def first_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        """See Log."""
        archived, others = _parted(partitions)
        return dict.fromkeys(archived, 0) | (self._log.first_offsets(others, timeout_s) if others else {})

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        """See Log. Raises psycopg.Error too."""
        archived, others = _parted(partitions)
        return self._ends(archived) | (self._log.end_offsets(others, timeout_s) if others else {})

    def close(self) -> None:
        """Let go of the session; the real log stays open."""
        self._session.close()

    def rows(self, at: TopicPartition, first: int, end: int) -> list[Record]:
        """The next records of a partition. Raises CannotRebuild and psycopg.Error."""
        found = self._session.execute(_ROWS, [at.partition, first, end, MOST_RECORDS]).fetchall()
        return [self._record(at, *row) for row in found]

    def _ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        found: dict[int, int] = dict(self._session.execute(_ENDS, [LIFECYCLE]).fetchall())
        return {at: found.get(at.partition, 0) for at in partitions}

    def _record(self, at: TopicPartition, *row: Any) -> Record:
        offset, org, hash_, value, stored = row
        headers = _headers(stored)
        if (headers is None or hashlib.sha256(value).hexdigest() != hash_) and not self._accept_damage:
            raise CannotRebuild(
                f"the archive was edited: the row of {at.topic}/{at.partition} offset {offset} ({org}) is not what was stored:"
                " rebuild from Kafka, or accept with --accept-differences that the ledger of this organisation breaks there"
            )
        return Record(*at, offset, org.encode(), value, headers or ())


class ArchiveReader:
    """See Reader. The archive comes first: then uses find their keys. `rows` are `ArchiveLog.rows`.

    Offsets without a row, which were foreign, are passed over.
    """

    def __init__(
        self,
        rows: Callable[[TopicPartition, int, int], list[Record]],
        offsets: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        reader: Reader | None,
    ) -> None:
        self._rows, self._offsets, self._ends, self._reader = rows, dict(offsets), dict(ends), reader

    def poll(self, timeout_ms: int) -> list[Record]:
        """See Reader. Raises CannotRebuild and psycopg.Error too."""
        for at, offset in self._offsets.items():
            if offset < self._ends[at]:
                found = self._rows(at, offset, self._ends[at])
                self._offsets[at] = found[-1].offset + 1 if found else self._ends[at]
                if found:
                    return found
        return [] if self._reader is None else self._reader.poll(timeout_ms)

    def positions(self) -> Mapping[TopicPartition, int]:
        """See Reader."""
        return self._offsets | ({} if self._reader is None else dict(self._reader.positions()))

    def close(self) -> None:
        """See Reader."""
        if self._reader is not None:
            self._reader.close()


def _parted(partitions: Sequence[TopicPartition]) -> tuple[list[TopicPartition], list[TopicPartition]]:
    """Those of the archive, and the others."""
    return (
        [at for at in partitions if at.topic == LIFECYCLE],
        [at for at in partitions if at.topic != LIFECYCLE],
    )


def _headers(stored: bytes) -> tuple[tuple[str, bytes | None], ...] | None:
    """See the table `ledger_records`; None where it is anything else."""
    try:
        return _decode_headers(stored)
    except msgspec.DecodeError:
        return None
