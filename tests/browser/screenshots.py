"""`make screenshots`: a running system with an organisation to look at, and a picture of each of its pages."""

import secrets
import tempfile
from itertools import groupby
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.browser.chromium import running_chromium
from tests.browser.tour import STOPS, enter, new_key, populate
from tests.browser.visitor import Visitor
from tests.end_to_end.system import System, running
from tests.fault.organisation import Org

FOLDER = Path("var/screenshots")
_WIDTH = 1000
_SMALL = {"account-new-key": "account", "keys": "keys", "key": "key"}
"""Those that the README shows, by their names in docs/screenshots: the upper part, small enough to be kept in git."""


def main() -> None:
    """Every page, light and dark, and what it weighs; the three of the README anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix="screenshots-") as var:
        print("starting Kafka, PostgreSQL and the services", flush=True)
        with running(Path(var)) as system, running_chromium() as chromium:
            _take_all(system, chromium)
    print(f"{len(list(FOLDER.iterdir()))} pictures are in {FOLDER}")


def _take_all(system: System, chromium: Browser) -> None:
    org = Org(system, f"vienna-{secrets.token_hex(2)}")
    org.add("member")
    ids = populate(system, org)
    for who, stops in groupby(sorted(STOPS, key=lambda stop: stop.who), key=lambda stop: stop.who):
        visitor = Visitor(chromium, system.urls["console"][0], width=_WIDTH)
        enter(visitor, system, org, who)
        for stop in stops:
            weight = stop.weigh(visitor, ids)
            _take(stop.see(visitor, ids), stop.name, whole=not stop.click)
            print(f"  {stop.name:<22} {weight / 1000:5.1f} kB", flush=True)
        if who == "member":
            _take(new_key(visitor), "account-new-key", whole=True)
        for line in visitor.leave():
            print(f"  wrong: {line}")


def _take(page: Page, name: str, *, whole: bool) -> None:
    # A dialog covers the window, so behind it only that much of the page is shown.
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=FOLDER / f"{name}-{scheme}.png", full_page=whole)
    if name in _SMALL:
        page.emulate_media(color_scheme="light")
        kept = Path("docs/screenshots") / f"{_SMALL[name]}.jpg"
        page.screenshot(path=kept, type="jpeg", quality=60, clip={"x": 0, "y": 0, "width": _WIDTH, "height": 700})


if __name__ == "__main__":
    main()
