"""Everything works with JavaScript off."""

from playwright.sync_api import Page, expect

from tests.browser.actions import answer, ask_to_revoke, create_key, fact, row, sign_in
from tests.browser.conftest import Visit
from tests.end_to_end.system import System
from tests.fault.organisation import Org


def test_a_member_creates_and_revokes_a_key_without_javascript(visit: Visit, shared_org: Org) -> None:
    page = sign_in(visit(javascript=False), shared_org, "member")
    page.goto("/account")
    key = create_key(page, "plain")
    page.goto("/account")
    assert key not in page.content()
    ask_to_revoke(page, "plain")
    expect(page.get_by_role("heading", level=1)).to_contain_text("plain")
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    expect(page.get_by_role("status").get_by_text("“plain” was revoked.")).to_be_visible()
    expect(row(page, "plain")).to_have_count(0)
    shared_org.system.validates_as(key, "REVOKED")


def test_whoever_changes_their_mind_on_the_confirmation_page_revokes_nothing(visit: Visit, shared_org: Org) -> None:
    shared_org.create("member", "kept")
    page = sign_in(visit(javascript=False), shared_org, "member")
    page.goto("/account")
    ask_to_revoke(page, "kept")
    page.get_by_role("link", name="Cancel").click()
    expect(row(page, "kept")).to_have_count(1)


def test_an_admin_adds_a_person_who_signs_in_and_out_without_javascript(visit: Visit, shared_org: Org) -> None:
    admins = sign_in(visit(javascript=False), shared_org, "admin")
    admins.goto(f"/orgs/{shared_org.id}/users/new")
    admins.get_by_label("Name").fill("Lise Meitner")
    admins.get_by_label("E-mail").fill(f"lise@{shared_org.id}.test")
    admins.get_by_role("button", name="Add").click()
    password = admins.get_by_role("status", name="Temporary password").inner_text()
    page = visit(javascript=False).sign_in(f"lise@{shared_org.id}.test", password)
    _choose_password(page, password, "a password of her own 1938")
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()


def test_an_admin_disables_a_user_without_javascript(visit: Visit, org: Org, system: System) -> None:
    key = org.create("member", "the one that stops")["key"]
    page = sign_in(visit(javascript=False), org, "admin")
    page.goto(f"/orgs/{org.id}/users/{org.users['member']}")
    page.get_by_role("link", name="Disable").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Disable member?")
    expect(page.get_by_role("main")).to_contain_text("1 key will stop working at once.")
    system.validates_as(key, "VALID")
    answer(page, "Disable")
    expect(fact(page, "Status")).to_have_text("Disabled")
    system.validates_as(key, "OWNER_DISABLED")


def test_an_admin_turns_keys_off_without_javascript(visit: Visit, org: Org, system: System) -> None:
    key = org.create("member", "the one that stops")["key"]
    system.validates_as(key, "VALID")
    page = sign_in(visit(javascript=False), org, "admin")
    page.goto(f"/orgs/{org.id}")
    page.get_by_role("link", name="Turn API keys off").click()
    expect(page.get_by_role("main")).to_contain_text("1 key of 1 user will stop")
    answer(page, "Turn API keys off")
    expect(page.get_by_text("API keys are turned off.")).to_be_visible()
    system.validates_as(key, "ORG_KEYS_DISABLED")


def test_an_admin_revokes_several_keys_without_javascript(visit: Visit, shared_org: Org, system: System) -> None:
    keys = [shared_org.create("member", name) for name in ("one of two", "two of two")]
    page = sign_in(visit(javascript=False), shared_org, "admin")
    page.goto(f"/orgs/{shared_org.id}/keys")
    for key in keys:
        page.get_by_label(f"Select {key['name']}", exact=True).check()
    page.get_by_role("button", name="Revoke selected").click()
    page.get_by_role("button", name="Revoke 2 keys").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("2 keys were revoked")
    for key in keys:
        system.validates_as(key["key"], "REVOKED")


def test_a_member_renames_a_key_without_javascript(visit: Visit, shared_org: Org) -> None:
    key = shared_org.create("member", "as it was called")
    page = sign_in(visit(javascript=False), shared_org, "member")
    page.goto(f"/orgs/{shared_org.id}/keys/{key['key_id']}")
    page.get_by_role("textbox", name="Name").fill("as it is called")
    page.get_by_role("button", name="Save name").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("as it is called")
    expect(page.get_by_role("main")).to_contain_text("Renamed to “as it is called” by you")


def test_an_auditor_searches_the_history_page_by_page_without_javascript(visit: Visit, org: Org) -> None:
    org.add("auditor", role="auditor")
    keys = [org.create("member", f"number {number}")["key_id"] for number in range(1, 27)]
    page = sign_in(visit(javascript=False), org, "auditor")
    page.get_by_role("link", name="History", exact=True).click()
    page.get_by_label("What happened").select_option("API key created")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(25)
    page.get_by_role("link", name="Next page").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(row(page, "number 26")).to_be_visible()
    page.get_by_text("More: a key").click()
    page.get_by_label("Key id").fill(keys[2])
    page.get_by_label("Not before (UTC)").fill("2026-01-01T00:00")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("Not before (UTC)")).to_have_value("2026-01-01T00:00")
    page.get_by_role("link", name="number 3").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("number 3")


def _choose_password(page: Page, old: str, new: str) -> None:
    expect(page).to_have_url("/account/password")
    page.locator("[name=old]").fill(old)
    page.locator("[name=new]").fill(new)
    page.locator("[name=again]").fill(new)
    page.get_by_role("button", name="Change password").click()
