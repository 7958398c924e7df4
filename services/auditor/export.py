"""Writes bundles from the archive in PostgreSQL: what `verify_bundle` verifies; docs/audit.md has the format."""

import json
import time
from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row

from services.auditor import checkpoints
from services.auditor.checkpoints import Signed
from services.auditor.verify_bundle import (
    CHECKPOINT,
    MANIFEST,
    PROOFS,
    Head,
    digest_of,
    manifest_of,
    read_checkpoint,
    read_keys,
    tree_levels,
)

_RECORDS: Final = """
    SELECT value, headers FROM read.ledger_records
    WHERE org_id = %s AND outcome = 'applied' AND revision <= %s ORDER BY revision
"""
_AT_ONCE: Final = 2000
_LOOK_S: Final = 0.1


class CannotExport(Exception):
    """Nothing was written; the message says why."""


def export(
    session: psycopg.Connection[Any],
    folder: Path,
    orgs: Collection[str],
    public_keys: str,
    tell: Callable[[int, int], None] = lambda done, of: None,
    wait_s: float = 10.0,
) -> Signed:
    """Write a bundle of some organisations, or of all when none is named, as of the newest checkpoint.

    For `wait_s` seconds a projector that is behind is waited for. `folder` must not exist, and does not when this raises;
    `tell` hears how many records are written and how many there are. Raises CannotExport, Unverified for a checkpoint
    that none of `public_keys` signed, OSError and psycopg.Error.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists: name a new folder")
    signed = checkpoints.newest(session, public_keys)
    if signed is None:
        raise CannotExport("nothing was signed yet: run `keyledger audit checkpoint` first")
    wanted = {org: head for org, head in signed.heads.items() if not orgs or org in orgs}
    unknown = set(orgs) - wanted.keys()
    if unknown:
        raise CannotExport(f"the checkpoint of {signed.time} knows no organisation {min(unknown)}")
    _await_projector(session, wanted, time.monotonic() + wait_s)
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.", ignore_cleanup_errors=True) as draft:
        made = Path(draft) / "bundle"
        for part in ("records", "headers"):
            (made / part).mkdir(parents=True)
        done, total = 0, sum(head.revision for head in wanted.values())
        for org, head in wanted.items():
            _write_records(session, made, org, head)
            done += head.revision
            tell(done, total)
        complete(made, signed, wanted, not orgs, read_checkpoint(signed.note, read_keys(public_keys)).fingerprint)
        made.rename(folder)
    return signed


def complete(folder: Path, signed: Signed, orgs: Collection[str], is_all: bool, fingerprint: str) -> None:
    """Write what a bundle has beside the records of these organisations. Raises OSError."""
    (folder / CHECKPOINT).write_bytes(signed.note)
    (folder / PROOFS).write_text(json.dumps(_proofs(signed, orgs), sort_keys=True, indent=1) + "\n")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): digest_of(path) for path in files}
    (folder / MANIFEST).write_bytes(manifest_of(digests, is_all, fingerprint))


def _await_projector(session: psycopg.Connection[Any], wanted: dict[str, Head], deadline: float) -> None:
    cursor = session.cursor(row_factory=tuple_row)
    while True:
        reached: dict[str, int] = dict(cursor.execute("SELECT org_id, revision FROM read.heads").fetchall())
        behind = [org for org, head in wanted.items() if reached.get(org, 0) < head.revision]
        if not behind:
            return
        if time.monotonic() > deadline:
            raise CannotExport(
                f"{behind[0]}: the archive ends at revision {reached.get(behind[0], 0)}, {wanted[behind[0]].revision} was"
                " signed: see `keyledger projector status`"
            )
        time.sleep(_LOOK_S)


def _write_records(session: psycopg.Connection[Any], folder: Path, org: str, head: Head) -> None:
    count = 0
    with (
        session.transaction(),
        session.cursor("export", row_factory=tuple_row) as cursor,
        (folder / "records" / f"{org}.jsonl").open("wb") as records,
        (folder / "headers" / f"{org}.jsonl").open("wb") as headers,
    ):
        cursor.itersize = _AT_ONCE
        cursor.execute(_RECORDS, [org, head.revision])
        for value, header in cursor:
            records.write(value + b"\n")  # A canonical value holds no line break.
            headers.write(header + b"\n")
            count += 1
    if count != head.revision:
        raise CannotExport(
            f"{org}: the archive has {count} of the {head.revision} records that were signed: rows were removed, rebuild it"
            " with `python -m services.projector rebuild`"
        )


def _proofs(signed: Signed, orgs: Collection[str]) -> dict[str, dict[str, object]]:
    levels, proofs = tree_levels(signed.leaves), {}
    for index, (org, head) in enumerate(signed.heads.items()):
        if org in orgs:
            path = [step.hex() for step in audit_path(levels, index)]
            proofs[org] = {"head": head.hash, "index": index, "path": path, "revision": head.revision}
    return proofs


def audit_path(levels: list[list[bytes]], index: int) -> list[bytes]:
    """RFC 6962, section 2.1.1: the hashes that lead from a leaf of a tree to its root."""
    return [
        level[at ^ 1] for height, level in enumerate(levels[:-1]) for at in [index >> height] if at ^ 1 < len(level)
    ]
