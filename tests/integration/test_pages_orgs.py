"""Organisations as operators, admins, auditors and members see them, and what each may change."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.console.config import OidcSettings
from tests.integration.console_parts import World, running_console
from tests.integration.page_parts import ORG, Browser, answer, asked, browser, listed, seen

SWITCH = "/v1/orgs/demo/keys-enabled"
MEMBERS_VIEW = {name: ORG[name] for name in ("org_id", "name", "keys_enabled", "revision", "registered_at", "halted")}
REFUSAL = {"code": "busy", "detail": "others are at work"}


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        yield made


@pytest.fixture
def world_with_sso(database: str, tmp_path: Path) -> Iterator[World]:
    provider = OidcSettings("http://127.0.0.1:9", "console", "secret", "Example Identity")
    with running_console(database, tmp_path, provider) as made:
        yield made


def operator(world: World) -> Browser:
    """An operator's browser; the organisation `demo` is there."""
    made = browser(world, "olga", "admin", org="platform")
    answer(world, "GET", "/v1/orgs/demo", ORG)
    return made


def orgs(world: World, *items: Any, next_cursor: str | None = None) -> None:
    answer(world, "GET", "/v1/orgs", listed(*items, next_cursor=next_cursor))


def test_operators_see_all_organisations_with_their_switch_and_counts(world: World) -> None:
    halted = {"why": "gap", "detail": "revision 4 is missing", "offsets": [7]}
    orgs(
        world, ORG, ORG | {"org_id": "beta", "name": None, "keys_enabled": False, "halted": halted, "active_keys": 1234}
    )
    page = operator(world).get("/orgs")
    text = seen(page)
    assert page.status_code == 200
    assert "Demo demo on 17 8 never" in text
    assert "beta beta halted off 1,234 8 never" in text
    assert 'href="/orgs/beta"' in page.get_data(as_text=True)
    assert "Next page" not in text
    assert asked(world, "GET", "/v1/orgs")[0][0] == {"limit": "25"}


def test_a_long_list_of_organisations_has_pages(world: World) -> None:
    orgs(world, ORG, next_cursor="next+one")
    someone = operator(world)
    first = someone.get("/orgs").get_data(as_text=True)
    assert 'href="/orgs?cursor=next%2Bone"' in first
    assert "First page" not in first
    second = someone.get("/orgs?cursor=next%2Bone").get_data(as_text=True)
    assert asked(world, "GET", "/v1/orgs")[-1][0] == {"limit": "25", "cursor": "next+one"}
    assert "First page" in second


def test_the_list_sends_only_what_is_new(world: World) -> None:
    orgs(world, ORG)
    someone = operator(world)
    refresh = someone.get("/orgs").get_data(as_text=True).split('hx-get="')[1].split('"')[0].replace("&amp;", "&")
    assert someone.get(refresh, htmx=True).status_code == 204
    orgs(world, ORG | {"active_keys": 18})
    part = someone.get(refresh, htmx=True)
    assert "Demo demo on 18 8 never" in seen(part)
    assert "<h1" not in part.get_data(as_text=True)


def test_an_organisation_is_registered_by_name_and_id(world: World) -> None:
    answer(world, "POST", "/v1/orgs", {"org_id": "acme", "name": "Acme", "revision": 1}, 201)
    someone = operator(world)
    sent = someone.post("/orgs", name=" Acme ", org_id="acme")
    assert (sent.status_code, sent.headers["Location"]) == (303, "/orgs/acme")
    assert asked(world, "POST", "/v1/orgs")[0][1] == {"name": "Acme", "org_id": "acme"}
    answer(world, "GET", "/v1/orgs/acme", ORG | {"org_id": "acme", "name": "Acme", "revision": 1})
    assert "Acme is registered." in seen(someone.get("/orgs/acme"))
    assert asked(world, "GET", "/v1/orgs/acme")[0][0] == {"min_revision": "1"}


def test_an_id_that_is_taken_is_said_beside_the_form_with_what_was_typed(world: World) -> None:
    orgs(world, ORG)
    answer(world, "POST", "/v1/orgs", {"code": "org_exists", "detail": "there is one"}, 409)
    page = operator(world).post("/orgs", name="Acme", org_id="demo")
    assert page.status_code == 409
    assert "There is an organisation with this id already." in seen(page)
    assert 'value="Acme"' in page.get_data(as_text=True)


def test_without_an_id_none_is_sent(world: World) -> None:
    answer(world, "POST", "/v1/orgs", {"org_id": "0made", "name": "Acme", "revision": 1}, 201)
    sent = operator(world).post("/orgs", name="Acme", org_id=" ")
    assert sent.headers["Location"] == "/orgs/0made"
    assert asked(world, "POST", "/v1/orgs")[0][1] == {"name": "Acme"}


def test_who_is_no_operator_gets_no_list(world: World) -> None:
    answer(world, "GET", "/v1/orgs", {"code": "forbidden", "detail": "only operators may read this"}, 403)
    page = browser(world, "ada", "admin").get("/orgs")
    assert page.status_code == 403
    assert "Your role does not allow this." in seen(page)


def test_an_admin_sees_whether_keys_are_on_and_may_change_it(world: World) -> None:
    page = browser(world, "ada", "admin").get("/orgs/demo")
    text = seen(page)
    assert "API keys on Every user may create API keys" in text
    assert "Turn API keys off" in text
    assert "17 keys of 6 users" in text
    assert "/orgs/demo/keys-enabled?enabled=0" in page.get_data(as_text=True)
    assert "halted" not in text
    assert "single sign-on" not in text


def test_an_auditor_sees_everything_and_changes_nothing(world: World) -> None:
    someone = browser(world, "otto", "auditor")
    text = seen(someone.get("/orgs/demo"))
    assert "17 keys of 6 users" in text
    assert "Turn API keys" not in text
    assert someone.get("/orgs/demo/keys-enabled?enabled=0").status_code == 403
    assert someone.get("/orgs/demo/sign-in-rule?sso_only=1").status_code == 403
    answer(world, "PUT", SWITCH, {"code": "forbidden", "detail": "no"}, 403)
    assert someone.post("/orgs/demo/keys-enabled", enabled="0").status_code == 403


def test_members_have_no_page_of_their_organisation(world: World) -> None:
    someone = browser(world, "mia")
    answer(world, "GET", "/v1/orgs/demo", MEMBERS_VIEW)
    assert someone.get("/orgs/demo").status_code == 403
    assert someone.get("/orgs/demo/keys-enabled?enabled=0").status_code == 403


def test_another_organisation_is_not_there(world: World) -> None:
    someone = browser(world, "ada", "admin")
    answer(world, "GET", "/v1/orgs/other", {"code": "not_found", "detail": "nothing"}, 404)
    for path in ("/orgs/other", "/orgs/other/keys-enabled?enabled=1", "/orgs/other/sign-in-rule?sso_only=1"):
        page = someone.get(path)
        assert page.status_code == 404
        assert "There is nothing here" in seen(page)


def test_what_turning_keys_off_stops_is_said_before(world: World) -> None:
    page = browser(world, "ada", "admin").get("/orgs/demo/keys-enabled?enabled=0&back=/orgs/demo", htmx=True)
    text = seen(page)
    assert "17 keys of 6 users will stop." in text
    assert "No key is deleted" in text
    assert "Reason" in text
    assert "<html" not in page.get_data(as_text=True)


def test_keys_are_turned_off_with_a_reason_and_the_effect_is_told(world: World) -> None:
    someone = browser(world, "ada", "admin")
    done = {"org_id": "demo", "keys_enabled": False, "revision": 10, "effective": True, "effective_ms": 1234}
    answer(world, "PUT", SWITCH, done)
    sent = someone.post("/orgs/demo/keys-enabled", enabled="0", reason="a leak", back="/orgs/demo")
    assert (sent.status_code, sent.headers["Location"]) == (303, "/orgs/demo")
    assert asked(world, "PUT", SWITCH)[0][1] == {"enabled": False, "reason": "a leak"}
    answer(world, "GET", "/v1/orgs/demo", ORG | {"keys_enabled": False})
    text = seen(someone.get("/orgs/demo"))
    assert "API keys are turned off. Refused everywhere after 1,234 ms." in text
    assert "API keys off No key of this organisation is accepted" in text
    assert "Turn API keys on" in text


def test_keys_are_turned_on_again_by_an_operator(world: World) -> None:
    someone = operator(world)
    answer(world, "GET", "/v1/orgs/demo", ORG | {"keys_enabled": False})
    text = seen(someone.get("/orgs/demo/keys-enabled?enabled=1"))
    assert "17 keys of 6 users will work again." in text
    answer(world, "PUT", SWITCH, {"org_id": "demo", "keys_enabled": True, "revision": 10})
    sent = someone.post("/orgs/demo/keys-enabled", enabled="1", reason="")
    assert sent.headers["Location"] == "/orgs/demo"
    assert asked(world, "PUT", SWITCH)[0][1] == {"enabled": True}
    assert "API keys are turned on." in seen(someone.get("/orgs/demo"))


def test_without_active_keys_it_is_said_that_nothing_stops(world: World) -> None:
    someone = browser(world, "ada", "admin")
    answer(world, "GET", "/v1/orgs/demo", ORG | {"active_keys": 0, "key_owners": 0})
    assert "There is no active key, so nothing stops now." in seen(someone.get("/orgs/demo/keys-enabled?enabled=0"))


def test_a_refused_switch_is_asked_again_with_the_reason_kept(world: World) -> None:
    answer(world, "PUT", SWITCH, REFUSAL, 503)
    page = browser(world, "ada", "admin").post(
        "/orgs/demo/keys-enabled", enabled="0", reason="a leak", once="the-same-form"
    )
    html = page.get_data(as_text=True)
    assert page.status_code == 503
    assert "Others are changing the same things right now." in seen(page)
    assert 'value="a leak"' in html
    assert 'name="enabled" value="0"' in html
    assert 'name="once" value="the-same-form"' in html


def test_a_switch_without_a_direction_is_not_there(world: World) -> None:
    someone = browser(world, "ada", "admin")
    for query in ("", "?enabled=2", "?enabled="):
        assert someone.get(f"/orgs/demo/keys-enabled{query}").status_code == 404
    assert someone.post("/orgs/demo/keys-enabled").status_code == 404
    assert asked(world, "PUT", SWITCH) == []


def test_a_form_that_is_not_this_browsers_does_nothing(world: World) -> None:
    someone = operator(world)
    for path, fields in (("/orgs", {"name": "Acme"}), ("/orgs/demo/keys-enabled", {"enabled": "0"})):
        page = someone.post(path, csrf="0" * 64, **fields)
        assert page.status_code == 403
        assert "Nothing was done." in seen(page)
    assert asked(world, "POST", "/v1/orgs") + asked(world, "PUT", SWITCH) == []


def test_a_form_that_is_out_of_date_leads_to_the_page_that_it_came_from(world: World) -> None:
    someone = operator(world)
    link = '<a href="/orgs/demo">Open the page again</a>'
    known = someone.post("/orgs/demo/keys-enabled", csrf="0" * 64, enabled="0", back="/orgs/demo")
    unknown = someone.post("/orgs/demo/keys-enabled", csrf="0" * 64, enabled="0", back="https://elsewhere.test/")
    assert link in known.get_data(as_text=True)
    assert "Open the page again and send" in seen(unknown)
    assert "again</a>" not in unknown.get_data(as_text=True)


def test_a_name_that_tries_script_is_only_a_name(world: World) -> None:
    evil = ORG | {"name": "<script>alert(1)</script>"}
    orgs(world, evil)
    someone = operator(world)
    answer(world, "GET", "/v1/orgs/demo", evil)
    for path in ("/orgs", "/orgs/demo", "/orgs/demo/keys-enabled?enabled=0"):
        html = someone.get(path).get_data(as_text=True)
        assert "<script>alert" not in html
        assert "&lt;script&gt;alert(1)" in html


def test_a_halted_organisation_says_so_and_what_it_means(world: World) -> None:
    someone = browser(world, "ada", "admin")
    halted = {"why": "fork", "detail": "revision 4 <b>", "offsets": [7, 9]}
    answer(world, "GET", "/v1/orgs/demo", ORG | {"halted": halted}, Keyledger_Halted="fork")
    text = seen(someone.get("/orgs/demo"))
    assert "There are two histories that contradict each other." in text
    assert "Only an operator can repair it" in text
    assert "revision 4 <b>" in text
    assert "7, 9" in text


def test_the_page_follows_the_switch_and_goes_on_offering_it_to_who_may(world: World) -> None:
    for user, role, offered in (("ada", "admin", True), ("otto", "auditor", False)):
        someone = browser(world, user, role)
        html = someone.get("/orgs/demo").get_data(as_text=True)
        refresh = html.split('hx-get="')[1].split('"')[0].replace("&amp;", "&")
        assert someone.get(refresh, htmx=True).status_code == 204
        answer(world, "GET", "/v1/orgs/demo", ORG | {"keys_enabled": False})
        part = seen(someone.get(refresh, htmx=True))
        assert "No key of this organisation is accepted" in part
        assert ("Turn API keys on" in part) == offered


def test_passwords_are_refused_and_taken_again(world_with_sso: World) -> None:
    world = world_with_sso
    someone = browser(world, "ada", "admin")
    assert "sign in with Example Identity or with a password" in seen(someone.get("/orgs/demo"))
    question = seen(someone.get("/orgs/demo/sign-in-rule?sso_only=1"))
    assert "Example Identity only" in question
    assert "API keys go on working." in question
    sent = someone.post("/orgs/demo/sign-in-rule", sso_only="1")
    assert (sent.status_code, sent.headers["Location"]) == (303, "/orgs/demo")
    assert world.console.sso.is_required("demo")
    text = seen(someone.get("/orgs/demo"))
    assert "Passwords of this organisation are refused from now on." in text
    assert "their passwords are refused" in text
    someone.post("/orgs/demo/sign-in-rule", sso_only="0")
    assert not world.console.sso.is_required("demo")


def test_without_single_sign_on_passwords_cannot_be_refused(world: World) -> None:
    page = browser(world, "ada", "admin").post("/orgs/demo/sign-in-rule", sso_only="1")
    assert page.status_code == 409
    assert "This console has no single sign-on to ask for." in seen(page)
    assert not world.console.sso.is_required("demo")


def test_no_rule_is_kept_for_an_organisation_that_is_not_there(world_with_sso: World) -> None:
    someone = operator(world_with_sso)
    answer(world_with_sso, "GET", "/v1/orgs/nowhere", {"code": "not_found", "detail": "nothing"}, 404)
    assert someone.post("/orgs/nowhere/sign-in-rule", sso_only="1").status_code == 404
    assert not world_with_sso.console.sso.is_required("nowhere")


def test_members_and_auditors_cannot_set_the_rule(world_with_sso: World) -> None:
    for user, role in (("mia", "member"), ("otto", "auditor")):
        page = browser(world_with_sso, user, role).post("/orgs/demo/sign-in-rule", sso_only="1")
        assert page.status_code == 403
    assert not world_with_sso.console.sso.is_required("demo")
