"""Pages stay true while they are open: what others do shows without a reload."""

from playwright.sync_api import Page, expect

from tests.browser.actions import cell, create_key, own_keys, revoke, row, sign_in
from tests.browser.conftest import Visit
from tests.end_to_end.system import System
from tests.fault.organisation import Org


def test_a_key_that_an_admin_revokes_leaves_its_owners_table_without_a_reload(visit: Visit, org: Org) -> None:
    mine = sign_in(visit(), org, "member")
    create_key(mine, "doomed")
    mine.goto("/account")
    expect(row(mine, "doomed")).to_be_visible()
    _mark(mine)
    admins = sign_in(visit(), org, "admin")
    admins.goto(f"/orgs/{org.id}/keys")
    revoke(admins, "doomed")
    expect(row(mine, "doomed")).to_have_count(0)
    assert _is_marked(mine)


def test_a_use_shows_in_the_open_table_without_a_reload(visit: Visit, org: Org, system: System) -> None:
    page = sign_in(visit(), org, "member")
    key = create_key(page, "busy")
    page.goto("/account")
    expect(cell(page, "busy", "Last used")).to_have_text("never")
    _mark(page)
    system.validates_as(key, "VALID")
    expect(cell(page, "busy", "Last used")).not_to_have_text("never")
    assert _is_marked(page)


def test_a_new_key_shows_in_the_admins_open_table_without_a_reload(visit: Visit, org: Org) -> None:
    page = sign_in(visit(), org, "admin")
    page.goto(f"/orgs/{org.id}/keys")
    _mark(page)
    org.create("member", "fresh")
    expect(row(page, "fresh")).to_be_visible()
    assert _is_marked(page)


def test_the_section_leaves_the_open_page_when_keys_are_turned_off_and_a_late_form_is_refused(
    visit: Visit, org: Org
) -> None:
    without = visit(javascript=False)
    page, late = sign_in(visit(), org, "member"), sign_in(without, org, "member")
    for one in (page, late):
        one.goto("/account")
        expect(own_keys(one)).to_be_visible()
    _mark(page)
    org.made("admin", "PUT", f"{org.path}/keys-enabled", {"enabled": False})
    expect(own_keys(page)).to_have_count(0)
    assert _is_marked(page)
    own_keys(late).get_by_label("Name").fill("too late")
    without.expect(409)
    own_keys(late).get_by_role("button", name="Create", exact=True).click()
    expect(late.get_by_role("alert")).to_contain_text("turned off")
    assert org.read("/keys?name=too late").json["items"] == []


def test_what_is_being_typed_survives_a_refresh_of_the_table_below(visit: Visit, org: Org) -> None:
    page = sign_in(visit(), org, "member")
    page.goto("/account")
    own_keys(page).get_by_label("Name").fill("half a na")
    org.create("member", "appears meanwhile")
    expect(row(page, "appears meanwhile")).to_be_visible()
    expect(own_keys(page).get_by_label("Name")).to_have_value("half a na")
    expect(own_keys(page).get_by_label("Name")).to_be_focused()


def _mark(page: Page) -> None:
    # A reload would lose it.
    page.evaluate("document.documentElement.dataset.marked = 'yes'")


def _is_marked(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.dataset.marked === 'yes'"))
