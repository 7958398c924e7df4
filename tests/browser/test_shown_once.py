"""The full key is on the screen once: reload, Back and Forward do not bring it again, and neither makes a second key."""

import re

from playwright.sync_api import Page, expect

from tests.browser.actions import create_key, own_keys, row, sign_in
from tests.browser.conftest import Visit
from tests.fault.organisation import Org


def test_the_full_key_is_gone_after_reload(visit: Visit, org: Org) -> None:
    page = _on_account(visit, org)
    key = create_key(page, "nightly import")
    page.reload()
    _is_gone(page, key)
    expect(row(page, "nightly import")).to_have_count(1)


def test_the_full_key_is_gone_after_back_and_forward(visit: Visit, org: Org) -> None:
    page = _on_account(visit, org)
    key = create_key(page, "nightly import")
    page.goto("/account/password")
    page.go_back()
    _is_gone(page, key)
    page.go_back()
    _is_gone(page, key)
    page.go_forward()
    _is_gone(page, key)
    expect(row(page, "nightly import")).to_have_count(1)


def test_without_javascript_sending_the_form_again_makes_no_second_key(visit: Visit, org: Org) -> None:
    page = _on_account(visit, org, javascript=False)
    key = create_key(page, "nightly import")
    page.reload()  # Sends the form again, as a browser does after it asked.
    expect(page.get_by_role("heading", name="was created before")).to_be_visible()
    _is_gone(page, key)
    page.goto("/account")
    expect(row(page, "nightly import")).to_have_count(1)


def test_the_copy_button_puts_the_full_key_on_the_clipboard(visit: Visit, org: Org) -> None:
    visitor = visit()
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = sign_in(visitor, org, "member")
    key = create_key(page, "nightly import")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name=re.compile("Copied"))).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == key


def _on_account(visit: Visit, org: Org, **how: object) -> Page:
    page = sign_in(visit(**how), org, "member")
    page.goto("/account")
    expect(own_keys(page)).to_be_visible()
    return page


def _is_gone(page: Page, key: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert key not in page.content()
    assert key[-49:] not in page.content()
