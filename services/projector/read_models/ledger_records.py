"""The table `ledger_records`: every sealed record of the ledger byte for byte, and what it turned out to be."""

import re
from typing import Any, Final

import msgspec

from schemas.fields import KEY_ID
from schemas.times import SHAPE
from services.ledger.chain import Applied, Foreign, Sorted, Void
from services.ledger.records import Record
from services.projector.database import Writer
from services.projector.read_models.rows import upsert

_COLUMNS: Final = {
    "partition": "integer",
    "offset": "bigint",
    "org_id": "text",
    "revision": "bigint",
    "outcome": "text",
    "hash": "text",
    "parent": "text",
    "time": "text",
    "key_id": "text",
    "value": "bytea",
    "headers": "bytea",
}
_KEY_ID: Final = re.compile(KEY_ID)
_TIME: Final = re.compile(SHAPE)


class LedgerRecords:
    """An Archive that collects rows and writes them by `write`."""

    def __init__(self, connection: Writer) -> None:
        self._connection = connection
        self._rows: dict[tuple[int, int], tuple[Any, ...]] = {}
        self._settled: list[tuple[str, int, str]] = []

    def sorted(self, record: Record, outcome: Sorted) -> None:
        """See Archive."""
        if isinstance(outcome, Foreign):
            return
        link = outcome.link
        # A void record was never decoded: anything may stand in it, so only what has the right shape is taken out.
        time = link.time if _TIME.fullmatch(link.time) else ""
        self._rows[record.partition, record.offset] = (
            *(record.partition, record.offset, link.org, link.revision, outcome_text(outcome), link.hash, link.parent),
            *(time, _key_of(record.value or b""), record.value, _headers(record)),
        )

    def resorted(self, org: str, offset: int, outcome: Applied | Void) -> None:
        """See Archive."""
        self._settled.append((org, offset, outcome_text(outcome)))

    def write(self) -> None:
        """Write what was collected. Raises psycopg.Error."""
        rows, key = list(self._rows.values()), ["partition", "offset"]
        upsert(self._connection, "ledger_records", _COLUMNS, rows, key=key, update=None)
        for org, offset, outcome in self._settled:
            self._connection.execute(
                'UPDATE ledger_records SET outcome = %s WHERE org_id = %s AND "offset" = %s', [outcome, org, offset]
            )
        self._rows.clear()
        self._settled.clear()


def outcome_text(outcome: Sorted) -> str:
    """`applied`, `void` or `halting`."""
    match outcome:
        case Applied():
            return "applied"
        case Void():
            return "void"
        case _:
            return "halting"


def about(value: bytes) -> dict[str, Any]:
    """The data of a sealed record, {} where there is none."""
    document = msgspec.json.decode(value)
    data = document.get("data") if isinstance(document, dict) else None
    return data if isinstance(data, dict) else {}


def _key_of(value: bytes) -> str | None:
    key_id = about(value).get("key_id")
    return key_id if isinstance(key_id, str) and _KEY_ID.fullmatch(key_id) else None


def _headers(record: Record) -> bytes:
    return msgspec.json.encode(record.headers)
