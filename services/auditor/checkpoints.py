"""Checkpoints: one line per organisation, one RFC 6962 root over the lines, one signed note; kept in PostgreSQL and
as files.

The note is a C2SP tlog-checkpoint: origin, number of organisations, root in base64, and as extension line the time.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row

from services.auditor.signing_key import SigningKey
from services.auditor.verify_bundle import Head, leaf_hash, read_keys, read_lines, read_shipped, tree_root

Session = psycopg.Connection[tuple[Any, ...]]
_TABLE: Final = """
    CREATE SCHEMA IF NOT EXISTS auditor;
    CREATE TABLE IF NOT EXISTS auditor.checkpoints (
        signed_at text COLLATE "C" PRIMARY KEY,
        note      bytea NOT NULL,
        lines     bytea NOT NULL -- One per organisation, in the order of the bytes: org, revision, hash.
    )
"""
_BEFORE: Final = """
    SELECT signed_at, note, lines FROM auditor.checkpoints WHERE signed_at < %s ORDER BY signed_at DESC LIMIT 1
"""
_SUFFIX: Final = ".checkpoint"
_TABLES_LOCK: Final = 0x6B6C_6175


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint: when, the note, and the lines that its root is over."""

    time: str
    note: bytes
    lines: bytes

    @property
    def origin(self) -> str:
        """Whose notary signed."""
        return self.note.split(b"\n", 1)[0].decode()

    @property
    def heads(self) -> dict[str, Head]:
        """What it says about each organisation, in the order of the leaves."""
        return read_lines(self.lines)

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


def verified(whole: bytes, public_keys: str) -> Signed:
    """A checkpoint as it is shipped, with the time that was signed. Raises Unverified, and ValueError for bad keys."""
    checkpoint, _ = read_shipped(whole, read_keys(public_keys))
    text, signatures, lines = whole.split(b"\n\n", 2)
    return Signed(checkpoint.time, text + b"\n\n" + signatures + b"\n", lines)


def make_table(session: Session) -> None:
    """Make the table where it is missing; several processes may do so at once."""
    with session.transaction():
        session.execute("SELECT pg_advisory_xact_lock(%s)", [_TABLES_LOCK])
        session.execute(_TABLE)


def newest(session: psycopg.Connection[Any], public_keys: str) -> Signed | None:
    """The newest checkpoint in PostgreSQL; None when there is none. Raises Unverified for one that we did not sign."""
    return next(all_of(session, public_keys), None)


def all_of(session: psycopg.Connection[Any], public_keys: str) -> Iterator[Signed]:
    """The checkpoints in PostgreSQL, newest first; the session may be one that only reads, and of any kind of rows.

    Raises Unverified for one that we did not sign.
    """
    cursor = session.cursor(row_factory=tuple_row)
    if cursor.execute("SELECT to_regclass('auditor.checkpoints')").fetchone() == (None,):
        return
    newest_at = "9"
    # One by one: together they may be larger than memory.
    while (row := cursor.execute(_BEFORE, [newest_at]).fetchone()) is not None:
        newest_at, note, lines = row
        yield verified(Signed("", note, lines).whole, public_keys)


def newest_file(folder: Path, public_keys: str) -> Signed | None:
    """The newest checkpoint in a folder; None when there is none. Raises Unverified for one that we did not sign."""
    files = sorted(folder.glob(f"*{_SUFFIX}"))
    return verified(files[-1].read_bytes(), public_keys) if files else None


def keep(session: Session, folder: Path, signed: Signed) -> Path:
    """Store a checkpoint in both places, where it is not there already; gives the file. Raises OSError and psycopg.Error."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{signed.time.replace(':', '-')}{_SUFFIX}"
    draft = file.with_suffix(".new")
    draft.write_bytes(signed.whole)
    draft.replace(file)
    session.execute(
        "INSERT INTO auditor.checkpoints VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [signed.time, signed.note, signed.lines],
    )
    return file
