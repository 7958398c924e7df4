"""What people do on the pages, in the words they see there."""

import re
from typing import Any

import psycopg
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


def sign_in_here(page: Page, email: str, password: str) -> None:
    """Sign in on the page that is shown."""
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def end_sessions(system: System, org: Org) -> None:
    """End every browser session of an organisation, as if nobody had used them for long."""
    with psycopg.connect(system.database.url) as connection:
        ended = connection.execute("UPDATE console.sessions SET seen_ms = 0 WHERE org_id = %s", [org.id])
        assert ended.rowcount > 0


def own_keys(page: Page) -> Locator:
    """The section of the account page that is absent while keys are off."""
    return page.get_by_role("region", name="API keys")


def account(visitor: Visitor, org: Org, who: str = "member") -> Page:
    """One's account page."""
    page = sign_in(visitor, org, who)
    page.get_by_role("link", name="Account").click()
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    return page


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


def cell(page: Page, text: str, heading: str) -> Locator:
    """The cell under this heading in the row with this text."""
    return row(page, text).locator(f'td[data-label="{heading}"]')


def fact(page: Page, term: str) -> Locator:
    """What a page says beside this term."""
    return (
        page.locator("dl.facts > div").filter(has=page.get_by_role("term").get_by_text(term, exact=True)).locator("dd")
    )


def ask_to_revoke(page: Page, name: str) -> None:
    """Click on Revoke in the row of this key."""
    row(page, name).locator("a[data-ask]", has_text="Revoke").click()


def answer(page: Page, button: str) -> None:
    """Say yes to the question that was asked, in a dialog or on a page of its own."""
    asked = page.get_by_role("dialog").or_(page.locator("main section.narrow"))
    asked.get_by_role("button", name=button, exact=True).click()


def revoke(page: Page, name: str) -> None:
    """Revoke the key in this row: one click, one question, one answer."""
    ask_to_revoke(page, name)
    answer(page, "Revoke")
    expect(row(page, name)).to_have_count(0)
