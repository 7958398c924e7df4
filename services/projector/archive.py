"""The archive as an auditor reads it: a ledger from its beginning, every record hashed again."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from psycopg import Connection
from psycopg.rows import tuple_row

from schemas.decoder import decode
from schemas.events import Envelope
from services.ledger.chain import ROOT

_RECORDS: Final = """
    SELECT value FROM read.ledger_records WHERE org_id = %s AND outcome = 'applied' ORDER BY revision, "offset"
"""
_AT_ONCE: Final = 2000


class BrokenArchive(Exception):
    """A row is not what the chain says it must be: it was edited or removed. The message names the first one."""


class Archived(NamedTuple):
    """An applied event: as it is read, its exact bytes, and their SHA-256 (hex)."""

    envelope: Envelope
    value: bytes
    hash: str


def ledger(connection: Connection[Any], org: str) -> Iterator[Archived]:
    """The events of an organisation in order up to its head, none for one that is not known.

    Raises BrokenArchive at the first record that does not continue the chain or for want of the last ones, UndecodableEvent at one that this version
    does not know, and psycopg.Error.
    """
    parent, revision = ROOT, 0
    with connection.transaction(), connection.cursor("ledger", row_factory=tuple_row) as cursor:
        # Before the records: what is projected meanwhile makes these more, and the head is still among them.
        head, expected = _head(connection, org)
        cursor.itersize = _AT_ONCE
        for (value,) in cursor.execute(_RECORDS, [org]):
            revision += 1
            envelope = decode(value)
            if (envelope.org, envelope.revision, envelope.parent) != (org, revision, parent):
                raise BrokenArchive(
                    f"{org}: what stands at revision {revision} does not continue the chain: the archive was edited"
                )
            parent = hashlib.sha256(value).hexdigest()
            if revision == head and parent != expected:
                raise BrokenArchive(
                    f"{org}: revision {revision} is not the head that was projected: the archive was edited"
                )
            yield Archived(envelope, value, parent)
    if revision < head:
        raise BrokenArchive(f"{org}: the archive ends at revision {revision} of {head}: rows were removed")


def _head(connection: Connection[Any], org: str) -> tuple[int, str]:
    cursor = connection.cursor(row_factory=tuple_row)
    found = cursor.execute("SELECT revision, hash FROM read.heads WHERE org_id = %s", [org]).fetchone()
    return found or (0, ROOT)


def values(connection: Connection[Any], org: str, after: int, since: str, most: int) -> list[tuple[int, bytes]]:
    """At most so many events of an organisation after a revision and not before a time: revision and exact bytes."""
    cursor = connection.cursor(row_factory=tuple_row)
    cursor.execute(
        "SELECT revision, value FROM read.ledger_records WHERE org_id = %s AND outcome = 'applied' AND revision > %s"
        " AND time >= %s ORDER BY revision LIMIT %s",
        [org, after, since, most],
    )
    return cursor.fetchall()


def hash_at(connection: Connection[Any], org: str, revision: int) -> str | None:
    """The SHA-256 of what the archive holds at a revision, computed from its bytes; None for nothing."""
    found = values(connection, org, revision - 1, "", 1)
    return hashlib.sha256(found[0][1]).hexdigest() if found and found[0][0] == revision else None
