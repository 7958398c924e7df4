"""Signing in, tokens and passwords, on a real database."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from schemas.problems import Problem
from schemas.times import to_ms, wall_clock_ms
from schemas.tokens import KeySet, verify
from services.console.passwords import Passwords
from services.console.throttle import ACCOUNT_LIMIT, ADDRESS_LIMIT, FORGET_MS, Throttle
from tests.integration.console_parts import PASSWORD, World, running_console


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        yield made


def test_a_session_is_a_token_of_five_minutes_with_the_orgs_revision_at_sign_in(world: World) -> None:
    world.person("acme", "ada", "admin")
    for _ in range(5):
        world.ledger.move("acme")
    answer = world.sign_in("ADA@example.org")
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.get_json()
    assert (body["user_id"], body["org_id"], body["must_change_password"]) == ("ada", "acme", False)
    now_s = wall_clock_ms() / 1000
    claims = verify(body["token"], KeySet(lambda: world.client.get("/.well-known/jwks.json").get_json()).key_of, now_s)
    assert (claims.sub, claims.org, claims.rev) == ("ada", "acme", 6)
    assert 290 < claims.exp - now_s <= 300
    assert to_ms(body["expires_at"]) == claims.exp * 1000


def test_every_failure_of_email_or_password_has_the_same_answer(world: World) -> None:
    world.person("acme", "ada")
    answers = [
        world.sign_in("ada@example.org", "not the password"),
        world.sign_in("nobody@example.org"),
        world.sign_in("ada@example.org", ""),
    ]
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert len({answer.data for answer in answers}) == 1
    assert answers[0].get_json()["code"] == "bad_credentials"


def test_a_disabled_person_with_the_right_password_is_told_so(world: World) -> None:
    world.person("acme", "ada")
    world.ledger.orgs["acme"]["ada"].active = False
    answer = world.sign_in("ada@example.org")
    assert (answer.status_code, answer.get_json()["code"]) == (403, "owner_disabled")


def test_while_the_checker_cannot_tell_nobody_signs_in_or_acts(world: World) -> None:
    world.person("acme", "ada")
    token = world.token("ada")
    world.ledger.stale = True
    for answer in (world.sign_in("ada@example.org"), world.call("PATCH", "/v1/me", token, {"name": "A"})):
        assert (answer.status_code, answer.get_json()["code"]) == (503, "stale")
        assert answer.headers["Retry-After"]


def test_after_some_failures_an_account_has_to_wait_even_with_the_right_password(world: World) -> None:
    world.person("acme", "ada")
    for _ in range(ACCOUNT_LIMIT):
        assert world.sign_in("ada@example.org", "not the password").status_code == 401
    answer = world.sign_in("ada@example.org")
    assert (answer.status_code, answer.get_json()["code"]) == (429, "too_many_attempts")
    assert 1 <= int(answer.headers["Retry-After"]) <= 2
    world.clock.ahead_ms = 1500
    Throttle(world.console.pool, world.clock).begin("ada@example.org", "192.0.2.1")


def test_a_successful_sign_in_starts_the_count_of_its_account_anew(world: World) -> None:
    world.person("acme", "ada")
    for _ in range(3):
        for _ in range(ACCOUNT_LIMIT - 1):
            assert world.sign_in("ada@example.org", "not the password").status_code == 401
        assert world.sign_in("ada@example.org").status_code == 201


def test_an_address_that_tries_many_accounts_has_to_wait_and_others_do_not(world: World) -> None:
    throttle = Throttle(world.console.pool, world.clock)
    for number in range(ADDRESS_LIMIT):
        throttle.begin(f"person{number}@example.org", "192.0.2.1")
    with pytest.raises(Problem, match="429"):
        throttle.begin("somebody@example.org", "192.0.2.1")
    throttle.begin("somebody@example.org", "192.0.2.2")
    world.clock.ahead_ms = FORGET_MS
    throttle.begin("somebody@example.org", "192.0.2.1")


def test_many_tries_at_once_are_counted_one_by_one(world: World) -> None:
    """Two consoles and sixteen threads get no more tries than one."""
    throttles = [Throttle(world.console.pool, lambda: 1_800_000_000_000) for _ in range(2)]
    outcomes: list[int] = []

    def attempt(number: int) -> None:
        try:
            throttles[number % 2].begin("ada@example.org", "192.0.2.1")
            outcomes.append(200)
        except Problem as problem:
            outcomes.append(problem.status)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [200] * ACCOUNT_LIMIT + [429] * (16 - ACCOUNT_LIMIT)


def test_a_hash_with_old_parameters_is_renewed_at_sign_in(world: World) -> None:
    person = world.person("acme", "ada")
    older = Passwords(PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)).hash(PASSWORD)
    world.console.people.set_password("acme", "ada", older, must_change=False)
    assert world.sign_in("ada@example.org").status_code == 201
    renewed = world.console.people.get("acme", "ada")
    assert renewed is not None
    assert renewed.password_hash not in {older, person.password_hash}
    assert world.sign_in("ada@example.org").status_code == 201


def test_a_changed_password_is_the_one_that_signs_in(world: World) -> None:
    world.person("acme", "ada")
    answer = world.call("POST", "/v1/me/password", world.token("ada"), {"old": PASSWORD, "new": "another good one"})
    assert answer.status_code == 200
    assert world.sign_in("ada@example.org").status_code == 401
    assert world.sign_in("ada@example.org", "another good one").status_code == 201


@pytest.mark.parametrize(
    ("old", "new", "status", "code"),
    [
        ("not the password", "another good one", 403, "wrong_password"),
        (PASSWORD, PASSWORD, 400, "malformed"),
        (PASSWORD, "too short", 400, "malformed"),
        (PASSWORD, "x" * 257, 400, "malformed"),
    ],
)
def test_a_password_change_that_breaks_a_rule_changes_nothing(
    world: World, old: str, new: str, status: int, code: str
) -> None:
    world.person("acme", "ada")
    answer = world.call("POST", "/v1/me/password", world.token("ada"), {"old": old, "new": new})
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert world.sign_in("ada@example.org").status_code == 201


@pytest.mark.parametrize(
    ("code", "status"), [("REVOKED", 401), ("EXPIRED", 401), ("OWNER_DISABLED", 401), ("IP_NOT_ALLOWED", 403)]
)
def test_what_the_checker_refuses_is_refused_with_its_code(world: World, code: str, status: int) -> None:
    world.ledger.refused["kl_key"] = code
    answer = world.call("PATCH", "/v1/me", "kl_key", {"name": "A"})
    assert (answer.status_code, answer.get_json()["code"]) == (status, code.lower())
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_a_stolen_token_cannot_guess_the_old_password_for_long(world: World) -> None:
    world.person("acme", "ada")
    token = world.token("ada")
    body = {"old": "not the password", "new": "another good one"}
    statuses = [world.call("POST", "/v1/me/password", token, body).status_code for _ in range(ACCOUNT_LIMIT + 1)]
    assert statuses == [403] * ACCOUNT_LIMIT + [429]


def test_a_temporary_password_only_lets_its_owner_choose_another(world: World) -> None:
    world.person("acme", "ada")
    world.person("acme", "root", "admin")
    reset = world.call("POST", "/v1/orgs/acme/users/ada/password-reset", world.token("root"))
    given = reset.get_json()["temporary_password"]
    assert world.sign_in("ada@example.org").status_code == 401
    session = world.sign_in("ada@example.org", given).get_json()
    assert session["must_change_password"] is True
    refused = world.call("PATCH", "/v1/me", session["token"], {"name": "A"})
    assert (refused.status_code, refused.get_json()["code"]) == (403, "password_change_required")
    body = {"old": given, "new": "another good one"}
    assert world.call("POST", "/v1/me/password", session["token"], body).status_code == 200
    assert world.call("PATCH", "/v1/me", session["token"], {"name": "A"}).status_code == 200
    assert world.sign_in("ada@example.org", "another good one").get_json()["must_change_password"] is False


def test_my_name_is_changed_for_me_alone(world: World) -> None:
    world.person("acme", "ada")
    world.person("acme", "bob")
    answer = world.call("PATCH", "/v1/me", world.token("ada"), {"name": "  Ada L. "})
    assert answer.get_json() == {
        "user_id": "ada",
        "org_id": "acme",
        "name": "Ada L.",
        "email": "ada@example.org",
        "kind": "person",
    }
    assert world.rows("SELECT user_id, name FROM console.people ORDER BY 1") == [("ada", "Ada L."), ("bob", "Bob")]


@pytest.mark.parametrize(
    ("raw", "media_type", "status"),
    [
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[" * 20_000, "application/json", 400),
        (b'{"email": "a@b", "email": "c@d", "password": "x"}', "application/json", 400),
        (b'{"email": "a@b", "password": 7}', "application/json", 400),
        (b'{"email": "a\\u0000@b", "password": "x"}', "application/json", 400),
        (b'{"email": "a@b", "password": "\\ud800"}', "application/json", 400),
        (b'{"email": "a@b", "password": "x", "more": 1}', "application/json", 400),
        (b'{"email": "a@b", "password": "\\u0000"}', "application/json", 401),
        (b'{"email": "a@b", "password": "x"}', "text/plain", 415),
        (b'"' + b"x" * 1_100_000 + b'"', "application/json", 413),
    ],
)
def test_a_bad_body_is_a_problem_with_a_code(world: World, raw: bytes, media_type: str, status: int) -> None:
    answer = world.client.post("/v1/sessions", data=raw, content_type=media_type)
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    assert answer.get_json()["code"]


def test_an_unknown_path_and_an_unknown_method_are_problems(world: World) -> None:
    unknown, method = world.client.get("/v1/nothing"), world.client.get("/v1/sessions")
    assert (unknown.status_code, unknown.get_json()["code"]) == (404, "not_found")
    assert (method.status_code, method.get_json()["code"]) == (405, "method_not_allowed")
    assert "POST" in method.headers["Allow"]


def test_calls_are_counted_by_route_and_outcome(world: World) -> None:
    world.sign_in("nobody@example.org")
    text = world.client.get("/metrics").get_data(as_text=True)
    assert (
        'keyledger_console_requests_total{method="POST",outcome="bad_credentials",route="/v1/sessions",status="401"} 1.0'
        in text
    )


def test_the_checker_is_told_from_where_and_with_what_a_call_came(world: World) -> None:
    world.person("acme", "ada")
    world.token("ada")
    asked = world.ledger.callers[-1]
    assert asked["ip"] == "127.0.0.1"
    assert asked["user_agent"].startswith("Werkzeug")
