"""Pages that only come as the answer to a form are accessible and fit a phone, too."""

from playwright.sync_api import Page, expect

from tests.browser.accessibility import check_looks
from tests.browser.actions import end_sessions, own_keys, sign_in, sign_in_here
from tests.browser.conftest import Visit
from tests.browser.visitor import Visitor
from tests.end_to_end.system import System
from tests.fault.organisation import Org


def test_the_page_with_a_temporary_password(visit: Visit, shared_org: Org) -> None:
    visitor = visit()
    page = sign_in(visitor, shared_org, "admin")
    page.goto(f"/orgs/{shared_org.id}/users/new")
    page.get_by_label("Name").fill("Emmy Noether")
    page.get_by_label("E-mail").fill(f"emmy@{shared_org.id}.test")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status", name="Temporary password")).to_be_visible()
    check_looks(visitor)


def test_the_account_page_with_a_refused_form(visit: Visit, shared_org: Org) -> None:
    shared_org.create("member", "taken")
    visitor = visit()
    sign_in(visitor, shared_org, "member")
    visitor.expect(409)
    page = _create(visitor, "taken")
    expect(page.get_by_role("alert")).to_contain_text("name already")
    check_looks(visitor)


def test_the_sign_in_page_with_an_error(visit: Visit) -> None:
    visitor = visit()
    visitor.expect(401)
    page = visitor.opens("/sign-in")
    sign_in_here(page, "nobody@nowhere.test", "a wrong password")
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    check_looks(visitor)


def test_the_pages_of_a_form_whose_session_ended(visit: Visit, org: Org, system: System) -> None:
    visitor = visit()
    email, password = f"member@{org.id}.test", org.password("member")
    page = visitor.sign_in(email, password)
    page.goto("/account")
    own_keys(page).get_by_label("Name").fill("sent too late")
    end_sessions(system, org)
    visitor.expect(401)
    own_keys(page).get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("region", name="What you typed")).to_contain_text("sent too late")
    check_looks(visitor)
    sign_in_here(page, email, password)
    expect(page.get_by_role("heading", level=1)).to_contain_text("You are signed in again")
    check_looks(visitor)


def test_the_page_of_a_form_that_is_out_of_date(visit: Visit, shared_org: Org) -> None:
    visitor = visit()
    sign_in(visitor, shared_org, "member")
    page = visitor.opens("/account")
    page.locator("#api-keys input[name=csrf]").evaluate("input => { input.value = 'of another browser' }")
    visitor.expect(403)
    own_keys(page).get_by_label("Name").fill("never sent")
    own_keys(page).get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("This form is out of date")
    check_looks(visitor)


def _create(visitor: Visitor, name: str) -> Page:
    page = visitor.opens("/account")
    own_keys(page).get_by_label("Name").fill(name)
    own_keys(page).get_by_role("button", name="Create", exact=True).click()
    return page
