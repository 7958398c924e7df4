"""The bodies that people send and get, and the list of calls: what is checked is what `/openapi.json` says."""

import unicodedata
from typing import Any, Final

from marshmallow import Schema, ValidationError, validates_schema
from marshmallow.fields import Dict

from schemas import fields, wire
from schemas.openapi import Operation
from services.console import passwords

_EMAIL: Final = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*"


class Name(fields.Text):
    """The name of a person: trimmed and in normal form C before its rules are judged."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return unicodedata.normalize("NFC", super()._deserialize(value, attr, data, **kwargs)).strip(fields.BLANKS)


def _name() -> Name:
    return Name(required=True, validate=wire.key_name().validators)


def _new_password(**more: Any) -> fields.Text:
    return fields.text(None, passwords.LONGEST, shortest=passwords.SHORTEST, **more)


class SessionRequest(Schema):
    """Sign in."""

    email = fields.text(_EMAIL, 254, required=True)
    password = fields.text(None, passwords.LONGEST, required=True)


class SessionAnswer(Schema):
    """`must_change_password`: until it is changed, this token only changes the password here."""

    token = fields.Text(required=True)
    expires_at = fields.Text(required=True)
    user_id = fields.Text(required=True)
    org_id = fields.Text(required=True)
    must_change_password = fields.Flag(required=True)


class UserRequest(Schema):
    """A person needs an e-mail address; a service account may have one, and never has a password."""

    name = _name()
    email = fields.text(_EMAIL, 254, allow_none=True, load_default=None)
    kind = fields.one_of(wire.KINDS, required=True)
    role = fields.one_of(wire.ROLES, required=True)
    password = _new_password(allow_none=True, load_default=None)

    @validates_schema
    def _by_kind(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if data["kind"] == "person" and data["email"] is None:
            raise ValidationError("a person needs an e-mail address", "email")
        if data["kind"] != "person" and data["password"] is not None:
            raise ValidationError("only a person has a password", "password")


class MeAnswer(Schema):
    """A person or service account as the console knows it."""

    user_id = fields.Text(required=True)
    org_id = fields.Text(required=True)
    name = fields.Text(required=True)
    email = fields.Text(required=True, allow_none=True)
    kind = fields.Text(required=True)


class UserAnswer(MeAnswer):
    """`temporary_password` only for a person without one, only here, to be changed at the first sign-in."""

    role = fields.Text(required=True)
    revision = fields.Whole(required=True)
    temporary_password = fields.Text()


class ErasedAnswer(Schema):
    """What the command API answered; `status_url`, on the command API, tells later what is not known yet."""

    user_id = fields.Text()
    org_id = fields.Text()
    revision = fields.Whole()
    effective = fields.Flag()
    effective_ms = fields.Whole(allow_none=True)
    status_url = fields.Text()


class NameRequest(Schema):
    """Change my name."""

    name = _name()


class PasswordRequest(Schema):
    """Change my password; the new one must differ."""

    old = fields.text(None, passwords.LONGEST, required=True)
    new = _new_password(required=True)


class PasswordAnswer(Schema):
    """The password is changed."""

    user_id = fields.Text(required=True)
    must_change_password = fields.Flag(required=True)


class TemporaryPassword(Schema):
    """Only here, to be changed at the next sign-in."""

    user_id = fields.Text(required=True)
    temporary_password = fields.Text(required=True)


class OrgSignInRequest(Schema):
    """`sso_only`: passwords of this organisation are refused, its API keys go on working."""

    sso_only = fields.Flag(required=True)


class OrgSignInAnswer(OrgSignInRequest):
    """`sso_configured`: this console knows a provider of single sign-on."""

    org_id = fields.Text(required=True)
    sso_configured = fields.Flag(required=True)


class Jwks(Schema):
    """RFC 7517."""

    keys = fields.Items(Dict(), required=True)


class Nothing(Schema):
    """An empty object or no body."""


_USERS: Final = "/v1/orgs/{org}/users"
_SIGN_IN: Final = "/v1/orgs/{org}/sign-in"
_REFUSALS: Final = (400, 401, 403, 404, 413, 415, 503)
OPERATIONS: Final = (
    Operation(
        "POST",
        "/v1/sessions",
        "Sign in with e-mail and password",
        {201: SessionAnswer},
        (400, 401, 403, 413, 415, 429, 503),
        body=SessionRequest,
        secured=False,
    ),
    Operation(
        "POST", _USERS, "Add a person or service account", {201: UserAnswer}, (*_REFUSALS, 409, 422), body=UserRequest
    ),
    Operation(
        "DELETE",
        _USERS + "/{user}",
        "Erase a user",
        {200: ErasedAnswer, 202: ErasedAnswer},
        (*_REFUSALS, 409),
        body=Nothing,
    ),
    Operation(
        "POST",
        _USERS + "/{user}/password-reset",
        "Give a person a temporary password",
        {200: TemporaryPassword},
        _REFUSALS,
        body=Nothing,
    ),
    Operation("GET", _SIGN_IN, "How people sign in", {200: OrgSignInAnswer}, (401, 403, 404, 503)),
    Operation(
        "PUT",
        _SIGN_IN,
        "Refuse or take passwords of this organisation",
        {200: OrgSignInAnswer},
        (*_REFUSALS, 409),
        body=OrgSignInRequest,
    ),
    Operation("PATCH", "/v1/me", "Change my name", {200: MeAnswer}, _REFUSALS, body=NameRequest),
    Operation(
        "POST", "/v1/me/password", "Change my password", {200: PasswordAnswer}, (*_REFUSALS, 429), body=PasswordRequest
    ),
    Operation("GET", "/.well-known/jwks.json", "The keys that tokens are checked with", {200: Jwks}, (), secured=False),
)
