"""RFC 9457 problems: the one shape of every 4xx and 5xx answer, and the strict reading of a JSON body.

No web framework here: each service turns a Problem into a response in its own `app`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from marshmallow import Schema, ValidationError
from marshmallow.fields import Nested

from schemas import fields
from schemas.codec import canonical

MEDIA_TYPE: Final = "application/problem+json"
TITLES: Final = {
    400: "Malformed request",
    401: "No or bad credentials",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Refused by a rule",
    413: "Too large",
    415: "Unsupported media type",
    422: "Idempotency key reused",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available now",
}
MAX_BODY_BYTES: Final = 1024 * 1024
_TOO_DEEP: Final = 32
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


class FieldError(Schema):
    """Where in the body, as a JSON pointer (RFC 6901), and what is wrong there."""

    pointer = fields.Text(required=True)
    detail = fields.Text(required=True)


class ProblemBody(Schema):
    """`application/problem+json` with a stable `code`."""

    type = fields.Text(required=True)
    title = fields.Text(required=True)
    status = fields.Whole(required=True)
    detail = fields.Text(required=True)
    code = fields.Text(required=True)
    errors = fields.Items(Nested(FieldError))


class Problem(Exception):
    """An answer that is a refusal. `code` is public and stable, `detail` is for people, `retry_after_s` a header."""

    def __init__(  # In the order of the document they become.
        self,
        status: int,
        code: str,
        detail: str,
        errors: tuple[tuple[str, str], ...] = (),
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status, self.code, self.detail, self.errors = status, code, detail, errors
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)
        if status == 413:
            self.headers["Connection"] = "close"  # The rest of the body is not read, so nothing can follow it.

    def body(self) -> bytes:
        """The JSON body."""
        document: dict[str, Any] = {
            "type": f"urn:keyledger:problem:{self.code}",
            "title": TITLES.get(self.status, "Refused"),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors:
            document["errors"] = [{"pointer": pointer, "detail": detail} for pointer, detail in self.errors]
        return canonical(document)


def malformed(detail: str, *errors: tuple[str, str]) -> Problem:
    """A 400 with pointers to what is wrong."""
    return Problem(400, "malformed", detail, errors)


def read_json(raw: bytes, media_type: str) -> Any:
    """Parse a body strictly: JSON in UTF-8, at most 1 MB and 32 levels deep, no name twice, no NaN. An empty body is {}.

    `media_type` is the Content-Type without parameters. Raises Problem 400, 413 or 415.
    """
    if len(raw) > MAX_BODY_BYTES:
        raise Problem(413, "too_large", f"the body has {len(raw)} bytes, at most {MAX_BODY_BYTES} are read")
    if not raw:
        return {}
    if media_type != "application/json":
        raise Problem(415, "unsupported_media_type", "send Content-Type: application/json")
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(f"the body is not JSON in UTF-8: {type(error).__name__}") from error
    _refuse_depth(document, _TOO_DEEP)
    _refuse_repeated_names(raw, document)
    return document


def load(schema: Schema, document: Any) -> Any:
    """Check a parsed body against a schema. Raises Problem 400 with a pointer for each error."""
    if type(document) is not dict:
        raise malformed("the body must be a JSON object", ("", "must be an object"))
    try:
        return schema.load(document)
    except ValidationError as error:
        found = tuple(pointers(error.messages))
        raise malformed("the body breaks the rules of this call", *found) from error


def pointers(messages: Any, at: str = "") -> list[tuple[str, str]]:
    """Marshmallow's nested messages as (JSON pointer, detail), at most 50."""
    if isinstance(messages, dict):
        found = []
        for name, inner in messages.items():
            step = "" if name == "_schema" else "/" + str(name).replace("~", "~0").replace("/", "~1")
            found += pointers(inner, at + step)
        return found[:50]
    return [(at.encode(errors="replace").decode()[:200], str(message)) for message in messages]


def _refuse_depth(document: Any, left: int) -> None:
    if not isinstance(document, dict | list):
        return
    if left == 0:
        raise malformed(f"the body is nested more than {_TOO_DEEP} levels deep")
    for inner in document.values() if isinstance(document, dict) else document:
        _refuse_depth(inner, left - 1)


def _refuse_repeated_names(raw: bytes, document: Any) -> None:
    # A parser that keeps the last of two equal names and one that keeps the first would see two different requests.
    # Names in the text are counted against names that were kept: every `"…":` outside a string is one.
    if _names(document) != _names_in_text(raw):
        raise malformed("the body has the same name twice in one object")


def _names(document: Any) -> int:
    if isinstance(document, dict):
        return len(document) + sum(map(_names, document.values()))
    return sum(map(_names, document)) if isinstance(document, list) else 0


def _names_in_text(raw: bytes) -> int:
    return _STRING.sub(b"", raw).count(b":")
