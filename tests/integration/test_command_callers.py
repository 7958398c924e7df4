"""Who is calling: signed tokens are verified here, operators and API keys are asked of the checker."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas import tokens
from schemas.problems import Problem
from services.command_api import callers
from services.command_api.callers import Callers, Checker
from tests.integration.command_parts import KID, CommandWorld, check_problem, running_command_api
from tests.waiting import eventually

KEYS = "/v1/orgs/acme/keys"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[CommandWorld]:
    with running_command_api(tmp_path) as running:
        yield running


@pytest.fixture
def admin(world: CommandWorld) -> str:
    return world.org("acme")


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, check_problem(answer)["code"]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dTpw", "kl_x"])
def test_without_a_bearer_token_nobody_is_calling(header: str | None, world: CommandWorld, admin: str):
    more = {} if header is None else {"Authorization": header}
    assert code(world.call("POST", KEYS, None, {"name": "ci"}, **more)) == (401, "token_missing")


def claims_of(world: CommandWorld, **changed: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {"iss": tokens.ISSUER, "aud": tokens.AUDIENCE, "sub": "u", "org": "acme", "rev": 0, "exp": now + 60}
    return {**claims, "iat": now, **changed}


def signed(world: CommandWorld, payload: dict[str, Any], kid: str = KID) -> str:
    return jwt.encode(payload, world.beside.signing, "EdDSA", headers={"kid": kid})


FORGERIES: dict[str, Callable[[CommandWorld], str]] = {
    "garbage": lambda world: "a.b.c",
    "not ASCII": lambda world: "é.é.é",
    "another key": lambda world: jwt.encode(
        claims_of(world), Ed25519PrivateKey.generate(), "EdDSA", headers={"kid": KID}
    ),
    "an unknown kid": lambda world: signed(world, claims_of(world), "console-2"),
    "no kid": lambda world: jwt.encode(claims_of(world), world.beside.signing, "EdDSA"),
    "no algorithm": lambda world: jwt.encode(claims_of(world), "", "none", headers={"kid": KID}),
    "HMAC": lambda world: jwt.encode(claims_of(world), "s" * 32, "HS256", headers={"kid": KID}),
    "another issuer": lambda world: signed(world, claims_of(world, iss="somebody")),
    "another audience": lambda world: signed(world, claims_of(world, aud="somebody")),
    "a life of an hour": lambda world: signed(world, claims_of(world, exp=int(time.time()) + 3600)),
    "no org": lambda world: signed(world, claims_of(world, org=None)),
    "a revision as text": lambda world: signed(world, claims_of(world, rev="1")),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_token_is_refused(name: str, world: CommandWorld, admin: str):
    token = FORGERIES[name](world).encode().decode("latin-1")
    assert code(world.call("POST", KEYS, token, {"name": "ci"})) == (401, "token_invalid")


def test_an_expired_token_is_refused_and_so_is_one_that_was_good_a_moment_ago(world: CommandWorld, admin: str):
    user = world.user("acme", "member")[0]
    assert code(world.call("POST", KEYS, world.token("acme", user, life_s=-1), {"name": "ci"})) == (
        401,
        "token_expired",
    )
    now_s = time.time()
    by_clock = Callers(tokens.KeySet(world.beside.jwks), Checker("http://127.0.0.1:9", ""), world.store, lambda: now_s)
    token = f"Bearer {world.token('acme', user)}"
    assert by_clock.identify(token, "acme", None, None).user_id == user
    now_s += 301
    with pytest.raises(Problem, match="token_expired"):
        by_clock.identify(token, "acme", None, None)


def test_a_token_waits_until_its_revision_is_known_here(world: CommandWorld, admin: str):
    user = world.user("acme", "member")[0]
    ahead = world.token("acme", user, rev=world.head("acme").revision + 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.call, "POST", KEYS, ahead, {"name": "ci"})
        world.done("PUT", f"/v1/orgs/acme/users/{user}/role", admin, {"role": "admin"})
        assert waiting.result().status_code == 201


def test_a_token_from_a_future_that_does_not_come_is_stale(
    world: CommandWorld, admin: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(callers, "_REV_WAIT_S", 0.05)
    ahead = world.token("acme", world.user("acme", "member")[0], rev=10_000)
    assert code(world.call("POST", KEYS, ahead, {"name": "ci"})) == (503, "stale")


def test_while_the_console_is_away_its_known_keys_still_count(world: CommandWorld, admin: str):
    world.beside.console_away = True
    assert world.call("POST", KEYS, admin, {"name": "ci"}).status_code == 201
    unknown = signed(world, claims_of(world), "console-2")
    assert code(world.call("POST", KEYS, unknown, {"name": "cd"})) == (503, "console_unavailable")
    world.beside.console_away = False
    eventually(
        lambda: code(world.call("POST", KEYS, unknown, {"name": "cd"})) == (401, "token_invalid"), 10, "it is back"
    )


def test_members_and_admins_are_judged_here_and_operators_and_keys_are_asked_of_the_checker(
    world: CommandWorld, admin: str
):
    world.beside.asked.clear()
    key = world.key("acme", admin, scopes=["keys:write"])["key"]
    assert world.beside.asked == []
    operator = world.operator()
    for token in (key, operator):
        world.done("POST", "/v1/orgs/acme/users", token, {"kind": "person", "role": "member"}, User_Agent="pipeline/1")
    asked = [(question["token"], question["ip"], question["user_agent"]) for question in world.beside.asked]
    assert asked == [(key, "127.0.0.1", "pipeline/1"), (operator, "127.0.0.1", "pipeline/1")]


SAYINGS: list[tuple[dict[str, Any], tuple[int, str]]] = [
    ({}, (503, "checker_unavailable")),
    ({"valid": False, "code": "STALE"}, (503, "stale")),
    ({"valid": False, "code": "NOT_FOUND"}, (401, "not_found")),
    ({"valid": False, "code": "MALFORMED"}, (401, "malformed")),
    ({"valid": False, "code": "REVOKED"}, (401, "revoked")),
    ({"valid": False, "code": "EXPIRED"}, (401, "expired")),
    ({"valid": False, "code": "ORG_KEYS_DISABLED"}, (401, "org_keys_disabled")),
    ({"valid": False, "code": "OWNER_DISABLED"}, (401, "owner_disabled")),
    ({"valid": False, "code": "IP_NOT_ALLOWED"}, (403, "ip_not_allowed")),
]


@pytest.mark.parametrize(("says", "expected"), SAYINGS, ids=str)
def test_what_the_checker_does_not_vouch_for_may_nothing(
    says: dict[str, Any], expected: tuple[int, str], world: CommandWorld, admin: str
):
    key, operator = world.key("acme", admin, scopes=["keys:write"])["key"], world.operator()
    world.beside.says = says
    for token in (key, operator):
        assert code(world.call("POST", "/v1/orgs/acme/users", token, {"kind": "person", "role": "member"})) == expected
    assert world.call("POST", KEYS, admin, {"name": "own"}).status_code == 201


def test_a_checker_that_is_not_there_is_a_503(world: CommandWorld, free_port: Callable[[], int]):
    nobody = Callers(tokens.KeySet(dict), Checker(f"http://127.0.0.1:{free_port()}", ""), world.store)
    with pytest.raises(Problem, match="503 checker_unavailable"):
        nobody.identify("Bearer kl_x", "acme", None, None)


def test_an_operator_who_is_none_any_more_is_a_stranger_elsewhere(world: CommandWorld, admin: str):
    user, token = world.user("platform", "admin")
    body = {"kind": "person", "role": "member"}
    assert world.call("POST", "/v1/orgs/acme/users", token, body).status_code == 201
    world.done("PUT", f"/v1/orgs/platform/users/{user}/role", world.operator(), {"role": "member"})
    assert code(world.call("POST", "/v1/orgs/acme/users", token, body)) == (404, "not_found")


def test_the_api_key_of_an_operator_acts_elsewhere_and_that_of_a_platform_member_does_not(
    world: CommandWorld, admin: str
):
    operator, member = world.operator(), world.user("platform", "member")[1]
    world.done("PUT", "/v1/orgs/platform/keys-enabled", operator, {"enabled": True})
    theirs, no_operators = (world.key("platform", token, scopes=["keys:write"])["key"] for token in (operator, member))
    body = {"kind": "person", "role": "member"}
    assert world.call("POST", "/v1/orgs/acme/users", theirs, body).status_code == 201
    assert code(world.call("POST", "/v1/orgs/acme/users", no_operators, body)) == (404, "not_found")
    assert code(world.call("POST", "/v1/orgs", no_operators, {})) == (403, "forbidden")


def test_a_disabled_users_token_stops_at_once(world: CommandWorld, admin: str):
    user, token = world.user("acme", "member")
    world.done("PUT", f"/v1/orgs/acme/users/{user}/enabled", admin, {"enabled": False})
    assert code(world.call("POST", KEYS, token, {"name": "ci"})) == (401, "caller_disabled")
