"""axe-core on a page as it stands, in both colour schemes."""

from importlib import resources
from typing import Any, Literal

from playwright.sync_api import Page

from tests.browser.visitor import PHONE_WIDTH, Visitor

_AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_FAILING = ("serious", "critical")


def check_looks(visitor: Visitor) -> None:
    """AssertionError unless the page that is shown is accessible, and fits a phone and is accessible there."""
    check_accessibility(visitor.page)
    visitor.page.set_viewport_size({"width": PHONE_WIDTH, "height": 700})
    assert visitor.overflow() == 0
    check_accessibility(visitor.page)


def check_accessibility(page: Page) -> None:
    """AssertionError with rule, place and advice for each serious or critical finding."""
    found = [line for scheme in _SCHEMES for line in findings(page, scheme)]
    assert not found, "\n".join([page.url, *found])


def findings(page: Page, scheme: Literal["light", "dark"]) -> list[str]:
    """What axe finds serious or critical, a line each."""
    page.emulate_media(color_scheme=scheme)
    # Evaluated by the debugger: a script tag would be refused by our Content-Security-Policy, which stays on.
    page.evaluate(_AXE)
    answer: Any = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{scheme}, {violation['impact']}, {violation['id']}: {node['target']}: {node['failureSummary']}"
        for violation in answer["violations"]
        if violation["impact"] in _FAILING
        for node in violation["nodes"]
    ]
