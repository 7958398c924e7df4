"""Pages stay true while they are open: what others do shows without a reload."""

from playwright.sync_api import Page, expect

from tests.browser.actions import cell, create_key, fact, own_keys, revoke, row, sign_in
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


def test_a_use_shows_on_the_open_pages_of_its_key_and_of_its_organisation_with_where_it_came_from(
    visit: Visit, org: Org, system: System
) -> None:
    key = org.create("member", "far away")
    of_key, of_org = sign_in(visit(), org, "admin"), sign_in(visit(), org, "admin")
    of_key.goto(f"/orgs/{org.id}/keys/{key['key_id']}")
    of_org.goto(f"/orgs/{org.id}")
    for page, term in ((of_key, "Last used"), (of_org, "Last activity")):
        expect(fact(page, term)).to_have_text("never")
        _mark(page)
    assert system.validate(key["key"], ip="192.0.2.7", user_agent="robot/1")["code"] == "VALID"
    expect(fact(of_key, "Last used")).to_have_text("just now from 192.0.2.7 with robot/1 (told by an auth checker)")
    expect(fact(of_org, "Last activity")).to_have_text("just now")
    assert _is_marked(of_key)
    assert _is_marked(of_org)


def test_a_revoked_key_that_somebody_tries_shows_on_its_open_page_and_above_the_open_table(
    visit: Visit, org: Org, system: System
) -> None:
    key = org.create("member", "lost")
    org.made("member", "DELETE", f"{org.path}/keys/{key['key_id']}")
    of_key, of_all = sign_in(visit(), org, "member"), sign_in(visit(), org, "admin")
    of_key.goto(f"/orgs/{org.id}/keys/{key['key_id']}")
    of_all.goto(f"/orgs/{org.id}/keys")
    for page in (of_key, of_all):
        expect(page.get_by_text("still being tried")).to_have_count(0)
        _mark(page)
    assert system.validate(key["key"], ip="10.0.0.7")["code"] == "REVOKED"
    expect(of_key.get_by_text("Still being tried from 10.0.0.7 (1 time, last just now).")).to_be_visible()
    expect(row(of_all, "10.0.0.7")).to_contain_text("lost")
    assert _is_marked(of_key)
    assert _is_marked(of_all)


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
