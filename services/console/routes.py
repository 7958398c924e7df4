"""One view per call. Shape is checked here, who may is asked of `caller`, the rest is done by those it names."""

import re
from collections.abc import Mapping
from typing import Any, cast

import psycopg
from flask import Blueprint, Response, current_app, request
from marshmallow import Schema
from psycopg_pool import PoolTimeout

from schemas import fields, openapi
from schemas.codec import canonical
from schemas.problems import Problem, load, read_json
from schemas.times import to_text
from schemas.validation import KEYS_WRITE, Code
from services.console import bodies
from services.console.caller import Caller, must_administer, must_have_scope, not_found
from services.console.members import person_of
from services.console.parts import Console
from services.console.people import Person

routes = Blueprint("console", __name__)
_ID = re.compile(fields.ID)


@routes.post("/v1/sessions")
def sign_in() -> Response:
    """Sign in with e-mail and password."""
    body = _body(bodies.SessionRequest())
    session = _console().sign_in.with_password(body["email"], body["password"], _address(), _user_agent())
    person = session.person
    return _answer(
        201,
        {
            "token": session.token,
            "expires_at": to_text(session.expires_ms),
            "user_id": person.user_id,
            "org_id": person.org_id,
            "must_change_password": person.must_change_password,
        },
    )


@routes.post("/v1/orgs/<org>/users")
def add_user(org: str) -> Response:
    """Add a person or service account."""
    caller = _administrator(org)
    person, given = _console().members.add(caller, org, _body(bodies.UserRequest()))
    answer = _shown(person) | {"role": person.role, "revision": person.added_revision}
    if given is not None:
        answer["temporary_password"] = given
    return _answer(201, answer, {"Keyledger-Revision": f"{org}:{person.added_revision}"})


@routes.delete("/v1/orgs/<org>/users/<user>")
def erase_user(org: str, user: str) -> Response:
    """Erase a user: the personal data here, then the rights in the ledger."""
    caller = _administrator(org)
    _body(bodies.Nothing())
    answer = _console().members.erase(caller, org, _id(user))
    # As the command API answered: 202 when it is not known yet to be in effect everywhere.
    status = 202 if answer.get("effective") is False else 200
    return _answer(status, answer, {"Keyledger-Revision": f"{org}:{answer.get('revision')}"})


@routes.post("/v1/orgs/<org>/users/<user>/password-reset")
def reset_password(org: str, user: str) -> Response:
    """Give a person a temporary password, to be changed at the next sign-in."""
    caller = _administrator(org)
    _body(bodies.Nothing())
    given = _console().members.reset_password(caller, org, _id(user))
    return _answer(200, {"user_id": user, "temporary_password": given})


@routes.get("/v1/orgs/<org>/sign-in")
def org_sign_in(org: str) -> Response:
    """How the people of an organisation sign in."""
    must_have_scope(_administrator(org), KEYS_WRITE)
    return _sign_in_of(org)


@routes.put("/v1/orgs/<org>/sign-in")
def set_org_sign_in(org: str) -> Response:
    """Refuse the passwords of an organisation, or take them again."""
    caller = _administrator(org)
    _console().members.require_sso(caller, org, _body(bodies.OrgSignInRequest())["sso_only"])
    return _sign_in_of(org)


@routes.patch("/v1/me")
def rename_me() -> Response:
    """Change my name."""
    me = person_of(_console().people, _caller())
    body = _body(bodies.NameRequest())
    _console().people.rename(me.org_id, me.user_id, body["name"])
    return _answer(200, _shown(me) | {"name": body["name"]})


@routes.post("/v1/me/password")
def change_password() -> Response:
    """Change my password."""
    me = person_of(_console().people, _caller(with_temporary_password=True))
    body = _body(bodies.PasswordRequest())
    _console().members.change_password(me, body["old"], body["new"], _address())
    return _answer(200, {"user_id": me.user_id, "must_change_password": False})


@routes.get("/.well-known/jwks.json")
def jwks() -> Response:
    """The keys that tokens are checked with."""
    return _answer(200, _console().keys.jwks(), {"Cache-Control": "max-age=60"})


@routes.get("/healthz")
def healthz() -> Response:
    """Alive."""
    return _answer(200, {"status": "alive"})


@routes.get("/readyz")
def readyz() -> Response:
    """The first start is done and PostgreSQL answers."""
    if _console().readiness.reason is not None:
        raise Problem(503, "not_ready", str(_console().readiness.reason), retry_after_s=1)
    try:
        with _console().pool.connection(timeout=2.0) as connection:
            connection.execute("SELECT 1")
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise Problem(503, "not_ready", "PostgreSQL does not answer", retry_after_s=1) from error
    return _answer(200, {"status": "ready"})


@routes.get("/metrics")
def metrics() -> Response:
    """Counters in Prometheus' text format."""
    return Response(_console().metrics.text(), 200, content_type="text/plain; version=0.0.4; charset=utf-8")


@routes.get("/openapi.json")
def openapi_document() -> Response:
    """OpenAPI 3.1, made from the schemas that check the bodies."""
    return _answer(200, openapi.document("Keyledger console", bodies.OPERATIONS))


def _console() -> Console:
    return cast(Console, current_app.extensions["console"])


def _caller(*, with_temporary_password: bool = False) -> Caller:
    """Who is calling. Raises Problem 401, 503, or 403 while a temporary password has to be changed first."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorized("token_missing", "send Authorization: Bearer with a token or an API key")
    code, caller = _console().checker.caller(token.strip(), _address(), _user_agent())
    if caller is None:
        raise _not_valid(code)
    if caller.key_id is None and not with_temporary_password:
        person = _console().people.get(caller.org_id, caller.user_id)
        if person is not None and person.must_change_password:
            raise Problem(403, "password_change_required", "change the temporary password first: POST /v1/me/password")
    return caller


def _administrator(org: str) -> Caller:
    caller = _caller()
    must_administer(caller, _id(org))
    return caller


def _not_valid(code: Code) -> Problem:
    if code is Code.IP_NOT_ALLOWED:
        return Problem(403, "ip_not_allowed", "the API key is not allowed from this address")
    return _unauthorized(code.value.lower(), "the token is not valid")


def _unauthorized(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": 'Bearer realm="keyledger"'})


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise not_found()
    return text


def _body(schema: Schema) -> dict[str, Any]:
    return cast(dict[str, Any], load(schema, read_json(request.get_data(), request.mimetype)))


def _address() -> str:
    return request.remote_addr or ""


def _user_agent() -> str:
    return request.headers.get("User-Agent", "")[:200]


def _shown(person: Person) -> dict[str, Any]:
    return {name: getattr(person, name) for name in ("user_id", "org_id", "name", "email", "kind")}


def _answer(status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return Response(canonical(dict(document)), status, headers, content_type="application/json")


def _sign_in_of(org: str) -> Response:
    sso = _console().sso
    return _answer(200, {"org_id": org, "sso_only": sso.is_required(org), "sso_configured": sso.configured})
