"""Where a restore finds sealed records: the projector's archive, or a bundle; each partition's in the order of the ledger."""

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from psycopg.rows import tuple_row

from schemas.topics import LIFECYCLE, partition_of
from services.auditor.checkpoints import Session
from services.auditor.verify_bundle import PROOFS, Unverified, lines_of, read_keys, verify
from services.ledger.records import Record
from services.ledger.seal import Headers

_ROWS: Final = """
    SELECT "offset", org_id, value, headers FROM read.ledger_records WHERE partition = %s ORDER BY "offset"
"""
_AT_ONCE: Final = 2000


class Source(Protocol):
    """Records as they were in the log. `name` says in a sentence what it is."""

    name: str

    def count(self) -> int:
        """How many there are."""

    def records(self, partition: int) -> Iterator[Record]:
        """Those of a partition, each time the same in the same order; the message key is the organisation's."""


class Archive:
    """`read.ledger_records`: every sealed record, the void and halting ones included, by offset.

    A database without the table holds none. Raises psycopg.Error.
    """

    name = "the archive"

    def __init__(self, session: Session) -> None:
        self._session = session
        found = session.execute("SELECT to_regclass('read.ledger_records') IS NOT NULL").fetchone()
        self.exists = found == (True,)

    def count(self) -> int:
        """See Source."""
        if not self.exists:
            return 0
        row = self._session.execute("SELECT count(*) FROM read.ledger_records").fetchone()
        return int(row[0]) if row else 0

    def records(self, partition: int) -> Iterator[Record]:
        """See Source."""
        if not self.exists:
            return
        with self._session.transaction(), self._session.cursor("stored", row_factory=tuple_row) as cursor:
            cursor.itersize = _AT_ONCE
            for offset, org, value, headers in cursor.execute(_ROWS, [partition]):
                yield Record(LIFECYCLE, partition, offset, org.encode(), value, _headers(headers))


class Bundle:
    """A folder written by `export`, verified first: applied records only, one organisation after the other."""

    name = "the bundle"

    def __init__(self, folder: Path, public_keys: str) -> None:
        """Raises Unverified with every fault, ValueError for bad keys, and OSError."""
        report = verify(folder, read_keys(public_keys), [])
        if report.faults:
            raise Unverified(report.faults[0].code, "\n".join(lines_of(report)))
        self._folder, self._count = folder, sum(report.records.values())
        self._orgs = sorted(json.loads((folder / PROOFS).read_bytes()))

    def count(self) -> int:
        """See Source."""
        return self._count

    def records(self, partition: int) -> Iterator[Record]:
        """See Source. The offsets count from 0 on: a bundle does not say where they stood."""
        offset = 0
        for org in self._orgs:
            if partition_of(org) != partition:
                continue
            with (
                (self._folder / "records" / f"{org}.jsonl").open("rb") as records,
                (self._folder / "headers" / f"{org}.jsonl").open("rb") as headers,
            ):
                for line in records:
                    # What is missing of the headers, which the signature does not cover, leaves a record without a seal.
                    header = _headers(headers.readline())
                    yield Record(LIFECYCLE, partition, offset, org.encode(), line.removesuffix(b"\n"), header)
                    offset += 1


def _headers(stored: bytes) -> Headers:
    """Headers out of JSON, [[name, value in base64 or null], …]; none where it is anything else: then nothing is sealed."""
    try:
        return tuple(_header(*pair) for pair in json.loads(stored))
    except (ValueError, TypeError, RecursionError):
        return ()


def _header(name: Any, value: Any) -> tuple[str, bytes | None]:
    if not isinstance(name, str):
        raise TypeError
    return name, None if value is None else b64decode(value, validate=True)
