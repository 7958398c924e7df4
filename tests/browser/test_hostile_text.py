"""Names are text, whatever is in them: shown as they were typed, never run, never markup."""

import re
import secrets

import pytest
from playwright.sync_api import Dialog, Page, expect

from tests.browser.actions import ask_to_revoke, create_key, revoke, row, sign_in, sign_in_operator
from tests.browser.conftest import Visit
from tests.browser.visitor import PHONE_WIDTH
from tests.end_to_end.system import System
from tests.fault.organisation import Org

_HOSTILE = (
    "<script>window.ran = 1</script>",
    '"><img src=x onerror="window.ran = 1">',
    "' onmouseover='window.ran = 1' x='",
    "</title></textarea><svg onload=window.ran=1>",
    "{{ 7 * 7 }} ${7*7} %s",
)


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_key_name_is_shown_as_it_was_typed_on_every_page_that_has_it(
    visit: Visit, shared_org: Org, name: str
) -> None:
    page = sign_in(visit(), shared_org, "member")
    page.goto("/account")
    create_key(page, name)
    _is_harmless(page, name)
    page.goto("/account")
    _is_harmless(page, name)
    row(page, name).get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    _is_harmless(page, name)
    page.goto("/account")
    ask_to_revoke(page, name)
    expect(page.get_by_role("dialog")).to_contain_text(name)
    page.keyboard.press("Escape")
    admins = sign_in(visit(), shared_org, "admin")
    for path in ("history?type=KeyCreated", "keys", f"users/{shared_org.users['member']}"):
        admins.goto(f"/orgs/{shared_org.id}/{path}")
        _is_harmless(admins, name)
    revoke(admins, name)
    _nothing_ran(admins)


def test_the_name_of_a_person_is_text_too(visit: Visit, org: Org) -> None:
    page = sign_in(visit(), org, "admin")
    page.goto("/account")
    page.get_by_label("Change your name").fill(_HOSTILE[1])
    page.get_by_role("button", name="Save name").click()
    _is_harmless(page, _HOSTILE[1])
    page.goto(f"/orgs/{org.id}/users")
    _is_harmless(page, _HOSTILE[1])
    page.get_by_role("link", name=_HOSTILE[1]).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(_HOSTILE[1])
    _is_harmless(page, _HOSTILE[1])


def test_the_name_of_an_organisation_is_text_too(visit: Visit, system: System) -> None:
    name, org = "<img src=x onerror=alert(1)>", f"hostile-{secrets.token_hex(4)}"
    page = sign_in_operator(visit(), system)
    alerts: list[str] = []

    def noticed(dialog: Dialog) -> None:
        alerts.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", noticed)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Id (optional)").fill(org)
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    _is_harmless(page, name)
    for path in ("", f"/{org}", f"/{org}/keys", f"/{org}/keys-enabled?enabled=1", f"/{org}/sign-in-rule?sso_only=1"):
        page.goto(f"/orgs{path}")
        _is_harmless(page, name)
    page.goto("/orgs")
    page.get_by_role("link", name=name).first.click()
    page.get_by_role("link", name="Turn API keys on").click()
    expect(page.get_by_role("dialog")).to_contain_text(name)
    _nothing_ran(page)
    assert alerts == []


def test_long_names_do_not_widen_a_phones_page(visit: Visit, org: Org) -> None:
    org.create("member", "W" * 100)
    org.create("member", "two words " * 9 + "and an end")
    visitor = visit(width=PHONE_WIDTH)
    sign_in(visitor, org, "admin")
    at = f"/orgs/{org.id}"
    for path in (f"{at}/history", f"{at}/keys", f"{at}/users/{org.users['member']}"):
        expect(row(visitor.opens(path), "W" * 100)).to_be_visible()
        assert visitor.overflow() == 0
    visitor.page.get_by_role("link", name="W" * 100, exact=True).click()
    expect(visitor.page.get_by_role("heading", level=1)).to_contain_text("W" * 100)
    assert visitor.overflow() == 0


def test_a_search_is_shown_as_it_was_typed(visit: Visit, shared_org: Org) -> None:
    page = sign_in(visit(), shared_org, "admin")
    for path in ("keys", "users"):
        page.goto(f"/orgs/{shared_org.id}/{path}")
        page.get_by_role("searchbox").first.fill(_HOSTILE[1])
        page.get_by_role("searchbox").first.press("Enter")
        page.wait_for_url(re.compile("search="))
        expect(page.get_by_role("searchbox").first).to_have_value(_HOSTILE[1])
        _nothing_ran(page)


def _is_harmless(page: Page, name: str) -> None:
    expect(page.get_by_text(name).first).to_be_visible()
    page.get_by_text(name).first.hover()
    _nothing_ran(page)


def _nothing_ran(page: Page) -> None:
    assert page.evaluate("window.ran") is None
    assert page.locator("img, svg[onload], main [onmouseover]").count() == 0
