"""What people do on the pages, in the words they see there."""

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.browser.visitor import Visitor
from tests.end_to_end.system import System
from tests.fault.organisation import Org

_COOKIES: dict[str, Any] = {}


def sign_in(visitor: Visitor, org: Org, who: str) -> Page:
    """Come as one of an organisation's people; gives the page they arrive at."""
    return _come_as(visitor, f"{who}@{org.id}.test", org.password(who))


def sign_in_operator(visitor: Visitor, system: System) -> Page:
    """Come as the operator."""
    operator = system.people()["operator"]
    return _come_as(visitor, operator["email"], operator["password"])


def _come_as(visitor: Visitor, email: str, password: str) -> Page:
    # By the page only once: to check a password takes longer than anything else here. A test that is about sessions,
    # or that ends one, uses the visitor's own `sign_in`.
    cookies = _COOKIES.get(email + visitor.console)
    if cookies:
        visitor.context.add_cookies(cookies)
        return visitor.opens("/")
    page = visitor.sign_in(email, password)
    _COOKIES[email + visitor.console] = visitor.context.cookies()
    return page


def own_keys(page: Page) -> Locator:
    """The section of the account page that is absent while keys are off."""
    return page.get_by_role("region", name="API keys")


def create_key(page: Page, name: str) -> str:
    """Create a key on the account page with nothing but a name; gives its full text as shown."""
    own_keys(page).get_by_label("Name").fill(name)
    own_keys(page).get_by_role("button", name="Create", exact=True).click()
    return full_key(page)


def full_key(page: Page) -> str:
    """The full key that the page shows."""
    shown = page.get_by_label("Full API key")
    expect(shown).to_have_text(re.compile(r"^kl_\w{72}$"))
    return shown.inner_text()


def row(page: Page, text: str) -> Locator:
    """The row of a table with this text in it."""
    return page.get_by_role("row").filter(has_text=text)


def revoke(page: Page, name: str) -> None:
    """Revoke the key in this row: one click, one question, one answer."""
    row(page, name).get_by_role("link", name="Revoke").click()
    page.get_by_role("button", name="Revoke").click()
    expect(row(page, name)).to_have_count(0)
