"""What the read API answers: the shape of each answer, and rows of the tables as answers."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from marshmallow import Schema, fields
from psycopg.rows import DictRow

from schemas.openapi import Operation
from services.projector import parameters


def _text(**more: Any) -> fields.String:
    return fields.String(required=True, **more)


def _number(**more: Any) -> fields.Integer:
    return fields.Integer(required=True, **more)


class Halted(Schema):
    """Why an organisation is closed, and the offsets of the halting records that `POST …/resume` takes."""

    why, detail = _text(), _text()
    offsets = fields.List(fields.Integer(), required=True)


class Org(Schema):
    """An organisation; the counts are left out for members."""

    org_id, name = _text(), _text(allow_none=True)
    keys_enabled = fields.Boolean(required=True)
    revision, registered_at = _number(), _text(allow_none=True)
    halted = fields.Nested(Halted, required=True, allow_none=True)
    active_keys, key_owners, users, never_used = (fields.Integer() for _ in range(4))
    last_activity_at = fields.String(allow_none=True)


class User(Schema):
    """A user; name and e-mail are null for one that was erased."""

    user_id, org_id, kind, role, status = _text(), _text(), _text(), _text(), _text()
    name, email = _text(allow_none=True), _text(allow_none=True)
    revision, created_at, active_keys = _number(), _text(), _number()
    last_activity_at = _text(allow_none=True)


class Key(Schema):
    """A key with its last VALID use; `last_used_source` is the service that told of it."""

    key_id, org_id, user_id, name, last4 = _text(), _text(), _text(), _text(), _text()
    scopes = fields.List(fields.String(), required=True, allow_none=True)
    cidrs = fields.List(fields.String(), required=True, allow_none=True)
    created_at, expires_at, revoked_at = _text(), _text(allow_none=True), _text(allow_none=True)
    revision = _number()
    last_used_at, last_used_ip = _text(allow_none=True), _text(allow_none=True)
    last_used_user_agent, last_used_source = _text(allow_none=True), _text(allow_none=True)
    owner_name = _text(allow_none=True)


class Actor(Schema):
    """Who did it, and with which key."""

    user_id, type = _text(allow_none=True), _text(allow_none=True)
    key_id = fields.String()


class HistoryEntry(Schema):
    """An event, or the uses of a key in one hour with one outcome from one address (revision null)."""

    revision, type, time = _number(allow_none=True), _text(), _text()
    actor = fields.Nested(Actor, required=True, allow_none=True)
    data = fields.Dict(required=True)
    hash, parent = _text(allow_none=True), _text(allow_none=True)
    void = fields.Boolean(required=True)


class UseCount(Schema):
    """How often a key was used in the hour or UTC day that begins at `start`, with one outcome."""

    start, outcome, count = _text(), _text(), _number()


class _UsagePeriod(Schema):
    items = fields.List(fields.Nested(UseCount), required=True)
    to, step = _text(), _text()


# `from` is a word of Python's own.
Usage: Final = _UsagePeriod.from_dict({"from": _text()}, name="Usage")


class RefusedUse(Schema):
    """How often a key was refused with one outcome from one address; name and owner are null where they are not known."""

    key_id, name, user_id, owner_name = _text(), _text(allow_none=True), _text(), _text(allow_none=True)
    outcome, ip, count = _text(), _text(allow_none=True), _number()
    first_at, last_at = _text(), _text()


class QuarantinedUse(Schema):
    """A use that was not counted: the place of its record, why, and what the record says."""

    topic, partition, offset = _text(), _number(), _number()
    reason, source, id = _text(), _text(), _text()
    org_id, key_id, outcome, count, last_at = _text(), _text(), _text(), _number(), _text()


class KeyThen(Schema):
    """A key at a moment; `code` is what a validation without address and scopes would have said."""

    key_id, user_id, kind, role, name, last4 = (_text() for _ in range(6))
    scopes = fields.List(fields.String(), required=True, allow_none=True)
    cidrs = fields.List(fields.String(), required=True, allow_none=True)
    created_at, expires_at, revoked_at = _text(), _text(allow_none=True), _text(allow_none=True)
    code = _text()


class KeysAsOf(Schema):
    """All keys that had been created by a moment, oldest first."""

    at = _text()
    items = fields.List(fields.Nested(KeyThen), required=True)


class UsesFrom(Schema):
    """The uses of a key with one outcome from one address."""

    ip, outcome, count, first_at, last_at = _text(allow_none=True), _text(), _number(), _text(), _text()


class Neighbour(Schema):
    """Another key that was used from the same address."""

    key_id, user_id, ip, count, first_at, last_at = _text(), _text(), _text(), _number(), _text(), _text()


class BlastRadius(Schema):
    """What a leaked key could have touched."""

    key = fields.Nested(KeyThen, required=True)
    life, commands = (fields.List(fields.Nested(HistoryEntry), required=True) for _ in range(2))
    addresses = fields.List(fields.Nested(UsesFrom), required=True)
    siblings = fields.List(fields.Nested(KeyThen), required=True)
    neighbours = fields.List(fields.Nested(Neighbour), required=True)
    neighbours_cut = fields.Boolean(required=True)


class SignedHead(Schema):
    """Where a signed checkpoint says that a ledger stood."""

    time, origin, revision, head = _text(), _text(), _number(), _text()


class CheckpointState(Schema):
    """The newest checkpoint (null: none), the revision of now, and whether the archive is what was signed."""

    signed = fields.Nested(SignedHead, required=True, allow_none=True)
    revision, verified = _number(), fields.Boolean(required=True, allow_none=True)


class Me(Schema):
    """Who is calling; `key_id` and `scopes` where an API key is the credential."""

    user_id, org_id, role, kind = _text(), _text(), _text(), _text()
    name, email = _text(allow_none=True), _text(allow_none=True)
    key_id = fields.String()
    scopes = fields.List(fields.String())
    org = fields.Nested(Org, required=True)


def _list_of(name: str, item: type[Schema]) -> type[Schema]:
    next_cursor = fields.String(required=True, allow_none=True)
    items = fields.List(fields.Nested(item), required=True)
    return Schema.from_dict({"items": items, "next_cursor": next_cursor}, name=name)


def _read(path: str, summary: str, schema: type[Schema] | None, query: Iterable[str], *refusals: int) -> Operation:
    documented = {name: parameters.DOCUMENTED[name] for name in query}
    refused = (400, 401, 403, 404, *refusals, 503)
    return Operation("GET", path, summary, {200: schema}, refused, query=documented)


_KEYS, _HISTORY = _list_of("Keys", Key), _list_of("History", HistoryEntry)
_REFUSED, _QUARANTINED = _list_of("RefusedUses", RefusedUse), _list_of("QuarantinedUses", QuarantinedUse)
_ORG, _ONE = "/v1/orgs/{org}", ("min_revision",)
_ONE_KEY, _ONE_USER = _ORG + "/keys/{key}", _ORG + "/users/{user}"
OPERATIONS: Final = (
    _read("/v1/orgs", "All organisations, newest first", _list_of("Orgs", Org), parameters.PAGE),
    _read(_ORG, "An organisation", Org, parameters.ORG),
    _read(_ORG + "/keys", "The keys of an organisation, newest first", _KEYS, parameters.KEYS),
    _read(_ONE_KEY, "A key", Key, _ONE),
    _read(_ONE_KEY + "/history", "What happened to a key, oldest first", _HISTORY, parameters.HISTORY),
    _read(_ONE_KEY + "/usage", "How often a key was used, oldest first", Usage, parameters.USAGE),
    _read(_ONE_KEY + "/refused-uses", "From where a key was refused, last first", _REFUSED, parameters.REFUSED),
    _read(_ORG + "/users", "The users of an organisation", _list_of("Users", User), parameters.USERS),
    _read(_ONE_USER, "A user", User, _ONE),
    _read(_ONE_USER + "/keys", "The keys of a user, newest first", _KEYS, parameters.KEYS),
    _read(_ONE_USER + "/usage", "How often the keys of a user were used, oldest first", Usage, parameters.USAGE),
    _read(_ONE_USER + "/refused-uses", "Refused uses of the keys of a user, last first", _REFUSED, parameters.REFUSED),
    _read(_ORG + "/history", "What happened in an organisation, oldest first", _HISTORY, parameters.ORG_HISTORY),
    _read(_ORG + "/usage", "How often the keys of an organisation were used, oldest first", Usage, parameters.USAGE),
    _read(_ORG + "/refused-uses", "Refused uses in an organisation, last first", _REFUSED, parameters.REFUSED),
    _read(_ORG + "/quarantined-uses", "Uses in its name that were not counted", _QUARANTINED, parameters.PAGE),
    _read("/v1/quarantined-uses", "All uses that were not counted, last sent first", _QUARANTINED, parameters.PAGE),
    _read(_ORG + "/keys-as-of", "The keys of an organisation at a moment", KeysAsOf, parameters.AS_OF),
    _read(_ONE_KEY + "/blast-radius", "What a leaked key could have touched", BlastRadius, _ONE),
    _read(_ORG + "/replay", "At most 10,000 events as stored: JSON Lines", None, parameters.REPLAY),
    _read(_ORG + "/checkpoint", "Up to where the history is signed", CheckpointState, _ONE),
    _read(_ORG + "/bundle", "A zip file that proves itself, offline too", None, _ONE, 409),
    _read("/v1/me", "Who is calling", Me, parameters.ORG),
)
# Once: to make a schema takes longer than to read its row.
_USER_FIELDS: Final = tuple(User().fields)
# By answer; in the table '' stands for what is not known.
_LAST_USE: Final = {"last_used_user_agent": "last_used_agent", "last_used_source": "last_used_source"}
_KEY_FIELDS: Final = tuple(name for name in Key().fields if name not in _LAST_USE)
_QUARANTINED_FIELDS: Final = tuple(QuarantinedUse().fields)
_ORG_FIELDS: Final = ("org_id", "name", "keys_enabled", "revision")
_ORG_COUNTS: Final = ("active_keys", "key_owners", "users", "never_used", "last_activity_at")


def org(row: DictRow) -> dict[str, Any]:
    """An Org, with the counts that are in the row."""
    halt = {"why": row["halt_why"], "detail": row["halt_detail"], "offsets": row["halt_offsets"]}
    counts = {name: row[name] for name in _ORG_COUNTS if name in row}
    registered_at = row["registered_at"] or None
    halted = halt if row["halt_why"] is not None else None
    return {name: row[name] for name in _ORG_FIELDS} | {"registered_at": registered_at, "halted": halted} | counts


def user(row: DictRow) -> dict[str, Any]:
    """A User."""
    return {name: row[name] for name in _USER_FIELDS}


def key(row: DictRow) -> dict[str, Any]:
    """A Key."""
    last_use = {name: row[column] or None for name, column in _LAST_USE.items()}
    return {name: row[name] for name in _KEY_FIELDS} | last_use


def refused_use(row: DictRow) -> dict[str, Any]:
    """A RefusedUse."""
    return row | {"ip": row["ip"] or None}


def quarantined_use(row: DictRow) -> dict[str, Any]:
    """A QuarantinedUse."""
    return {name: row[name] for name in _QUARANTINED_FIELDS}


def listed(page: tuple[list[DictRow], str | None], one: Callable[[DictRow], dict[str, Any]]) -> dict[str, Any]:
    """A list of what `one` makes of each row."""
    rows, next_cursor = page
    return {"items": [one(row) for row in rows], "next_cursor": next_cursor}
