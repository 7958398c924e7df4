"""The calls of the command API as data: the source of its URL rules and of its OpenAPI document."""

from dataclasses import replace
from typing import Any, Final

from marshmallow import Schema

from schemas.openapi import Operation
from services.command_api import bodies

_REFUSALS: Final = (400, 401, 403, 404, 405, 409, 413, 415, 422, 500, 503)
_IDEMPOTENCY: Final[dict[str, Any]] = {"Idempotency-Key": {"type": "string", "pattern": "^[!-~]{1,255}$"}}
_ORG: Final = "/v1/orgs/{org}"
_USER: Final = "/v1/orgs/{org}/users/{user}"
_KEY: Final = "/v1/orgs/{org}/keys/{key}"


def _call(method: str, path: str, summary: str, body: type[Schema], answer: type[Schema], *statuses: int) -> Operation:
    answers: dict[int, type[Schema] | Schema | None] = dict.fromkeys(statuses, answer)
    return Operation(method, path, summary, answers, refusals=_REFUSALS, body=body, headers=_IDEMPOTENCY)


def _taking(method: str, path: str, summary: str, body: type[Schema], answer: type[Schema]) -> Operation:
    """A call that takes rights away, or may: 202 when it is done, and not known to be in effect everywhere."""
    call = _call(method, path, summary, body, answer, 200, 202)
    return replace(call, headers=_IDEMPOTENCY | {"Prefer": {"type": "string"}})


CALLS: Final[dict[str, Operation]] = {
    "register_org": _call(
        "POST", "/v1/orgs", "Register an organisation", bodies.RegisterOrgBody, bodies.OrgAnswer, 200, 201
    ),
    "switch_keys": _taking(
        "PUT", f"{_ORG}/keys-enabled", "Turn API keys on or off", bodies.KeysEnabledBody, bodies.KeysEnabledAnswer
    ),
    "resume": _call("POST", f"{_ORG}/resume", "End a halt after a fork", bodies.ResumeBody, bodies.ResumedAnswer, 200),
    "add_user": _call(
        "POST", f"{_ORG}/users", "Add a person or a service account", bodies.AddUserBody, bodies.UserAnswer, 200, 201
    ),
    "change_role": _taking("PUT", f"{_USER}/role", "Give a user another role", bodies.RoleBody, bodies.UserAnswer),
    "switch_user": _taking(
        "PUT", f"{_USER}/enabled", "Disable or enable a user", bodies.EnabledBody, bodies.UserAnswer
    ),
    "erase_person": _taking("DELETE", _USER, "Disable a user for good", bodies.EmptyBody, bodies.UserAnswer),
    "create_key": _call("POST", f"{_ORG}/keys", "Create an API key", bodies.CreateKeyBody, bodies.KeyAnswer, 200, 201),
    "rename_key": _call("PATCH", _KEY, "Rename a key", bodies.RenameKeyBody, bodies.KeyAnswer, 200),
    "revoke_key": _taking("DELETE", _KEY, "Revoke a key", bodies.RevokeKeyBody, bodies.KeyAnswer),
    "effect": Operation(
        "GET",
        f"{_ORG}/effects/{{revision}}",
        "Ask whether all up to a revision is in effect everywhere",
        {200: bodies.EffectAnswer},
        refusals=_REFUSALS,
    ),
    "take_usage": Operation(
        "POST",
        "/v1/usage",
        "Publish uses of keys",
        {202: bodies.AcceptedAnswer},
        refusals=_REFUSALS,
        body=bodies.UseBody,
        body_is_list=True,
    ),
}
"""Each call under the name of its view."""

BODIES: Final = tuple({operation.body for operation in CALLS.values() if isinstance(operation.body, type)})
