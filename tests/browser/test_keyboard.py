"""Everything works without a mouse, and the focus is never lost."""

from playwright.sync_api import Locator, Page, expect

from tests.browser.actions import full_key, own_keys, row, sign_in
from tests.browser.conftest import Visit
from tests.end_to_end.system import System
from tests.fault.organisation import Org


def test_a_key_is_created_and_revoked_with_the_keyboard_alone(visit: Visit, shared_org: Org, system: System) -> None:
    page = sign_in(visit(), shared_org, "member")
    page.goto("/account")
    _tab_to(page, own_keys(page).get_by_label("Name"))
    page.keyboard.type("typed by hand")
    page.keyboard.press("Enter")
    key = full_key(page)
    _tab_to(page, page.get_by_role("link", name="I have saved it"))
    page.keyboard.press("Enter")
    expect(page.get_by_label("Full API key")).to_have_count(0)
    opener = row(page, "typed by hand").get_by_role("link", name="Revoke typed by hand")
    _tab_to(page, opener)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()
    system.validates_as(key, "VALID")
    page.keyboard.press("Enter")
    _tab_to(page, page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True))
    page.keyboard.press("Enter")
    expect(row(page, "typed by hand")).to_have_count(0)
    system.validates_as(key, "REVOKED")


def test_cancel_gives_the_focus_back_to_what_opened_the_dialog(visit: Visit, shared_org: Org) -> None:
    shared_org.create("member", "thought over")
    page = sign_in(visit(), shared_org, "admin")
    page.goto(f"/orgs/{shared_org.id}/keys")
    opener = page.get_by_role("link", name="Revoke thought over")
    opener.press("Enter")
    cancel = page.get_by_role("dialog").get_by_role("link", name="Cancel")
    _tab_to(page, cancel)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()


def test_the_focus_and_the_ticks_outlast_a_refresh_of_their_table(visit: Visit, shared_org: Org) -> None:
    shared_org.create("member", "ticked")
    shared_org.create("member", "looked at")
    page = sign_in(visit(), shared_org, "admin")
    page.goto(f"/orgs/{shared_org.id}/keys")
    tick, link = page.get_by_label("Select ticked"), page.get_by_role("link", name="looked at", exact=True)
    tick.check()
    link.focus()
    before = link.element_handle()
    shared_org.create("member", "comes in between")
    expect(row(page, "comes in between")).to_be_visible()
    assert not before.evaluate("link => link.isConnected"), "the table was replaced"
    expect(link).to_be_focused()
    expect(tick).to_be_checked()
    expect(page.get_by_label("Select looked at")).not_to_be_checked()


def test_the_history_is_searched_with_the_keyboard_alone_and_keeps_the_focus_when_more_comes(
    visit: Visit, org: Org
) -> None:
    first = org.create("member", "made first")
    page = sign_in(visit(), org, "admin")
    _tab_to(page, page.get_by_role("link", name="History", exact=True))
    page.keyboard.press("Enter")
    _tab_to(page, page.get_by_label("Done by"))
    page.keyboard.type(f"member@{org.id}.test")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    link = page.get_by_role("link", name="made first")
    _tab_to(page, link)
    org.create("member", "made later")
    expect(row(page, "made later")).to_be_visible()
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("made first")
    assert page.url.endswith(f"/keys/{first['key_id']}#history-title")


def _tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until this has the focus."""
    expect(wanted).to_be_visible()
    for _ in range(100):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {wanted}")
