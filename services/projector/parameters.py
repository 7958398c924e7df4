"""The query parameters of the reads, checked before anything is looked up. Pure."""

import base64
import binascii
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from schemas import times
from schemas.fields import ID, PLAIN_TEXT
from schemas.problems import Problem, malformed
from schemas.validation import Code

STATES: Final = ("active", "expired", "revoked", "all")
SORTS: Final = ("newest", "name", "active_keys", "last_activity")
KINDS: Final = ("person", "service_account")
STATUSES: Final = ("active", "disabled", "erased", "all")
STEPS: Final = ("hour", "day")
REFUSALS: Final = tuple(code.value for code in Code if code is not Code.VALID)
ANY_REFUSAL: Final = "all"
_MOST: Final = 200
_TIME: Final[dict[str, Any]] = {"type": "string", "format": "date-time"}
DOCUMENTED: Final[dict[str, dict[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": _MOST, "default": 50},
    "cursor": {"type": "string", "description": "`next_cursor` of the page before"},
    "min_revision": {"type": "string", "pattern": "^([A-Za-z0-9_-]{1,64}:)?[0-9]{1,15}$"},
    "void": {"type": "string", "enum": ["include"]},
    "state": {"type": "string", "enum": list(STATES), "default": "active"},
    "owner": {"type": "string", "pattern": f"^{ID}$"},
    "name": {"type": "string", "maxLength": 100},
    "unused_since": _TIME,
    "never_used": {"type": "string", "enum": ["true", "false"]},
    "expires_before": _TIME,
    "search": {"type": "string", "minLength": 1, "maxLength": 100},
    "sort": {"type": "string", "enum": list(SORTS), "default": "newest"},
    "kind": {"type": "string", "enum": list(KINDS)},
    "status": {"type": "string", "enum": list(STATUSES), "default": "all"},
    "uses": {"type": "string", "enum": ["include", "exclude"]},
    "counts": {"type": "string", "enum": ["exclude"]},
    "key": {"type": "string", "pattern": f"^{ID}$", "description": "events and uses of this key"},
    "user": {"type": "string", "pattern": f"^{ID}$", "description": "about this user or its keys"},
    "actor": {"type": "string", "pattern": f"^{ID}$", "description": "done by this user"},
    "type": {"type": "string", "pattern": "^[A-Za-z]{1,64}$"},
    "since": _TIME,
    "until": _TIME,
    "at": _TIME,
    "after_revision": {"type": "integer", "minimum": 0, "default": 0},
    "from": _TIME,
    "to": _TIME,
    "step": {"type": "string", "enum": list(STEPS), "default": "day"},
    "outcome": {"type": "string", "enum": [*REFUSALS, ANY_REFUSAL], "default": Code.REVOKED.value},
}
"""Each parameter with its JSON schema."""
PAGE: Final = ("limit", "cursor", "min_revision")
HISTORY: Final = (*PAGE, "void", "uses")
ORG_HISTORY: Final = (*HISTORY, "key", "user", "actor", "type", "since", "until")
AS_OF: Final = ("at", "min_revision")
REPLAY: Final = ("after_revision", "since", "min_revision")
USERS: Final = (*PAGE, "search", "sort", "kind", "status")
KEYS: Final = (*PAGE, "state", "owner", "name", "unused_since", "never_used", "expires_before", "search")
USAGE: Final = ("from", "to", "step", "min_revision")
REFUSED: Final = (*PAGE, "from", "to", "outcome")
ORG: Final = ("min_revision", "counts")
# `from` is a word of Python's own.
_FIELDS: Final = {"from": "start", "to": "end"}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What was asked for; times are as in `schemas.times`. `min_revision` may name its organisation."""

    limit: int = 50
    cursor: str | None = None
    min_revision: tuple[str | None, int] | None = None
    void: bool = False
    state: str = "active"
    owner: str | None = None
    name: str | None = None
    unused_since: str | None = None
    never_used: bool | None = None
    expires_before: str | None = None
    search: str | None = None
    sort: str = "newest"
    kind: str | None = None
    status: str = "all"
    uses: bool | None = None
    counts: bool = True
    start: str | None = None
    end: str | None = None
    step: str = "day"
    outcome: str = Code.REVOKED.value
    key: str | None = None
    user: str | None = None
    actor: str | None = None
    type: str | None = None
    since: str | None = None
    until: str | None = None
    at: str | None = None
    after_revision: int = 0


def parse(given: Mapping[str, Sequence[str]], allowed: Collection[str]) -> Parameters:
    """Read the parameters; each name at most once. Raises Problem 400 with a pointer for each that is wrong."""
    read: dict[str, Any] = {}
    errors: list[tuple[str, str]] = []
    for name, values in given.items():
        try:
            if name not in allowed:
                raise ValueError("is not a parameter of this call")
            if len(values) != 1:
                raise ValueError("is given more than once")
            read[_FIELDS.get(name, name)] = _READERS[name](values[0])
        except ValueError as error:
            errors.append((f"/{name[:64]}", str(error)))
    if errors:
        raise malformed("the query breaks the rules of this call", *errors)
    return Parameters(**read)


def to_cursor(place: Sequence[str | int]) -> str:
    """The opaque form of the place after which a page goes on."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def from_cursor(cursor: str | None, shapes: Sequence[type[int] | re.Pattern[str]]) -> list[Any] | None:
    """The place of a cursor of ours: whole numbers, and texts of these shapes. Raises Problem 400 for any other."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = msgspec.json.decode(raw, type=list[int | str])
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _bad_cursor() from error
    if len(place) != len(shapes) or not all(map(_has_shape, place, shapes)):
        raise _bad_cursor()
    return place


def _has_shape(value: int | str, shape: type[int] | re.Pattern[str]) -> bool:
    if isinstance(shape, re.Pattern):
        return isinstance(value, str) and shape.fullmatch(value) is not None
    return isinstance(value, int) and 0 <= value < 2**63


def _bad_cursor() -> Problem:
    return malformed("the cursor is not one of ours", ("/cursor", "is not a `next_cursor` of this list"))


def _limit(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= _MOST:
        raise ValueError(f"must be a whole number from 1 to {_MOST}")
    return int(text)


def _min_revision(text: str) -> tuple[str | None, int]:
    match = re.fullmatch(f"(?:({ID}):)?([0-9]{{1,15}})", text)
    if match is None:
        raise ValueError("must be a revision, such as 17")
    return match[1], int(match[2])


def _revision(text: str) -> int:
    if not re.fullmatch("[0-9]{1,15}", text):
        raise ValueError("must be a revision, such as 17")
    return int(text)


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return read


def _shaped(pattern: str, what: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(what)
        return text

    return read


def _time(text: str) -> str:
    return times.to_text(times.parse_any_offset(text))


_plain: Final = _shaped(f"{PLAIN_TEXT[:-1]}{{1,100}}", "must be 1-100 plain characters")
_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "limit": _limit,
    "cursor": _shaped("[A-Za-z0-9_-]{1,1000}", "is not a `next_cursor` of this list"),
    "min_revision": _min_revision,
    "void": lambda text: _one_of("include")(text) == "include",
    "state": _one_of(*STATES),
    "owner": _shaped(ID, "is not the id of a user"),
    "name": _plain,
    "unused_since": _time,
    "never_used": lambda text: _one_of("true", "false")(text) == "true",
    "expires_before": _time,
    "search": _plain,
    "sort": _one_of(*SORTS),
    "kind": _one_of(*KINDS),
    "status": _one_of(*STATUSES),
    "uses": lambda text: _one_of("include", "exclude")(text) == "include",
    "counts": lambda text: _one_of("exclude")(text) != "exclude",
    "key": _shaped(ID, "is not the id of a key"),
    "user": _shaped(ID, "is not the id of a user"),
    "actor": _shaped(ID, "is not the id of a user"),
    "type": _shaped("[A-Za-z]{1,64}", "is not the type of an event"),
    "since": _time,
    "until": _time,
    "at": _time,
    "after_revision": _revision,
    "from": _time,
    "to": _time,
    "step": _one_of(*STEPS),
    "outcome": _one_of(*REFUSALS, ANY_REFUSAL),
}
