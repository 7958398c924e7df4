"""The bodies of the command API's calls, and its answers, as marshmallow schemas; also the source of its OpenAPI."""

import ipaddress
import unicodedata
from typing import Any

from marshmallow import Schema, ValidationError

from schemas import fields, times, wire
from schemas.fields import Text
from schemas.validation import Code


class Name(Text):
    """A name as people type it: made NFC and trimmed, then judged."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        return unicodedata.normalize("NFC", text).strip(fields.BLANKS)


class AnyTime(Text):
    """An RFC 3339 time with any offset, taken as UTC milliseconds."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            return times.to_text(times.parse_any_offset(text))
        except ValueError as error:
            raise ValidationError(str(error)) from error


class Network(Text):
    """An IPv4 or IPv6 network, or a single address; no host bits."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            if len(text) > 64 or "%" in text:
                raise ValueError(text[:64])
            return str(ipaddress.ip_network(text))
        except ValueError as error:
            raise ValidationError("is not a network such as 192.0.2.0/24 or 2001:db8::/32") from error


def _name(**more: Any) -> Name:
    plain = fields.plain(100)
    return Name(validate=plain.validators, **more)


def _comment(**more: Any) -> Name:
    return Name(validate=fields.plain(500).validators, **more)


class RegisterOrgBody(Schema):
    """POST /v1/orgs."""

    org_id = fields.text(fields.ID, 64, allow_none=True)
    name = _name(allow_none=True)


class KeysEnabledBody(Schema):
    """PUT /v1/orgs/{org}/keys-enabled."""

    enabled = fields.Flag(required=True)
    reason = _comment(allow_none=True)


class ResumeBody(Schema):
    """POST /v1/orgs/{org}/resume."""

    offsets = fields.items(fields.whole(), 1000, 1, required=True)
    reason = _comment(required=True)


class AddUserBody(Schema):
    """POST /v1/orgs/{org}/users."""

    kind = fields.one_of(wire.KINDS, required=True)
    role = fields.one_of(wire.ROLES, required=True)


class RoleBody(Schema):
    """PUT /v1/orgs/{org}/users/{user}/role."""

    role = fields.one_of(wire.ROLES, required=True)


class EnabledBody(Schema):
    """PUT /v1/orgs/{org}/users/{user}/enabled."""

    enabled = fields.Flag(required=True)


class EmptyBody(Schema):
    """DELETE /v1/orgs/{org}/users/{user}."""


class CreateKeyBody(Schema):
    """POST /v1/orgs/{org}/keys."""

    name = _name(required=True)
    user_id = fields.text(fields.ID, 64, allow_none=True)
    expires_at = AnyTime(allow_none=True, metadata={"format": "date-time"})
    scopes = wire.scopes(allow_none=True)
    cidrs = fields.items(Network(), 50, allow_none=True)


class RenameKeyBody(Schema):
    """PATCH /v1/orgs/{org}/keys/{key}."""

    name = _name(required=True)


class RevokeKeyBody(Schema):
    """DELETE /v1/orgs/{org}/keys/{key}."""

    reason = fields.one_of(wire.REASONS, allow_none=True)
    comment = _comment(allow_none=True)


class UseBody(Schema):
    """One use in POST /v1/usage."""

    id = fields.text("[!-~]{1,64}", 64, required=True)
    key_id = fields.text(fields.KEY_ID, 22, required=True)
    outcome = fields.one_of([code.value for code in Code], required=True)
    at = AnyTime(required=True, metadata={"format": "date-time"})
    count = fields.whole(1, 1_000_000, load_default=1)
    ip = fields.text(None, 64, check=fields.address_or_other, allow_none=True)
    user_agent = fields.plain(200, allow_none=True)


class _Effect(Schema):
    """In answers to what takes rights away: whether no checker and no API of ours honours them any more.

    `effective_ms` counts from the arrival of the request; `status_url` tells later what is not known yet.
    """

    effective = fields.Flag()
    effective_ms = fields.Whole(allow_none=True)
    status_url = fields.Text()


class OrgAnswer(Schema):
    """An organisation that was registered."""

    org_id = fields.Text(required=True)
    name = fields.Text(required=True, allow_none=True)
    revision = fields.Whole(required=True)


class KeysEnabledAnswer(_Effect):
    """Whether API keys are on."""

    org_id = fields.Text(required=True)
    keys_enabled = fields.Flag(required=True)
    revision = fields.Whole(required=True)


class UserAnswer(_Effect):
    """A user."""

    org_id = fields.Text(required=True)
    user_id = fields.Text(required=True)
    kind = fields.Text(required=True)
    role = fields.Text(required=True)
    enabled = fields.Flag(required=True)
    erased = fields.Flag(required=True)
    revision = fields.Whole(required=True)


class ResumedAnswer(Schema):
    """A ledger that goes on, or is still halted for another reason."""

    org_id = fields.Text(required=True)
    halted = fields.Flag(required=True)
    revision = fields.Whole(required=True)


class KeyAnswer(_Effect):
    """A key; `key`, its full text, only in the answer that created it."""

    key_id = fields.Text(required=True)
    org_id = fields.Text(required=True)
    user_id = fields.Text(required=True)
    name = fields.Text(required=True)
    last4 = fields.Text(required=True)
    scopes = fields.Items(fields.Text(), required=True, allow_none=True)
    cidrs = fields.Items(fields.Text(), required=True, allow_none=True)
    created_at = fields.Text(required=True)
    expires_at = fields.Text(required=True, allow_none=True)
    revoked_at = fields.Text(required=True, allow_none=True)
    revision = fields.Whole(required=True)
    key = fields.Text(allow_none=True)
    key_withheld = fields.Flag()


class EffectAnswer(Schema):
    """Whether all up to a revision is in effect everywhere.

    `effective_ms` counts from the arrival of the request that made it so, or, where this process does not know that
    one, of the first that asked here.
    """

    revision = fields.Whole(required=True)
    effective = fields.Flag(required=True)
    effective_ms = fields.Whole(required=True, allow_none=True)


class AcceptedAnswer(Schema):
    """How many uses were taken."""

    accepted = fields.Whole(required=True)
