"""The full key is on the screen once: reload, Back and Forward do not bring it again, and neither makes a second key."""

import re

from playwright.sync_api import Page, expect

from tests.browser.actions import account, create_key, row
from tests.browser.conftest import Visit
from tests.fault.organisation import Org


def test_the_full_key_is_gone_after_reload(visit: Visit, shared_org: Org) -> None:
    page = account(visit(), shared_org)
    key = create_key(page, "reloaded")
    page.reload()
    _is_gone(page, key)
    expect(row(page, "reloaded")).to_have_count(1)


def test_the_full_key_is_gone_after_back_and_forward(visit: Visit, shared_org: Org) -> None:
    visitor = visit()
    page = account(visitor, shared_org)
    key = create_key(page, "back and forth")
    page.goto("/account/password")
    _is_gone(visitor.back(), key)
    _is_gone(visitor.back(), key)
    page.go_forward(wait_until="commit")
    _is_gone(page, key)
    page.goto("/account")
    expect(row(page, "back and forth")).to_have_count(1)


def test_without_javascript_sending_the_form_again_makes_no_second_key(visit: Visit, shared_org: Org) -> None:
    page = account(visit(javascript=False), shared_org)
    key = create_key(page, "sent again")
    page.reload()  # Sends the form again, as a browser does after it asked.
    expect(page.get_by_role("heading", name="was created before")).to_be_visible()
    _is_gone(page, key)
    page.goto("/account")
    expect(row(page, "sent again")).to_have_count(1)


def test_the_copy_button_puts_the_full_key_on_the_clipboard(visit: Visit, shared_org: Org) -> None:
    visitor = visit()
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = account(visitor, shared_org)
    key = create_key(page, "copied")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name=re.compile("Copied"))).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == key


def _is_gone(page: Page, key: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert key not in page.content()
    assert key[-49:] not in page.content()
