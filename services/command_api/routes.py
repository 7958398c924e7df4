"""The calls of the command API: one view each; syntax is checked here, meaning in the rules."""

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import structlog
from flask import Blueprint, Response, g, jsonify, request
from prometheus_client import Counter

from schemas import fields
from schemas.codec import canonical
from schemas.openapi import document
from schemas.problems import Problem, load, read_json
from services.command_api import bodies, commands, operations
from services.command_api.answers import of_key, of_user, revision_of
from services.command_api.commands import Caller, Command
from services.command_api.errors import NotFound, OrgHalted
from services.command_api.handler import Done, Identity
from services.command_api.state import Key, LmdbView, User

if TYPE_CHECKING:
    from services.command_api.app import Parts

NOT_COUNTED: Final = ("metrics", "calls.healthz", "calls.readyz", "calls.openapi")
_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,255}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SHAPES: Final = {
    "org": re.compile(fields.ID),
    "user": re.compile(fields.ID),
    "key": re.compile(fields.KEY_ID),
    "revision": re.compile("[1-9][0-9]{0,14}"),
}
_log = structlog.get_logger("keyledger.command_api")
_SCHEMAS: Final = {schema: schema() for schema in operations.BODIES}


def calls(parts: "Parts") -> Blueprint:
    """All calls as one blueprint."""
    blueprint = Blueprint("calls", __name__)
    views = _Views(parts)
    for view, operation in operations.CALLS.items():
        rule = operation.path.replace("{", "<").replace("}", ">")
        blueprint.add_url_rule(rule, view, getattr(views, view), methods=[operation.method])
    made = document("Keyledger command API", tuple(operations.CALLS.values()))
    blueprint.add_url_rule("/openapi.json", "openapi", lambda: jsonify(made))
    blueprint.add_url_rule("/healthz", "healthz", lambda: jsonify(status="alive"))
    blueprint.add_url_rule("/readyz", "readyz", views.readyz)
    return blueprint


class _Views:
    """One method per call; path parameters come by name."""

    def __init__(self, parts: "Parts") -> None:
        self._parts = parts
        self._late = Counter(
            "keyledger_effects_late_total", "Answers 202 that should have been 200.", ("why",), registry=parts.registry
        )

    def readyz(self) -> Response:
        reason = self._parts.not_ready()
        if reason is not None:
            raise Problem(503, "not_ready", reason)
        return jsonify(status="ready")

    def register_org(self) -> Response:
        caller = self._caller(None)
        raw = self._json()
        body = load(_SCHEMAS[bodies.RegisterOrgBody], raw)
        identity = self._identity(body.get("org_id") or "", caller, raw)
        org = body.get("org_id") or hashlib.sha256(identity.commandid.encode()).hexdigest()[:22]
        done = self._parts.handler.handle(org, caller, commands.RegisterOrg(body.get("name")), identity)
        with self._parts.store.read() as txn:
            found = LmdbView(txn, org).org()
        if found is None:
            raise OrgHalted
        return _made(done, org, {"org_id": org, "name": found.name}, found.registered_revision)

    def switch_keys(self, org: str) -> Response:
        body, run = self._prepare(org, bodies.KeysEnabledBody)
        done = run(commands.SwitchKeys(body["enabled"], body.get("reason")))
        with self._parts.store.read() as txn:
            found = LmdbView(txn, org).org()
        if found is None:
            raise OrgHalted
        answer = {"org_id": org, "keys_enabled": body["enabled"]}
        revision = revision_of(done, found.keys_revision)
        return _answer(200, org, answer, revision) if body["enabled"] else self._taken(org, answer, revision)

    def resume(self, org: str) -> Response:
        body, run = self._prepare(org, bodies.ResumeBody)
        done = run(commands.ResumeLedger(tuple(body["offsets"]), body["reason"]))
        halted, revision = self._parts.handler.halted(org)
        return _answer(200, org, {"org_id": org, "halted": halted}, revision_of(done, revision))

    def add_user(self, org: str) -> Response:
        body, run = self._prepare(org, bodies.AddUserBody)
        user_id = self._parts.sources.short_id()
        done = run(commands.AddUser(user_id, body["kind"], body["role"]))
        user = self._user(org, done.repeated.subject if done.repeated else user_id)
        return _made(done, org, of_user(org, user), user.status_revision)

    def change_role(self, org: str, user: str) -> Response:
        body, run = self._prepare(org, bodies.RoleBody, user=user)
        done = run(commands.ChangeRole(user, body["role"]))
        found = self._user(org, user)
        answer = of_user(org, found) | {"role": body["role"]}
        return self._taken(org, answer, revision_of(done, found.role_revision))

    def switch_user(self, org: str, user: str) -> Response:
        body, run = self._prepare(org, bodies.EnabledBody, user=user)
        done = run(commands.SwitchUser(user, body["enabled"]))
        found = self._user(org, user)
        answer = of_user(org, found) | {"enabled": body["enabled"]}
        revision = revision_of(done, found.status_revision)
        return _answer(200, org, answer, revision) if body["enabled"] else self._taken(org, answer, revision)

    def erase_person(self, org: str, user: str) -> Response:
        _, run = self._prepare(org, bodies.EmptyBody, user=user)
        done = run(commands.ErasePerson(user))
        found = self._user(org, user)
        return self._taken(org, of_user(org, found), revision_of(done, found.status_revision))

    def create_key(self, org: str) -> Response:
        body, run = self._prepare(org, bodies.CreateKeyBody)
        minted = self._parts.sources.mint(self._parts.key_prefix)
        command = commands.CreateKey(
            key_id=minted.key_id,
            user_id=body.get("user_id"),
            name=body["name"],
            digest=minted.digest,
            last4=minted.last4,
            expires_at=body.get("expires_at"),
            scopes=_tuple(body.get("scopes")),
            cidrs=_tuple(body.get("cidrs")),
        )
        done = run(command)
        key = self._key(org, done.repeated.subject if done.repeated else minted.key_id)
        # The text was only in the answer to the first request; a repeat never has it.
        secret = {"key": None, "key_withheld": True} if done.repeated else {"key": minted.text}
        return _made(done, org, of_key(org, key) | secret, key.revision)

    def rename_key(self, org: str, key: str) -> Response:
        body, run = self._prepare(org, bodies.RenameKeyBody, key=key)
        done = run(commands.RenameKey(key, body["name"]))
        found = self._key(org, key)
        return _answer(200, org, of_key(org, found), revision_of(done, found.revision))

    def revoke_key(self, org: str, key: str) -> Response:
        body, run = self._prepare(org, bodies.RevokeKeyBody, key=key)
        done = run(commands.RevokeKey(key, body.get("reason"), body.get("comment")))
        found = self._key(org, key)
        return self._taken(org, of_key(org, found), revision_of(done, found.revision))

    def effect(self, org: str, revision: str) -> Response:
        _check_shapes(org=org, revision=revision)
        self._parts.handler.check_asking(org, self._caller(org), int(revision))
        effect = self._parts.effects.look(org, int(revision), g.arrived_ns)
        answer = {"effective": effect.effective_ms is not None, "effective_ms": effect.effective_ms}
        return _answer(200, org, answer, int(revision))

    def take_usage(self) -> Response:
        caller = self._caller(None)
        accepted = self._parts.usage.take(caller, self._json())
        response = jsonify(accepted=accepted)
        response.status_code = 202
        return response

    def _prepare(self, org: str, schema: Any, **ids: str) -> tuple[dict[str, Any], Any]:
        """Read who calls and the body; give the body and a function that carries a command out."""
        _check_shapes(org=org, **ids)
        caller = self._caller(org)
        raw = self._json()
        body: dict[str, Any] = load(_SCHEMAS[schema], raw)
        identity = self._identity(org, caller, raw)

        def run(command: Command) -> Done:
            return self._parts.handler.handle(org, caller, command, identity)

        return body, run

    def _taken(self, org: str, answer: dict[str, Any], revision: int) -> Response:
        """The answer of what takes rights away: 200 once it is in effect everywhere, 202 when that is not waited for."""
        effect, at_once = self._parts.effects.take(org, revision, g.arrived_ns), _prefers_async()
        late = None if at_once else self._parts.effects.wait(effect)
        if not at_once and late is None:
            answer |= {"effective": True, "effective_ms": effect.effective_ms}
            return _answer(200, org, answer, revision)
        if late is not None:
            self._late.labels(late).inc()
            _log.error("effect_late", why=late, org=org, revision=revision)
        url = f"/v1/orgs/{org}/effects/{revision}"
        answer |= {"effective": False, "effective_ms": None, "status_url": url}
        response = _answer(202, org, answer, revision)
        response.headers["Location"] = url
        if at_once:
            response.headers["Preference-Applied"] = "respond-async"
        return response

    def _caller(self, org: str | None) -> Caller:
        agent = request.headers.get("User-Agent")
        return self._parts.callers.identify(request.headers.get("Authorization"), org, request.remote_addr, agent)

    def _json(self) -> Any:
        return read_json(request.get_data(), request.mimetype)

    def _identity(self, org: str, caller: Caller, raw: Any) -> Identity:
        given = request.headers.get("Idempotency-Key")
        if given is None:
            commandid = str(uuid4())
        elif _IDEMPOTENCY_KEY.fullmatch(given):
            who = caller.key_id or caller.user_id
            parts = [org, caller.org, who, request.method, request.path, given]
            commandid = hashlib.sha256(canonical({"of": parts})).hexdigest()
        else:
            raise Problem(400, "malformed", "Idempotency-Key must have 1 to 255 visible ASCII characters")
        traceparent = request.headers.get("traceparent", "")
        kept = traceparent if _TRACEPARENT.fullmatch(traceparent) else None
        return Identity(commandid, hashlib.sha256(canonical({"body": raw})).hexdigest(), kept)

    def _user(self, org: str, user_id: str) -> User:
        with self._parts.store.read() as txn:
            user = LmdbView(txn, org).user(user_id)
        if user is None:
            raise OrgHalted  # Its event is in the ledger, but the organisation halted before it was folded.
        return user

    def _key(self, org: str, key_id: str) -> Key:
        with self._parts.store.read() as txn:
            key = LmdbView(txn, org).key(key_id)
        if key is None:
            raise OrgHalted
        return key


def _made(done: Done, org: str, answer: dict[str, Any], so_already: int) -> Response:
    return _answer(200 if done.repeated else 201, org, answer, revision_of(done, so_already))


def _answer(status: int, org: str, answer: dict[str, Any], revision: int) -> Response:
    response = jsonify(answer | {"revision": revision})
    response.status_code = status
    response.headers["Keyledger-Revision"] = f"{org}:{revision}"
    return response


def _check_shapes(**ids: str) -> None:
    """Raises NotFound for a part of a path that cannot be what its name says."""
    for name, identifier in ids.items():
        if not _SHAPES[name].fullmatch(identifier):
            raise NotFound


def _prefers_async() -> bool:
    """Whether `Prefer` (RFC 7240) has `respond-async` among its preferences."""
    preferences = request.headers.get("Prefer", "").split(",")
    return any(preference.partition(";")[0].strip().lower() == "respond-async" for preference in preferences)


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
