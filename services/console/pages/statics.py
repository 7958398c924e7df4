"""The few files that pages load: read once, compressed once, named by their content so that browsers keep them."""

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

from flask import Response, request

from services.console.caller import not_found
from services.console.pages.blueprint import pages

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Static:
    """A file as it is sent."""

    plain: bytes
    zipped: bytes
    media_type: str
    version: str


def _load() -> dict[str, Static]:
    files = {}
    for file in resources.files("services.console").joinpath("static").iterdir():
        ending = file.name.rpartition(".")[2]
        if ending in _TYPES:
            plain = file.read_bytes()
            version = hashlib.sha256(plain).hexdigest()[:12]
            files[file.name] = Static(plain, gzip.compress(plain, 9, mtime=0), _TYPES[ending], version)
    return files


_FILES: Final = _load()


@pages.get("/static/<name>")
def static(name: str) -> Response:
    """One file; for a year where its version is asked for. Only these are compressed: they hold no secret."""
    file = _FILES.get(name)
    if file is None:
        raise not_found()
    zipped = "gzip" in request.headers.get("Accept-Encoding", "")
    answer = Response(file.zipped if zipped else file.plain, content_type=file.media_type)
    if zipped:
        answer.headers["Content-Encoding"] = "gzip"
    answer.headers["Vary"] = "Accept-Encoding"
    is_named = request.args.get("v") == file.version
    answer.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_named else "no-cache"
    return answer


@pages.app_template_global("static")
def address_of(name: str) -> str:
    """The address of a static file in its present version."""
    return f"/static/{name}?v={_FILES[name].version}"
