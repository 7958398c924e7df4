"""Adding and erasing people: the table and the ledger stay together, whatever fails in between."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from schemas.problems import Problem
from services.console.people import CLAIM_MS, PENDING_MS, NewPerson
from tests.integration.console_parts import PASSWORD, World, running_console
from tests.integration.console_stand_ins import Cut

ADA = {"name": "Ada", "email": "ada@example.org", "kind": "person", "role": "member"}


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        made.person("acme", "root", "admin")
        made.person("acme", "second", "admin")
        made.person("other", "stranger", "admin")
        yield made


def add(world: World, who: str = "root", org: str = "acme", **change: Any) -> TestResponse:
    return world.call("POST", f"/v1/orgs/{org}/users", world.token(who), ADA | change)


def people(world: World) -> list[tuple[Any, ...]]:
    return world.rows("SELECT org_id, email, status FROM console.people WHERE email LIKE 'ada%' ORDER BY 1, 2")


def members(world: World, org: str = "acme") -> int:
    return sum(user.role == "member" for user in world.ledger.orgs[org].values())


def cut_after(what: str) -> Any:
    def trouble(when: str, asked: str) -> None:
        if (when, asked) == ("after", what):
            raise Cut

    return trouble


def test_a_person_is_added_to_both_and_gets_a_temporary_password_once(world: World) -> None:
    answer = add(world)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.get_json()
    given = body.pop("temporary_password")
    assert body == {**ADA, "org_id": "acme", "user_id": body["user_id"], "revision": 3}
    assert answer.headers["Keyledger-Revision"] == "acme:3"
    assert world.ledger.orgs["acme"][body["user_id"]].role == "member"
    session = world.sign_in("ada@example.org", given).get_json()
    assert (session["user_id"], session["must_change_password"]) == (body["user_id"], True)


def test_a_person_with_a_password_given_signs_in_with_it_at_once(world: World) -> None:
    answer = add(world, password="a good password")
    assert "temporary_password" not in answer.get_json()
    assert world.sign_in("ada@example.org", "a good password").get_json()["must_change_password"] is False


def test_a_service_account_has_no_password_and_cannot_sign_in(world: World) -> None:
    answer = add(world, kind="service_account")
    assert answer.status_code == 201
    assert "temporary_password" not in answer.get_json()
    assert world.sign_in("ada@example.org", "").status_code == 401
    reset = world.call(
        "POST", f"/v1/orgs/acme/users/{answer.get_json()['user_id']}/password-reset", world.token("root")
    )
    assert reset.status_code == 404


@pytest.mark.parametrize("email", ["ada@example.org", "ADA@Example.ORG"])
def test_an_email_in_use_anywhere_in_the_installation_is_taken(world: World, email: str) -> None:
    add(world)
    answer = add(world, "stranger", "other", email=email)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "email_taken")
    assert people(world) == [("acme", "ada@example.org", "active")]
    assert len(world.ledger.orgs["other"]) == 1


def test_what_the_command_api_refuses_leaves_nothing_behind_and_its_problem_is_passed_on(world: World) -> None:
    def refuse(when: str, what: str) -> None:
        raise Problem(409, "user_limit", "no more users here")

    world.ledger.trouble = refuse
    answer = add(world)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "user_limit")
    assert people(world) == []


def test_an_unknown_outcome_is_finished_by_the_next_try_with_one_user_in_the_ledger(world: World) -> None:
    """The command was done, its answer was lost: the repeat finds it, and the password of the repeat counts."""
    world.ledger.trouble = cut_after("POST /v1/orgs/acme/users")
    assert add(world, password="the first password").status_code == 503
    assert people(world) == [("acme", "ada@example.org", "pending")]
    assert world.sign_in("ada@example.org", "the first password").status_code == 401
    world.ledger.trouble = lambda _when, _what: None
    assert add(world, password="the other password", email="ADA@example.org").status_code == 201
    assert members(world) == 1
    assert world.sign_in("ada@example.org", "the other password").status_code == 201


def test_a_service_account_without_an_email_is_finished_too(world: World) -> None:
    world.ledger.trouble = cut_after("POST /v1/orgs/acme/users")
    assert add(world, kind="service_account", email=None).status_code == 503
    world.ledger.trouble = lambda _when, _what: None
    assert add(world, kind="service_account", email=None).status_code == 201
    assert members(world) == 1
    assert world.rows("SELECT count(*) FROM console.people WHERE name = 'Ada'") == [(1,)]


def test_a_console_killed_before_it_heard_the_answer_is_finished_by_the_next_try(world: World) -> None:
    """The row of a dead process is claimed for a while, then it can be taken over."""
    new = NewPerson("acme", "Ada", "ada@example.org", "person", "member", None, must_change_password=True)
    world.console.people.reserve(new, "the-first-key")
    busy = add(world)
    assert (busy.status_code, busy.get_json()["code"]) == (503, "busy")
    assert busy.headers["Retry-After"]
    world.clock.ahead_ms = CLAIM_MS + 1
    assert world.console.people.reserve(new, "another-key") == ("the-first-key", False)


def test_a_leftover_of_another_role_is_not_mistaken_for_this_command(world: World) -> None:
    world.ledger.trouble = cut_after("POST /v1/orgs/acme/users")
    add(world)
    world.ledger.trouble = lambda _when, _what: None
    answer = add(world, role="admin")
    assert (answer.status_code, answer.get_json()["code"]) == (409, "email_taken")


def test_a_refused_repeat_keeps_the_leftover(world: World) -> None:
    """The refusal is about the repeat; whether the first try was done is as unknown as before."""
    world.ledger.trouble = cut_after("POST /v1/orgs/acme/users")
    add(world)

    def refuse(when: str, what: str) -> None:
        raise Problem(403, "forbidden", "not you")

    world.ledger.trouble = refuse
    assert add(world, "second").status_code == 403
    assert people(world) == [("acme", "ada@example.org", "pending")]


def test_a_leftover_of_yesterday_is_dropped(world: World) -> None:
    world.ledger.trouble = cut_after("POST /v1/orgs/acme/users")
    add(world)
    world.ledger.trouble = lambda _when, _what: None
    world.clock.ahead_ms = PENDING_MS + 1
    world.console.people.drop_old_pending()
    assert people(world) == []
    world.clock.ahead_ms = 0
    assert add(world, "stranger", "other").status_code == 201


def test_an_erased_person_is_gone_from_the_table_and_disabled_in_the_ledger(world: World) -> None:
    user = add(world).get_json()["user_id"]
    answer = world.call("DELETE", f"/v1/orgs/acme/users/{user}", world.token("root"))
    assert (answer.status_code, answer.get_json()["user_id"]) == (200, user)
    assert people(world) == []
    assert not world.ledger.orgs["acme"][user].active
    assert add(world).status_code == 201


def test_erasing_removes_the_person_first_and_a_repeat_finishes_it(world: World) -> None:
    user = add(world).get_json()["user_id"]

    def away(when: str, what: str) -> None:
        raise Problem(503, "outcome_unknown", "try again")

    world.ledger.trouble = away
    assert world.call("DELETE", f"/v1/orgs/acme/users/{user}", world.token("root")).status_code == 503
    assert people(world) == []
    world.ledger.trouble = lambda _when, _what: None
    assert world.call("DELETE", f"/v1/orgs/acme/users/{user}", world.token("root")).status_code == 200
    assert not world.ledger.orgs["acme"][user].active


def test_a_refused_erasure_changes_nothing(world: World) -> None:
    """The last admin stays, and can still sign in with the old password."""
    answer = world.call("DELETE", "/v1/orgs/other/users/stranger", world.token("stranger"))
    assert (answer.status_code, answer.get_json()["code"]) == (409, "last_admin")
    assert world.sign_in("stranger@example.org", PASSWORD).status_code == 201


def test_while_the_command_api_is_away_adding_says_so(world: World) -> None:
    token = world.token("root")
    world.ledger.trouble = cut_after("POST /v1/orgs/acme/users")
    answer = world.call("POST", "/v1/orgs/acme/users", token, ADA)
    assert (answer.status_code, answer.get_json()["code"]) == (503, "dependency_away")
    assert answer.headers["Retry-After"]


def test_an_operator_adds_people_anywhere(world: World) -> None:
    world.person("platform", "operator", "admin")
    assert add(world, "operator", "other").status_code == 201
    assert members(world, "other") == 1


def test_no_password_is_stored_or_counted_in_the_clear(world: World) -> None:
    given = add(world).get_json()["temporary_password"]
    add(world, email="ada2@example.org", password="a good password")
    kept = str(world.rows("SELECT p::text FROM console.people p")) + str(
        world.rows("SELECT f::text FROM console.failed_sign_ins f")
    )
    told = world.client.get("/metrics").get_data(as_text=True)
    assert "ada2@example.org" in kept
    for secret in (given, "a good password", PASSWORD):
        assert secret not in kept + told
