"""Questions and answers as msgspec structs, the fast twins of the schemas in `schemas.validation`.

A struct that will not take a body proves nothing: the body then goes to the strict reading of `schemas.problems`,
which says what is wrong. What a struct does take, the strict reading takes too; a property test holds both to it.
"""

import re
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from schemas.fields import ID
from schemas.problems import MAX_BODY_BYTES, load, malformed, read_json
from schemas.validation import BatchRequest, CallerRequest, ValidationRequest

MOST_IN_BATCH: Final = 100
_T = TypeVar("_T")
_PLACE: Final = re.compile(rf"({ID}):(0|[1-9][0-9]{{0,15}})")


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """`schemas.validation.ValidationRequest`."""

    key: str
    scopes: list[str] | None = None
    ip: str | None = None
    user_agent: str | None = None
    min_revision: str | None = None


class AskedCaller(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """`schemas.validation.CallerRequest`."""

    token: str
    ip: str | None = None
    user_agent: str | None = None
    min_revision: str | None = None


class Answer(msgspec.Struct, frozen=True, gc=False):
    """`schemas.validation.ValidationAnswer`; what is UNSET is left out."""

    valid: bool
    code: str
    key_id: str | UnsetType = UNSET
    org_id: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    role: str | UnsetType = UNSET
    kind: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    scopes: tuple[str, ...] | UnsetType | None = UNSET
    expires_at: str | UnsetType | None = UNSET
    revision: int | UnsetType = UNSET
    as_of: str | UnsetType = UNSET
    max_staleness_ms: int | UnsetType = UNSET


class AskedBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """`schemas.validation.BatchRequest`."""

    items: list[Asked]


class BatchOfAnswers(msgspec.Struct, frozen=True):
    """`schemas.validation.BatchAnswer`."""

    items: list[Answer]


class CallerAnswer(msgspec.Struct, frozen=True, gc=False):
    """`schemas.validation.CallerAnswer`; `scopes` is null for a person, who is not limited by any."""

    valid: bool
    code: str
    key_id: str | UnsetType = UNSET
    org_id: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    role: str | UnsetType = UNSET
    kind: str | UnsetType = UNSET
    scopes: tuple[str, ...] | UnsetType | None = UNSET
    revision: int | UnsetType = UNSET


encode = msgspec.json.Encoder().encode
_asked = msgspec.json.Decoder(Asked).decode
_asked_batch = msgspec.json.Decoder(AskedBatch).decode
_VALIDATION, _BATCH, _CALLER = ValidationRequest(), BatchRequest(), CallerRequest()


def fast_question(raw: bytes) -> Asked | None:
    """The question of a plain body that has nothing to wait for; None when only the strict reading can tell."""
    asked = _plain(raw, _asked)
    return asked if asked is not None and asked.min_revision is None and raw.count(b":") == _colons(asked) else None


def fast_questions(raw: bytes) -> list[Asked] | None:
    """`fast_question` for a batch."""
    batch = _plain(raw, _asked_batch)
    if batch is None or len(batch.items) > MOST_IN_BATCH or any(one.min_revision is not None for one in batch.items):
        return None
    return batch.items if raw.count(b":") == 1 + sum(map(_colons, batch.items)) else None


def _plain(raw: bytes, decode: Callable[[bytes], _T]) -> _T | None:
    # Without escapes every colon is in the text as it was sent, so a name given twice shows as colons too many.
    if len(raw) > MAX_BODY_BYTES or b"\\" in raw:
        return None
    try:
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def question(raw: bytes, media_type: str) -> Asked:
    """The question of a body. Raises Problem 400, 413 or 415."""
    asked = Asked(**load(_VALIDATION, read_json(raw, media_type)))
    _refuse_place(asked.min_revision, "")
    return asked


def questions(raw: bytes, media_type: str) -> list[Asked]:
    """The questions of a batch. Raises Problem 400, 413 or 415."""
    document = read_json(raw, media_type)
    if isinstance(document, dict) and isinstance(items := document.get("items"), list) and len(items) > MOST_IN_BATCH:
        raise malformed(f"{len(items)} items, at most {MOST_IN_BATCH} are taken", ("/items", "too many items"))
    found = [Asked(**item) for item in load(_BATCH, document)["items"]]
    for number, asked in enumerate(found):
        _refuse_place(asked.min_revision, f"/items/{number}")
    return found


def caller_question(raw: bytes, media_type: str) -> AskedCaller:
    """The question about a bearer token. Raises Problem 400, 413 or 415."""
    asked = AskedCaller(**load(_CALLER, read_json(raw, media_type)))
    _refuse_place(asked.min_revision, "")
    return asked


def place(min_revision: str) -> tuple[str, int]:
    """The organisation and revision of a `min_revision`. Raises ValueError."""
    match = _PLACE.fullmatch(min_revision)
    if match is None:
        raise ValueError("written <org>:<revision>")
    return match[1], int(match[2])


def _refuse_place(min_revision: str | None, at: str) -> None:
    if min_revision is not None and not _PLACE.fullmatch(min_revision):
        raise malformed("min_revision is written <org>:<revision>", (f"{at}/min_revision", "has the wrong shape"))


def _colons(asked: Asked) -> int:
    found = 1 + asked.key.count(":")
    for text in (asked.ip, asked.user_agent):
        if text is not None:
            found += 1 + text.count(":")
    if asked.scopes is not None:
        found += 1 + sum(scope.count(":") for scope in asked.scopes)
    return found
