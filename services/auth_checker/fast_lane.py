"""The short way for `POST /v1/validations`: a WSGI callable in front of the Flask app.

It serves plain questions and passes everything else on, bodies it will not take included, so that there is one place
that says what is wrong with a request.
"""

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from schemas.problems import MAX_BODY_BYTES, Problem
from services.auth_checker.bodies import encode, fast_question
from services.auth_checker.doors import Door
from services.auth_checker.handler import Checker

StartResponse = Callable[..., Any]
Wsgi = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
_HEADERS = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]


class FastLane:
    """A WSGI app around another one."""

    def __init__(self, app: Wsgi, checker: Checker, door: Door) -> None:
        self._app, self._checker, self._door = app, checker, door

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        if environ["PATH_INFO"] == "/v1/validations" and environ["REQUEST_METHOD"] == "POST":
            body = self._answer(environ)
            if body is not None:
                start_response("200 OK", [*_HEADERS, ("Content-Length", str(len(body)))])
                return [body]
        return self._app(environ, start_response)

    def _answer(self, environ: dict[str, Any]) -> bytes | None:
        length = environ.get("CONTENT_LENGTH", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES or environ.get("CONTENT_TYPE") != "application/json":
            return None
        if not self._door.is_open(environ.get("HTTP_AUTHORIZATION")):
            return None
        raw = environ["wsgi.input"].read(int(length))
        environ["wsgi.input"] = BytesIO(raw)
        asked = fast_question(raw)
        try:
            return None if asked is None else encode(self._checker.validate(asked))
        except Problem:
            return None  # The app will meet the same, and puts it into words.
