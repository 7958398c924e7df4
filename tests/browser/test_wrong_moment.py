"""Forms that come at the wrong moment: nothing is done that was not meant, and nothing that was typed is lost."""

import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.browser.actions import end_sessions, full_key, own_keys, row, sign_in_here
from tests.browser.conftest import Visit
from tests.browser.visitor import Visitor
from tests.end_to_end.system import System
from tests.fault.organisation import Org


def test_a_session_that_ends_in_the_middle_of_a_form_loses_nothing_that_was_typed(
    visit: Visit, org: Org, system: System
) -> None:
    visitor = visit()
    page = _typing(visitor, org, "typed before the session ended")
    end_sessions(system, org)
    visitor.expect(401)
    own_keys(page).get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("Nothing was sent yet")).to_be_visible()
    expect(page.get_by_role("region", name="What you typed")).to_contain_text("typed before the session ended")
    assert org.read("/keys").json["items"] == []
    _sign_in_here(page, org)
    expect(page.get_by_text("typed before the session ended")).to_be_visible()
    page.get_by_role("button", name="Send it now").click()
    full_key(page)
    expect(row(page, "typed before the session ended")).to_have_count(1)


def test_an_open_page_says_that_its_session_ended_and_keeps_what_is_being_typed(
    visit: Visit, org: Org, system: System
) -> None:
    page = _typing(visit(), org, "half a name")
    end_sessions(system, org)
    expect(page.locator("#banner[role=status]")).to_contain_text("You are signed out")
    expect(own_keys(page).get_by_label("Name")).to_have_value("half a name")
    with pytest.raises(PlaywrightTimeout):  # Asking on each second would only be told the same.
        page.wait_for_event("request", timeout=2500)


def test_a_form_of_an_earlier_session_does_nothing_and_shows_what_was_typed(visit: Visit, org: Org) -> None:
    visitor = visit(javascript=False)
    page = _typing(visitor, org, "typed in another session")
    visitor.context.clear_cookies()
    other = visitor.context.new_page()
    other.goto("/account")
    _sign_in_here(other, org)
    expect(other.get_by_role("heading", name="Your account")).to_be_visible()
    visitor.expect(403)
    own_keys(page).get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("typed in another session")).to_be_visible()
    assert org.read("/keys").json["items"] == []


def test_a_form_without_its_token_does_nothing(visit: Visit, org: Org) -> None:
    visitor = visit()
    page = _typing(visitor, org, "forged")
    page.locator("#api-keys input[name=csrf]").evaluate("input => { input.value = 'x' }")
    visitor.expect(403)
    own_keys(page).get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.goto("/account")
    expect(row(page, "forged")).to_have_count(0)


def test_a_form_that_is_sent_twice_makes_one_key(visit: Visit, org: Org) -> None:
    visitor = visit(javascript=False)
    first = _typing(visitor, org, "once")
    token, once = (first.locator(f"#api-keys input[name={name}]").input_value() for name in ("csrf", "once"))
    own_keys(first).get_by_role("button", name="Create", exact=True).click()
    full_key(first)
    again = visitor.context.request.post("/account/keys", form={"csrf": token, "once": once, "name": "once"})
    assert "was created before" in again.text()
    assert len(org.read("/keys").json["items"]) == 1


def _typing(visitor: Visitor, org: Org, name: str) -> Page:
    page = visitor.sign_in(f"member@{org.id}.test", org.password("member"))
    page.goto("/account")
    own_keys(page).get_by_label("Name").fill(name)
    return page


def _sign_in_here(page: Page, org: Org) -> None:
    sign_in_here(page, f"member@{org.id}.test", org.password("member"))
