"""Organisations that sign in with single sign-on only, and people whom it vouches for, on a real database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.problems import Problem
from schemas.times import wall_clock_ms
from schemas.tokens import KeySet, verify
from tests.integration.console_parts import PASSWORD, World, running_console
from tests.integration.oidc_provider import settings


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path, settings("https://login.example.org")) as made:
        made.person("acme", "ada")
        made.person("acme", "boss", "admin")
        made.person("other", "stranger", "admin")
        made.person("platform", "operator", "admin")
        yield made


@pytest.fixture
def without_provider(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        made.person("acme", "boss", "admin")
        made.person("platform", "operator", "admin")
        yield made


def set_sso_only(world: World, required: bool, who: str = "operator", org: str = "acme") -> tuple[int, str]:
    answer = world.call("PUT", f"/v1/orgs/{org}/sign-in", world.token(who), {"sso_only": required})
    return answer.status_code, answer.get_json().get("code", "")


def test_an_organisation_takes_passwords_until_its_admin_says_otherwise(world: World) -> None:
    token = world.token("boss")
    before = world.call("GET", "/v1/orgs/acme/sign-in", token)
    assert before.get_json() == {"org_id": "acme", "sso_only": False, "sso_configured": True}
    answer = world.call("PUT", "/v1/orgs/acme/sign-in", token, {"sso_only": True})
    assert answer.get_json() == {"org_id": "acme", "sso_only": True, "sso_configured": True}
    assert world.call("GET", "/v1/orgs/acme/sign-in", token).get_json()["sso_only"] is True
    assert world.call("GET", "/v1/orgs/other/sign-in", world.token("stranger")).get_json()["sso_only"] is False


def test_with_single_sign_on_only_the_right_password_is_refused_and_a_wrong_one_tells_nothing(world: World) -> None:
    assert set_sso_only(world, required=True) == (200, "")
    right, wrong = world.sign_in("ada@example.org"), world.sign_in("ada@example.org", "not the password")
    assert (right.status_code, right.get_json()["code"]) == (403, "sso_required")
    assert (wrong.status_code, wrong.get_json()["code"]) == (401, "bad_credentials")
    assert wrong.data == world.sign_in("nobody@example.org").data


def test_people_of_other_organisations_and_operators_go_on_with_passwords(world: World) -> None:
    set_sso_only(world, required=True)
    assert world.sign_in("stranger@example.org").status_code == 201
    assert world.sign_in("operator@example.org").status_code == 201


def test_turned_off_again_the_same_passwords_are_good(world: World) -> None:
    set_sso_only(world, required=True)
    assert set_sso_only(world, required=False) == (200, "")
    assert world.sign_in("ada@example.org", PASSWORD).status_code == 201


def test_where_passwords_are_refused_none_is_changed_or_given(world: World) -> None:
    mine, boss = world.token("ada"), world.token("boss")
    set_sso_only(world, required=True)
    change = world.call("POST", "/v1/me/password", mine, {"old": PASSWORD, "new": "another good one"})
    reset = world.call("POST", "/v1/orgs/acme/users/ada/password-reset", boss)
    for answer in (change, reset):
        assert (answer.status_code, answer.get_json()["code"]) == (403, "sso_required")


def test_api_keys_go_on_working_where_passwords_are_refused(world: World) -> None:
    world.ledger.api_keys = {"kl_writes": ("acme", "boss", ["keys:write"])}
    set_sso_only(world, required=True)
    new = {"name": "Robot", "kind": "service_account", "role": "member"}
    assert world.call("POST", "/v1/orgs/acme/users", "kl_writes", new).status_code == 201


def test_operators_are_never_locked_out(world: World) -> None:
    assert set_sso_only(world, required=True, org="platform") == (409, "sso_platform")
    assert set_sso_only(world, required=False, org="platform") == (200, "")


def test_without_a_provider_it_cannot_be_turned_on_but_off(without_provider: World) -> None:
    """A console whose provider was taken away must not keep an organisation outside for ever."""
    world = without_provider
    assert set_sso_only(world, required=True) == (409, "sso_not_configured")
    assert world.sign_in("boss@example.org").status_code == 201
    world.rows("INSERT INTO console.org_sign_in VALUES ('acme', true) RETURNING org_id")
    assert world.sign_in("boss@example.org").get_json()["code"] == "sso_required"
    assert set_sso_only(world, required=False) == (200, "")
    assert world.sign_in("boss@example.org").status_code == 201


@pytest.mark.parametrize("body", [{}, {"sso_only": "yes"}, {"sso_only": None}, {"sso_only": True, "org_id": "other"}])
def test_a_bad_body_changes_nothing(world: World, body: dict[str, object]) -> None:
    token = world.token("boss")
    answer = world.call("PUT", "/v1/orgs/acme/sign-in", token, body)
    assert (answer.status_code, answer.get_json()["code"]) == (400, "malformed")
    assert world.call("GET", "/v1/orgs/acme/sign-in", token).get_json()["sso_only"] is False


def test_who_is_known_by_email_gets_a_session_in_any_spelling_of_it(world: World) -> None:
    set_sso_only(world, required=True)
    session = world.console.sign_in.with_email("ADA@Example.ORG", "192.0.2.1", "browser")
    claims = verify(session.token, KeySet(world.console.keys.jwks).key_of, wall_clock_ms() / 1000)
    assert (claims.org, claims.sub, session.person.user_id) == ("acme", "ada", "ada")


def refused_email(world: World, email: str) -> tuple[int, str]:
    with pytest.raises(Problem) as refused:
        world.console.sign_in.with_email(email, "192.0.2.1", "browser")
    return refused.value.status, refused.value.code


def test_an_email_without_an_account_makes_none(world: World) -> None:
    assert refused_email(world, "nobody@example.org") == (401, "sso_refused")
    assert world.rows("SELECT count(*) FROM console.people") == [(4,)]


def test_a_service_account_with_an_email_cannot_sign_in_with_it(world: World) -> None:
    new = {"name": "Robot", "email": "robot@example.org", "kind": "service_account", "role": "admin"}
    assert world.call("POST", "/v1/orgs/acme/users", world.token("boss"), new).status_code == 201
    assert refused_email(world, "robot@example.org") == (401, "sso_refused")


def test_a_disabled_person_is_not_signed_in_by_the_provider(world: World) -> None:
    world.ledger.orgs["acme"]["ada"].active = False
    assert refused_email(world, "ada@example.org") == (403, "owner_disabled")


def test_a_temporary_password_ends_with_the_first_single_sign_on(world: World) -> None:
    """It was a way in for whoever was told it; and nobody is asked to change a password that is of no use."""
    new = {"name": "New", "email": "new@example.org", "kind": "person", "role": "member"}
    given = world.call("POST", "/v1/orgs/acme/users", world.token("boss"), new).get_json()["temporary_password"]
    session = world.console.sign_in.with_email("new@example.org", "192.0.2.1", "browser")
    assert not session.person.must_change_password
    assert world.call("PATCH", "/v1/me", session.token, {"name": "Newer"}).status_code == 200
    assert world.sign_in("new@example.org", given).status_code == 401


def test_a_password_that_was_chosen_stays_after_single_sign_on(world: World) -> None:
    world.console.sign_in.with_email("ada@example.org", "192.0.2.1", "browser")
    assert world.sign_in("ada@example.org", PASSWORD).status_code == 201


def test_a_token_for_a_known_browser_session_lives_five_minutes_and_is_good_everywhere(world: World) -> None:
    token = world.console.sign_in.token_of("acme", "ada", 2)
    now_s = wall_clock_ms() / 1000
    claims = verify(token, KeySet(world.console.keys.jwks).key_of, now_s)
    assert (claims.org, claims.sub, claims.rev) == ("acme", "ada", 2)
    assert 290 < claims.exp - now_s <= 300
    assert world.call("PATCH", "/v1/me", token, {"name": "Ada L."}).status_code == 200


@pytest.mark.parametrize("password", ["password123", "ada@example.org", "Ada Ada Ada", "qwertyuiop", "1111111111"])
def test_a_password_that_is_easy_to_guess_is_refused_with_the_reason(world: World, password: str) -> None:
    token = world.token("ada")
    change = world.call("POST", "/v1/me/password", token, {"old": PASSWORD, "new": password})
    new = {"name": "Ada", "email": "ada@example.org", "kind": "person", "role": "member", "password": password}
    added = world.call("POST", "/v1/orgs/acme/users", world.token("boss"), new)
    for answer, pointer in ((change, "/new"), (added, "/password")):
        assert (answer.status_code, answer.get_json()["code"]) == (400, "malformed")
        [error] = answer.get_json()["errors"]
        assert error["pointer"] == pointer
        assert error["detail"].endswith(".")
    assert world.sign_in("ada@example.org").status_code == 201
