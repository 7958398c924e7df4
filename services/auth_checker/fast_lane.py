"""The short way for the calls that come thousands of times a second: a WSGI callable in front of the Flask app.

It serves plain questions and passes everything else on, bodies it will not take included, so that there is one place
that says what is wrong with a request.
"""

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any, Final

from schemas.problems import MAX_BODY_BYTES, Problem
from services.auth_checker.bodies import BatchOfAnswers, encode, fast_question, fast_questions
from services.auth_checker.doors import Door
from services.auth_checker.handler import Checker

StartResponse = Callable[..., Any]
Wsgi = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
Head = Callable[[dict[str, Any]], tuple[str, list[tuple[str, str]]]]
_HEADERS: Final = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]


class FastLane:
    """A WSGI app around another one. `authorize` gives the head of the answer to `GET /v1/authorize`."""

    def __init__(self, app: Wsgi, checker: Checker, door: Door, authorize: Head | None = None) -> None:
        self._app, self._checker, self._door, self._authorize = app, checker, door, authorize
        self._answers = {"/v1/validations": self._one, "/v1/validations/batch": self._batch}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if method == "POST" and path in self._answers:
            raw = self._body(environ)
            body = None if raw is None else self._answers[path](raw)
            if body is not None:
                start_response("200 OK", [*_HEADERS, ("Content-Length", str(len(body)))])
                return [body]
        elif method == "GET" and path == "/v1/authorize" and self._authorize is not None and _has_no_body(environ):
            start_response(*self._authorize(environ))
            return []
        return self._app(environ, start_response)

    def _body(self, environ: dict[str, Any]) -> bytes | None:
        """The body of a request that may be answered here, and left for the app too."""
        length = environ.get("CONTENT_LENGTH", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES or environ.get("CONTENT_TYPE") != "application/json":
            return None
        if not self._door.is_open(environ.get("HTTP_AUTHORIZATION")):
            return None
        raw: bytes = environ["wsgi.input"].read(int(length))
        environ["wsgi.input"] = BytesIO(raw)
        return raw

    def _one(self, raw: bytes) -> bytes | None:
        asked = fast_question(raw)
        try:
            return None if asked is None else encode(self._checker.validate(asked))
        except Problem:
            return None  # The app will meet the same, and puts it into words.

    def _batch(self, raw: bytes) -> bytes | None:
        questions = fast_questions(raw)
        try:
            return None if questions is None else encode(BatchOfAnswers(self._checker.validate_all(questions)))
        except Problem:
            return None


def _has_no_body(environ: dict[str, Any]) -> bool:
    # What is left unread makes the server close the connection; the app reads it.
    return environ.get("CONTENT_LENGTH", "0") in ("", "0") and "HTTP_TRANSFER_ENCODING" not in environ
