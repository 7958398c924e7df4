"""The calls of the read API for those who audit: as of a moment, around a leaked key, replayed, and proven."""

import io
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from flask import Blueprint, Response

from schemas import times
from schemas.problems import Problem
from services.auditor import checkpoints, export
from services.auditor.checkpoints import Signed
from services.auditor.verify_bundle import Unverified, read_keys, verify
from services.projector import archive, parameters
from services.projector.archive import BrokenArchive
from services.projector.as_of import keys_as_of
from services.projector.blast_radius import blast_radius
from services.projector.reads import View
from services.projector.routes import all_of, answer, parts, stamped

audit_routes: Final = Blueprint("audit", __name__)
_MOST_REPLAYED: Final = 10_000
_ONE: Final = ("min_revision",)


@audit_routes.get("/v1/orgs/<org>/keys-as-of")
def org_keys_as_of(org: str) -> Response:
    """The keys of an organisation at a moment (now), folded from its events."""
    with all_of(org, parameters.AS_OF) as (view, query):
        at = query.at or times.to_text(parts().clock())
        keys = keys_as_of((one.envelope for one in archive.ledger(view.connection, org)), at)
        return answer({"at": at, "items": [key.document() for key in keys]}, view.state)


@audit_routes.get("/v1/orgs/<org>/keys/<key>/blast-radius")
def key_blast_radius(org: str, key: str) -> Response:
    """All that a leaked key could have touched."""
    with all_of(org, _ONE, key) as (view, _):
        return answer(blast_radius(view.connection, org, key, times.to_text(parts().clock())), view.state)


@audit_routes.get("/v1/orgs/<org>/replay")
def replay(org: str) -> Response:
    """Events as stored, one a line; `Keyledger-Next-Revision` is what to ask `after_revision` next time."""
    with all_of(org, parameters.REPLAY) as (view, query):
        found = archive.values(view.connection, org, query.after_revision, query.since or "", _MOST_REPLAYED)
        body = b"".join(value + b"\n" for _, value in found)
        response = Response(body, content_type="application/jsonl")
        response.headers["Keyledger-Next-Revision"] = str(found[-1][0] if found else query.after_revision)
        return stamped(response, view.state)


@audit_routes.get("/v1/orgs/<org>/checkpoint")
def checkpoint(org: str) -> Response:
    """The newest signed checkpoint that knows the organisation, and whether the archive agrees with it."""
    with all_of(org, _ONE) as (view, _):
        signed, told = _newest(view), None
        verified: bool | None = None
        if signed is not None and org in signed.heads:
            head = signed.heads[org]
            told = {"time": signed.time, "origin": signed.origin, "revision": head.revision, "head": head.hash}
            verified = archive.hash_at(view.connection, org, head.revision) == head.hash
        return answer({"signed": told, "revision": view.state.revision, "verified": verified}, view.state)


@audit_routes.get("/v1/orgs/<org>/bundle")
def bundle(org: str) -> Response:
    """A zip file with the bundle of an organisation as of the newest checkpoint, verified before it leaves."""
    with all_of(org, _ONE) as (view, _):
        signed = _newest(view)
        if signed is None or org not in signed.heads:
            raise Problem(409, "not_signed", "no checkpoint knows this organisation yet: the notary has to sign one")
        zipped = io.BytesIO()
        with TemporaryDirectory(prefix="keyledger-bundle.") as folder:
            _export(view, org, Path(folder) / "bundle")
            with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archived:
                for path in sorted((Path(folder) / "bundle").rglob("*")):
                    archived.write(path, path.relative_to(folder))
        name = f"{org}-{signed.time.replace(':', '-')}.zip"
        response = Response(zipped.getvalue(), content_type="application/zip")
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return stamped(response, view.state)


def _export(view: View, org: str, folder: Path) -> None:
    keys = _public_keys()
    try:
        export.export(view.connection, folder, [org], keys, wait_s=0)
    except export.CannotExport as error:
        raise Problem(503, "not_caught_up", str(error), retry_after_s=1) from error
    faults = verify(folder, read_keys(keys), []).faults
    if faults:
        raise BrokenArchive(str(faults[0]))


def _newest(view: View) -> Signed | None:
    try:
        return checkpoints.newest(view.connection, _public_keys()) if _has_keys() else None
    except Unverified as error:
        raise BrokenArchive(f"the newest checkpoint is not the notary's: {error}") from error


def _has_keys() -> bool:
    keys = parts().notary_keys
    return keys is not None and keys.exists()


def _public_keys() -> str:
    keys: Any = parts().notary_keys
    return str(keys.read_text())
