"""Guard a Flask app: `app.before_request(require_key(checker, ["invoices:read"]))`."""

from collections.abc import Callable, Sequence
from typing import Final

from flask import Response, g, request

from keyledger.checker import Checker, CheckerUnavailable

_REFUSED: Final = {"STALE": 503, "IP_NOT_ALLOWED": 403, "INSUFFICIENT_SCOPE": 403}


def require_key(checker: Checker, scopes: Sequence[str] = ()) -> Callable[[], Response | None]:
    """Let a request through when its bearer key is good for `scopes`; the answer is in `flask.g.validation` then.

    Refused with 401, 403 (scope or network) or 503 (no answer to be had now).
    """

    def check() -> Response | None:
        _, _, key = request.headers.get("Authorization", "").partition(" ")
        try:
            g.validation = checker.validate(key.strip(), scopes, request.remote_addr, request.headers.get("User-Agent"))
        except CheckerUnavailable:
            return Response(status=503, headers={"Retry-After": "1"})
        if g.validation.valid:
            return None
        return Response(status=_REFUSED.get(g.validation.code, 401), headers={"WWW-Authenticate": "Bearer"})

    return check
