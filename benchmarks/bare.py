"""Beside our checker: what Python servers answer that do next to nothing, under the same granian.

`BENCH_KEYS` names the file of keys that the Go server reads too.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flask import Flask, request

_CONSTANT = b'{"valid":true,"code":"VALID"}'


def flask_view() -> Flask:
    """A view that does SHA-256 and looks into a dict, and no more."""
    known = {}
    for line in Path(os.environ["BENCH_KEYS"]).read_text().splitlines():
        text, key_id, org_id, user_id = line.split()
        known[hashlib.sha256(text.encode()).digest()] = {"key_id": key_id, "org_id": org_id, "user_id": user_id}
    app = Flask("bare")

    @app.post("/v1/validations")
    def validate() -> dict[str, Any]:
        found = known.get(hashlib.sha256(request.get_json()["key"].encode()).digest())
        return {"valid": False, "code": "NOT_FOUND"} if found is None else {"valid": True, "code": "VALID", **found}

    return app


def constant() -> Callable[..., Iterable[bytes]]:
    """A WSGI callable that says the same to everything."""
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(_CONSTANT)))]

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", headers)
        return [_CONSTANT]

    return answer
