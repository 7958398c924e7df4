"""Every sentence of the help page, on the screen of the running system: what is visible and what is absent."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.actions import (
    account,
    answer,
    ask_to_revoke,
    cell,
    create_key,
    fact,
    full_key,
    own_keys,
    revoke,
    row,
    sign_in,
    sign_in_operator,
)
from tests.browser.conftest import Visit, new_org
from tests.end_to_end.system import System
from tests.fault.organisation import Org
from tests.integration.oidc_provider import Provider
from tests.waiting import eventually


@pytest.fixture
def quiet_org(system: System) -> Org:
    """An organisation whose keys are off."""
    org = new_org(system)
    _switch(org, on=False)
    return org


def test_a_key_made_on_the_page_works_for_an_automation(visit: Visit, shared_org: Org, system: System) -> None:
    page = account(visit(), shared_org)
    own_keys(page).get_by_text("More").click()
    own_keys(page).get_by_label("Scopes").fill("keys:read")
    key = create_key(page, "automation")
    system.validates_as(key, "VALID")
    me = system.call("read", "GET", "/v1/me", token=key)
    assert (me.status, me.json["org_id"]) == (200, shared_org.id)


def test_where_single_sign_on_is_enforced_passwords_are_refused_and_keys_go_on_working(
    visit: Visit, org: Org, system: System, provider: Provider
) -> None:
    key = create_key(account(visit(), org), "automation")
    admin = sign_in(visit(), org, "admin")
    admin.get_by_role("link", name="Organisation").click()
    admin.get_by_role("link", name="Refuse passwords").click()
    answer(admin, "Refuse passwords")
    visitor = visit(also=provider.issuer)
    visitor.expect(403)
    page = visitor.opens("/sign-in")
    page.get_by_label("E-mail").fill(f"member@{org.id}.test")
    page.get_by_label("Password").fill(org.password("member"))
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("single sign-on")
    system.validates_as(key, "VALID")
    provider.knows("grace", email=f"member@{org.id}.test", email_verified=True)
    page.get_by_role("link", name="Sign in with Acme Login").click()
    page.locator("input[name=sub]").fill("grace")
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{visitor.console}/account")
    expect(row(page, "automation")).to_be_visible()


def test_an_admin_adds_a_service_account_and_makes_a_key_with_only_the_rights_given(
    visit: Visit, shared_org: Org, system: System
) -> None:
    page = sign_in(visit(), shared_org, "admin")
    page.get_by_role("link", name="Add a user").click()
    page.get_by_role("link", name="A service account").click()
    page.get_by_label("Name").fill("sequencer import")
    expect(page.get_by_label("E-mail")).to_have_count(0)
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("sequencer import")
    expect(fact(page, "Kind")).to_have_text("Service account")
    expect(page.get_by_role("link", name="Reset password")).to_have_count(0)
    page.get_by_label("Name").fill("samples")
    page.get_by_text("More").click()
    page.get_by_label("Scopes").fill("samples:read")
    page.get_by_role("button", name="Create", exact=True).click()
    key = full_key(page)
    system.validates_as(key, "VALID")
    assert system.validate(key, scopes=["samples:write"])["code"] == "INSUFFICIENT_SCOPE"


def test_an_admin_turns_keys_on_and_then_users_have_them(visit: Visit, quiet_org: Org) -> None:
    member = account(visit(), quiet_org)
    expect(own_keys(member)).to_have_count(0)
    admin = sign_in(visit(), quiet_org, "admin")
    admin.get_by_role("link", name="Organisation").click()
    admin.get_by_role("link", name="Turn API keys on").click()
    answer(admin, "Turn API keys on")
    expect(admin.get_by_text("API keys are turned on.")).to_be_visible()
    expect(own_keys(member)).to_be_visible()


def test_the_vendors_operator_turns_keys_off_and_on_seeing_the_effect_before(
    visit: Visit, org: Org, system: System
) -> None:
    key = org.create("member", "the one that stops")["key"]
    system.validates_as(key, "VALID")
    page = sign_in_operator(visit(), system)
    page.get_by_role("link", name=org.id).first.click()
    page.get_by_role("link", name="Turn API keys off").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 key of 1 user will stop")
    system.validates_as(key, "VALID")
    page.get_by_label("Reason").fill("asked for by the customer")
    answer(page, "Turn API keys off")
    expect(page.get_by_text("API keys are turned off.")).to_be_visible()
    system.validates_as(key, "ORG_KEYS_DISABLED")
    page.get_by_role("link", name="Turn API keys on").click()
    answer(page, "Turn API keys on")
    system.validates_as(key, "VALID")


def test_a_member_may_neither_see_nor_use_the_switch(visit: Visit, shared_org: Org) -> None:
    visitor = visit()
    page = account(visitor, shared_org)
    expect(page.get_by_role("link", name="Organisation")).to_have_count(0)
    visitor.expect(403)
    page.goto(f"/orgs/{shared_org.id}/keys-enabled?enabled=0")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not allowed")


def test_nothing_about_keys_is_on_the_account_page_until_they_are_turned_on(visit: Visit, quiet_org: Org) -> None:
    for who in ("member", "admin"):
        page = account(visit(), quiet_org, who)
        expect(own_keys(page)).to_have_count(0)
        expect(page.get_by_role("main")).not_to_contain_text("API key")
        expect(page.get_by_role("button", name="Create")).to_have_count(0)


@pytest.mark.parametrize("who", ["member", "admin"])
def test_any_user_creates_a_key_with_a_name_and_one_click(visit: Visit, shared_org: Org, who: str) -> None:
    page = account(visit(), shared_org, who)
    key = create_key(page, f"by the {who}")
    shared_org.system.validates_as(key, "VALID")
    expect(row(page, f"by the {who}")).to_have_count(1)


def test_the_person_icon_at_the_far_right_leads_to_the_account(visit: Visit, shared_org: Org) -> None:
    page = sign_in(visit(), shared_org, "admin")
    icon = page.get_by_role("banner").get_by_role("link", name="Account")
    others = page.get_by_role("banner").locator("a, button").all()
    assert max(_box(other)["x"] for other in others) == _box(icon)["x"]
    assert len(others) > 1
    icon.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your account")


def test_the_account_page_has_basic_details_and_changes_the_name(visit: Visit, org: Org) -> None:
    page = account(visit(), org)
    expect(fact(page, "Name")).to_have_text("member")
    expect(fact(page, "E-mail")).to_have_text(f"member@{org.id}.test")
    expect(fact(page, "Organisation")).to_have_text(org.id)
    expect(fact(page, "Role")).to_have_text(re.compile("member", re.IGNORECASE))
    page.get_by_label("Change your name").fill("Grace Hopper")
    page.get_by_role("button", name="Save name").click()
    expect(fact(page, "Name")).to_have_text("Grace Hopper")


def test_the_account_page_changes_the_password_and_signs_out_everywhere_else(visit: Visit, org: Org) -> None:
    elsewhere, here = visit(), visit()
    for visitor in (elsewhere, here):
        visitor.sign_in(f"member@{org.id}.test", org.password("member"))
    page = here.opens("/account")
    page.get_by_role("link", name="Change password").click()
    new = "quite another password 1906"
    for label, text in (("Old password", org.password("member")), ("New password", new), ("New password, again", new)):
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_text("Your password was changed.")).to_be_visible()
    expect(elsewhere.page.get_by_text("You are signed out")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    here.sign_in(f"member@{org.id}.test", new)


def test_whoever_cannot_see_the_section_has_keys_turned_off(visit: Visit, org: Org) -> None:
    page = account(visit(), org)
    expect(own_keys(page)).to_be_visible()
    _switch(org, on=False)
    expect(own_keys(page)).to_have_count(0)
    _switch(org, on=True)
    expect(own_keys(page)).to_be_visible()


def test_the_name_says_what_a_key_is_for_is_unique_and_can_be_changed(visit: Visit, org: Org) -> None:
    visitor = visit()
    page = account(visitor, org)
    create_key(page, "import 2026-11-23")
    visitor.expect(409)
    own_keys(page).get_by_label("Name").fill("import 2026-11-23")
    own_keys(page).get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("name already")
    row(page, "import 2026-11-23").get_by_role("link", name="import 2026-11-23", exact=True).click()
    page.get_by_role("textbox", name="Name").fill("import of plates")
    page.get_by_role("button", name=re.compile("Save|Rename")).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("import of plates")
    page.goto("/account")
    expect(row(page, "import of plates")).to_have_count(1)
    expect(row(page, "import 2026-11-23")).to_have_count(0)


def test_the_full_key_is_seen_once_with_the_advice_to_save_it(visit: Visit, shared_org: Org) -> None:
    page = account(visit(), shared_org)
    key = create_key(page, "seen once")
    expect(page.get_by_text("only time the full key is shown")).to_be_visible()
    expect(page.get_by_text("password manager")).to_be_visible()
    expect(page.get_by_role("button", name="Copy")).to_be_visible()
    page.get_by_role("link", name="I have saved it").click()
    expect(row(page, "seen once")).to_have_count(1)
    assert key not in page.content()


def test_the_table_of_ones_keys_tells_what_there_is_to_tell(visit: Visit, shared_org: Org, system: System) -> None:
    key = shared_org.create("member", "told in full")
    page = account(visit(), shared_org)
    expect(cell(page, "told in full", "Key id")).to_have_text(key["key_id"])
    expect(cell(page, "told in full", "Created")).not_to_be_empty()
    expect(cell(page, "told in full", "Expires")).to_have_text("never")
    expect(cell(page, "told in full", "Last used")).to_have_text("never")
    assert key["key"] not in page.content()
    system.validates_as(key["key"], "VALID")
    used = cell(page, "told in full", "Last used").locator("time")
    expect(used).to_have_text(re.compile("just now|seconds ago"))
    expect(used).to_have_attribute("title", re.compile(r"\d:\d\d:\d\d"))


def test_revoke_asks_once_removes_the_row_and_deactivates_the_key(
    visit: Visit, shared_org: Org, system: System
) -> None:
    key = shared_org.create("member", "to be revoked")["key"]
    system.validates_as(key, "VALID")
    page = account(visit(), shared_org)
    ask_to_revoke(page, "to be revoked")
    expect(page.get_by_role("dialog")).to_contain_text("to be revoked")
    page.get_by_role("dialog").get_by_role("link", name="Cancel").click()
    system.validates_as(key, "VALID")
    revoke(page, "to be revoked")
    system.validates_as(key, "REVOKED")
    page.reload()
    expect(row(page, "to be revoked")).to_have_count(0)


def test_from_the_users_table_admins_get_to_all_active_keys_with_owner_and_last_use(
    visit: Visit, shared_org: Org, system: System
) -> None:
    key = shared_org.create("member", "somebody else's")["key"]
    shared_org.create("admin", "the admin's")
    gone = shared_org.create("member", "long gone")
    shared_org.made("member", "DELETE", f"{shared_org.path}/keys/{gone['key_id']}")
    system.validates_as(key, "VALID")
    page = sign_in(visit(), shared_org, "admin")
    page.get_by_role("link", name="Users").first.click()
    page.get_by_role("link", name="Show API Keys").click()
    expect(cell(page, "somebody else's", "Owner")).to_contain_text("member")
    expect(cell(page, "somebody else's", "Last used").locator("time")).to_be_visible()
    expect(cell(page, "the admin's", "Owner")).to_contain_text("admin")
    expect(cell(page, "the admin's", "Last used")).to_have_text("never")
    expect(row(page, "long gone")).to_have_count(0)


def test_members_do_not_see_the_users_or_the_keys_of_others(visit: Visit, shared_org: Org) -> None:
    visitor = visit()
    page = account(visitor, shared_org)
    for name in ("Users", "API keys", "Show API Keys"):
        expect(page.get_by_role("link", name=name)).to_have_count(0)
    visitor.expect(403)
    for path in ("users", "keys"):
        page.goto(f"/orgs/{shared_org.id}/{path}")
        expect(page.get_by_role("heading", level=1)).to_have_text("Not allowed")


@pytest.mark.parametrize("owner", ["member", "admin"])
def test_admins_revoke_any_users_key_including_their_own(
    visit: Visit, shared_org: Org, system: System, owner: str
) -> None:
    key = shared_org.create(owner, f"revoked for {owner}")["key"]
    page = sign_in(visit(), shared_org, "admin")
    page.goto(f"/orgs/{shared_org.id}/keys")
    revoke(page, f"revoked for {owner}")
    expect(row(page, f"revoked for {owner}")).to_have_count(0)
    system.validates_as(key, "REVOKED")


def test_a_click_on_a_users_name_shows_details_current_keys_and_past_ones(
    visit: Visit, shared_org: Org, system: System
) -> None:
    key = shared_org.create("member", "current")["key"]
    page = sign_in(visit(), shared_org, "admin")
    row(page, f"member@{shared_org.id}.test").get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("member")
    expect(fact(page, "E-mail")).to_have_text(f"member@{shared_org.id}.test")
    expect(fact(page, "Status")).to_have_text("Active")
    revoke(page, "current")
    system.validates_as(key, "REVOKED")
    page.get_by_role("link", name="Past keys").click()
    expect(cell(page, "current", "Ended")).to_contain_text("Revoked")


def test_the_page_of_a_key_tells_its_whole_history(visit: Visit, shared_org: Org, system: System) -> None:
    key = shared_org.create("member", "with a history")
    system.validates_as(key["key"], "VALID")
    for _ in range(2):
        assert system.validate(key["key"])["code"] == "VALID"
    why = {"reason": "unused", "comment": "a robot does it now"}
    shared_org.made("admin", "DELETE", f"{shared_org.path}/keys/{key['key_id']}", why)
    eventually(lambda: _uses(shared_org, key["key_id"]) == 3, 15, "three uses to be counted")
    eventually(lambda: len(_history(shared_org, key["key_id"])) == 2, 15, "both of its events")
    events = _history(shared_org, key["key_id"])
    assert [event["type"] for event in events] == ["KeyCreated", "KeyRevoked"]
    page = sign_in(visit(), shared_org, "admin")
    page.goto(f"/orgs/{shared_org.id}/keys/{key['key_id']}")
    timeline = page.locator("ol.timeline")
    expect(timeline).to_contain_text("Created as “with a history” by member")
    expect(timeline).to_contain_text("Used 3 times")
    expect(timeline).to_contain_text("Revoked by you: it is not used any more: a robot does it now")
    for event in events:
        expect(timeline).to_contain_text(f"revision {event['revision']} · {event['hash'][:12]}")
    expect(page.locator("svg.chart rect")).not_to_have_count(0)


def test_the_page_of_a_revoked_key_says_that_it_is_still_being_tried(
    visit: Visit, shared_org: Org, system: System
) -> None:
    key = shared_org.create("member", "revoked too late")
    shared_org.made("member", "DELETE", f"{shared_org.path}/keys/{key['key_id']}")
    system.validates_as(key["key"], "REVOKED")
    eventually(lambda: _uses(shared_org, key["key_id"]), 15, "the refused use to be counted")
    page = sign_in(visit(), shared_org, "admin")
    page.goto(f"/orgs/{shared_org.id}/keys/{key['key_id']}")
    expect(page.get_by_text("Still being tried from an unknown address (1 time, last just now).")).to_be_visible()
    expect(page.locator("svg.chart rect.refused")).to_have_count(1)


def test_an_auditor_sees_all_keys_and_is_offered_nothing_that_changes_them(visit: Visit, org: Org) -> None:
    org.add("auditor", role="auditor")
    org.create("member", "audited")
    page = sign_in(visit(), org, "auditor")
    page.goto(f"/orgs/{org.id}/keys")
    expect(row(page, "audited")).to_be_visible()
    expect(page.get_by_role("link", name="Revoke")).to_have_count(0)
    page.goto(f"/orgs/{org.id}/users")
    expect(page.get_by_role("link", name="Add a user")).to_have_count(0)


def _switch(org: Org, *, on: bool) -> None:
    org.made("operator", "PUT", f"{org.path}/keys-enabled", {"enabled": on})


def _history(org: Org, key_id: str) -> list[Any]:
    items = org.read(f"/keys/{key_id}/history").json.get("items", [])
    return [item for item in items if item["revision"] is not None and item["type"] != "KeyUsed"]


def _uses(org: Org, key_id: str) -> int:
    return sum(one["count"] for one in org.read(f"/keys/{key_id}/usage").json.get("items", []))


def _box(element: Any) -> Any:
    box = element.bounding_box()
    assert box is not None
    return box
