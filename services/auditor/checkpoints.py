"""Checkpoints: one line per organisation, one RFC 6962 root over the lines, one signed note; kept in PostgreSQL.

The note is a C2SP tlog-checkpoint: origin, number of organisations, root in base64, and as extension line the time.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from services.auditor.signing_key import SigningKey
from services.auditor.verify_bundle import Head, leaf_hash, tree_root

Session = psycopg.Connection[tuple[Any, ...]]
_TABLE: Final = """
    CREATE SCHEMA IF NOT EXISTS auditor;
    CREATE TABLE IF NOT EXISTS auditor.checkpoints (
        signed_at text COLLATE "C" PRIMARY KEY,
        note      bytea NOT NULL,
        lines     bytea NOT NULL -- One per organisation, in the order of the bytes: org, revision, hash.
    )
"""
_TABLES_LOCK: Final = 0x6B6C_6175


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint: when, the note, and the lines that its root is over."""

    time: str
    note: bytes
    lines: bytes

    @property
    def heads(self) -> dict[str, Head]:
        """What it says about each organisation, in the order of the leaves."""
        rows = (line.split(" ") for line in self.lines.decode().splitlines())
        return {org: Head(int(revision), hash_) for org, revision, hash_ in rows}

    @property
    def leaves(self) -> list[bytes]:
        """The hashes of the lines."""
        return [leaf_hash(line) for line in self.lines.splitlines()]

    @property
    def whole(self) -> bytes:
        """As it is shipped: the note, an empty line, the lines."""
        return self.note + b"\n" + self.lines


def sign(key: SigningKey, heads: Mapping[str, Head], time: str) -> Signed:
    """Sign the heads of all organisations; `time` is RFC 3339."""
    lines = "".join(f"{org} {head.revision} {head.hash}\n" for org, head in sorted(heads.items())).encode()
    root = tree_root([leaf_hash(line) for line in lines.splitlines()])
    note = key.sign(f"{key.origin}\n{len(heads)}\n{base64.b64encode(root).decode()}\n{time}\n")
    return Signed(time, note, lines)


def make_table(session: Session) -> None:
    """Make the table where it is missing; several processes may do so at once."""
    with session.transaction():
        session.execute("SELECT pg_advisory_xact_lock(%s)", [_TABLES_LOCK])
        session.execute(_TABLE)


def newest(session: Session) -> Signed | None:
    """The last checkpoint that was signed; None when there is none."""
    found = session.execute(
        "SELECT signed_at, note, lines FROM auditor.checkpoints ORDER BY signed_at DESC LIMIT 1"
    ).fetchone()
    return None if found is None else Signed(*found)


def keep(session: Session, signed: Signed) -> None:
    """Store a checkpoint. Raises psycopg.errors.UniqueViolation when there is one of that time."""
    session.execute("INSERT INTO auditor.checkpoints VALUES (%s, %s, %s)", [signed.time, signed.note, signed.lines])
