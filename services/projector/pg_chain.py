"""The chain of the organisations of a batch, in PostgreSQL."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from schemas.times import SHAPE
from schemas.topics import partition_of
from services.ledger.chain import REMEMBERED, ROOT, Head, Link
from services.ledger.fold import BrokenRecord, Halt, Waiting
from services.projector.database import Writer
from services.projector.read_models.rows import Rows

_TIME: Final = re.compile(SHAPE)


@dataclass(slots=True)
class HeadRow:
    """A row of `heads`."""

    org_id: str
    partition: int
    revision: int = 0
    hash: str = ROOT
    time: str = ""
    halt_why: str | None = None
    halt_detail: str | None = None


_COLUMNS: Final = {
    "org_id": "text",
    "partition": "integer",
    "revision": "bigint",
    "hash": "text",
    "time": "text",
    "halt_why": "text",
    "halt_detail": "text",
}


class PgChain:
    """A ChainStore. Heads are loaded once and written back by `write`; the few records of halted organisations are
    written at once. Raises StoreFailure and psycopg.Error.
    """

    def __init__(self, connection: Writer) -> None:
        self._connection = connection
        self._heads = Rows(connection, "heads", HeadRow, _COLUMNS, key_size=1)
        self._hashes: dict[tuple[str, int], str] = {}

    def load(self, orgs: Iterable[str]) -> None:
        """Fetch the heads of these organisations in one question."""
        self._heads.load((org,) for org in orgs)

    def write(self) -> None:
        """Write the heads that changed."""
        self._heads.write()

    def head(self, org: str) -> Head:
        """See ChainStore."""
        row = self._heads.get(org)
        return Head() if row is None else Head(row.revision, row.hash, row.time)

    def hash_at(self, org: str, revision: int) -> str | None:
        """See ChainStore."""
        # The archive knows older hashes too, but all readers must judge alike, and the others have forgotten them.
        if revision <= self.head(org).revision - REMEMBERED:
            return None
        known = self._hashes.get((org, revision))
        if known is not None:
            return known
        found = self._ask(
            "SELECT hash FROM ledger_records WHERE org_id = %s AND revision = %s AND outcome = 'applied'", org, revision
        )
        return found[0][0] if found else None

    def move_head(self, org: str, head: Head) -> None:
        """See ChainStore."""
        row = self._row(org)
        row.revision, row.hash = head.revision, head.hash
        row.time = head.time if _TIME.fullmatch(head.time) else ""  # Nobody has judged the document's time yet.
        self._heads.put(row)
        self._hashes[org, head.revision] = head.hash

    def halt(self, org: str) -> Halt | None:
        """See ChainStore."""
        row = self._heads.get(org)
        return None if row is None or row.halt_why is None else Halt(row.halt_why, row.halt_detail or "")

    def set_halt(self, org: str, halt: Halt | None) -> None:
        """See ChainStore."""
        row = self._row(org)
        row.halt_why = None if halt is None else halt.why
        # The detail of an undecodable event quotes it, and PostgreSQL stores no zero character.
        row.halt_detail = None if halt is None else halt.detail.replace("\0", "\ufffd")[:2000]
        self._heads.put(row)

    def broken(self, org: str) -> list[BrokenRecord]:
        """See ChainStore."""
        found = self._ask(
            'SELECT "offset", revision, parent, hash, time, value FROM halting_records WHERE org_id = %s ORDER BY 1',
            org,
        )
        return [
            BrokenRecord(offset, Link(org, revision, parent, hash_, time), value)
            for offset, revision, parent, hash_, time, value in found
        ]

    def add_broken(self, org: str, record: BrokenRecord) -> None:
        """See ChainStore."""
        link = record.link
        time = link.time if _TIME.fullmatch(link.time) else ""
        self._do(
            "INSERT INTO halting_records VALUES (%s, %s, %s, %s, %s, %s, %s)",
            *(org, record.offset, link.revision, link.parent, link.hash, time, record.value),
        )

    def drop_broken(self, org: str, offsets: Iterable[int]) -> None:
        """See ChainStore."""
        self._do('DELETE FROM halting_records WHERE org_id = %s AND "offset" = ANY (%s::bigint[])', org, list(offsets))

    def waiting(self, org: str) -> list[Waiting]:
        """See ChainStore."""
        found = self._ask('SELECT revision, "offset", value FROM waiting_events WHERE org_id = %s ORDER BY 1', org)
        return [Waiting(*row) for row in found]

    def add_waiting(self, org: str, event: Waiting) -> None:
        """See ChainStore."""
        self._do("INSERT INTO waiting_events VALUES (%s, %s, %s, %s)", org, event.revision, event.offset, event.value)

    def drop_waiting(self, org: str, revision: int) -> None:
        """See ChainStore."""
        self._do("DELETE FROM waiting_events WHERE org_id = %s AND revision = %s", org, revision)

    def _row(self, org: str) -> HeadRow:
        return self._heads.get(org) or HeadRow(org, partition_of(org))

    def _ask(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, values).fetchall()

    def _do(self, query: LiteralString, *values: object) -> None:
        self._connection.execute(query, values)
