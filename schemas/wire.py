"""One marshmallow schema per event type and version: the rules of every field, the only place they are written.

`schemas.codec` encodes through these; `schemas.decoder` compiles them for readers. Evolution is additive; a breaking
change is a new version in SCHEMAS with an upcaster, and golden files of every version stay in the tests.
An absent optional field is left out, never null.
"""

from collections.abc import Callable
from typing import Any, Final, get_args

from marshmallow import Schema

from schemas import events, fields
from schemas.validation import Code

ROLES: Final = get_args(events.Role)
MOST_USES: Final = 1_000_000_000
"""In one KeyUsed: more than a window can hold, and far from overflowing any sum."""
KINDS: Final = get_args(events.Kind)
REASONS: Final = get_args(events.Reason)
AUTH_TYPES: Final = get_args(events.AuthType)


def _id() -> fields.Text:
    return fields.text(fields.ID, 64, required=True)


def _key_id() -> fields.Text:
    return fields.text(fields.KEY_ID, 22, required=True)


def key_name(**more: Any) -> fields.Text:
    """The name of a key or an organisation: 1-100 plain characters."""
    return fields.plain(100, **more)


def scopes(**more: Any) -> fields.Items:
    """At most 50 scopes."""
    return fields.items(fields.text(fields.SCOPE, 64), 50, **more)


class OrgRegistered(Schema):
    """Data of `keyledger:OrgRegistered:1`."""

    name = key_name()


class LedgerResumed(Schema):
    """Data of `keyledger:LedgerResumed:1`."""

    offsets = fields.items(fields.whole(), 1000, required=True)
    reason = fields.plain(500, required=True)


class OrgKeysSwitched(Schema):
    """Data of `keyledger:OrgKeysEnabled:1` and `keyledger:OrgKeysDisabled:1`."""

    reason = fields.plain(500)


class UserAdded(Schema):
    """Data of `keyledger:UserAdded:1`."""

    user_id = _id()
    kind = fields.one_of(KINDS, required=True)
    role = fields.one_of(ROLES, required=True)


class UserRoleChanged(Schema):
    """Data of `keyledger:UserRoleChanged:1`."""

    user_id = _id()
    role = fields.one_of(ROLES, required=True)


class UserOnly(Schema):
    """Data of `keyledger:UserDisabled:1`, `keyledger:UserEnabled:1` and `keyledger:PersonErased:1`."""

    user_id = _id()


class KeyCreated(Schema):
    """Data of `keyledger:KeyCreated:1`."""

    key_id = _key_id()
    user_id = _id()
    name = key_name(required=True)
    digest = fields.text(fields.HASH, 64, required=True)
    last4 = fields.text("[0-9A-Za-z]{4}", 4, required=True)
    expires_at = fields.time()
    scopes = scopes()
    cidrs = fields.items(fields.text(None, 64, check=fields.canonical_network), 50)


class KeyRenamed(Schema):
    """Data of `keyledger:KeyRenamed:1`."""

    key_id = _key_id()
    name = key_name(required=True)


class KeyRevoked(Schema):
    """Data of `keyledger:KeyRevoked:1`."""

    key_id = _key_id()
    reason = fields.one_of(REASONS, required=True)
    comment = fields.plain(500)


class KeyUsed(Schema):
    """Data of `keyledger:KeyUsed:1`."""

    key_id = _key_id()
    org_id = _id()
    user_id = _id()
    outcome = fields.one_of([code.value for code in Code], required=True)
    count = fields.whole(1, MOST_USES, required=True)
    first_at = fields.time(required=True)
    last_at = fields.time(required=True)
    ip = fields.text(None, 64, check=fields.address_or_other)
    user_agent = fields.plain(200)


class Attributes(Schema):
    """CloudEvents attributes that every event has; `type`, `dataschema` and `data` come from SCHEMAS."""

    specversion = fields.one_of(["1.0"], required=True)
    id = fields.text("[!-~]{1,64}", 64, required=True)
    source = fields.plain(200, required=True)
    subject = fields.text("[!-~]{1,64}", 64, required=True)
    time = fields.time(required=True)


class LedgerAttributes(Attributes):
    """The attributes of a ledger event: its place in the chain and who caused it."""

    org = _id()
    revision = fields.whole(1, required=True)
    parent = fields.text(fields.HASH, 64, required=True)
    authid = _id()
    authtype = fields.one_of(AUTH_TYPES, required=True)
    authkey = fields.text(fields.KEY_ID, 22)
    authrevision = fields.whole(1)
    commandid = fields.text("[0-9a-f-]{36,64}", 64, required=True)
    commandhash = fields.text(fields.HASH, 64, required=True)


class UsageAttributes(Attributes):
    """The attributes of a KeyUsed; `sequence` is 20 decimal digits, from 1, dense per (source, partition)."""

    sequence = fields.text("[0-9]{20}", 20)


# An upcaster stands where the class of an old version stood: it takes the data of that version and gives the event of
# today. So it runs at read, once, and stored bytes never change (tests/integration/test_evolution.py shows one).
LEDGER_SCHEMAS: Final[dict[str, tuple[Callable[..., events.LedgerEvent], type[Schema]]]] = {
    "keyledger:OrgRegistered:1": (events.OrgRegistered, OrgRegistered),
    "keyledger:LedgerResumed:1": (events.LedgerResumed, LedgerResumed),
    "keyledger:OrgKeysEnabled:1": (events.OrgKeysEnabled, OrgKeysSwitched),
    "keyledger:OrgKeysDisabled:1": (events.OrgKeysDisabled, OrgKeysSwitched),
    "keyledger:UserAdded:1": (events.UserAdded, UserAdded),
    "keyledger:UserRoleChanged:1": (events.UserRoleChanged, UserRoleChanged),
    "keyledger:UserDisabled:1": (events.UserDisabled, UserOnly),
    "keyledger:UserEnabled:1": (events.UserEnabled, UserOnly),
    "keyledger:PersonErased:1": (events.PersonErased, UserOnly),
    "keyledger:KeyCreated:1": (events.KeyCreated, KeyCreated),
    "keyledger:KeyRenamed:1": (events.KeyRenamed, KeyRenamed),
    "keyledger:KeyRevoked:1": (events.KeyRevoked, KeyRevoked),
}
KEY_USED: Final = "keyledger:KeyUsed:1"
