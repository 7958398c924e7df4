"""Times are told in the zone and the words of whoever looks, and the script and the server use the same words."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from playwright.sync_api import Page, expect

from services.console.wording import distance
from tests.browser.actions import account, cell
from tests.browser.conftest import Visit
from tests.end_to_end.system import System
from tests.fault.organisation import Org

_NOW_MS = 1_795_000_000_000
_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000
_BOUNDARIES = (10 * _SECOND, _MINUTE, 2 * _MINUTE, _HOUR, 2 * _HOUR, _DAY, 30 * _DAY, 60 * _DAY, 365 * _DAY)
_DISTANCES = sorted(
    {0, 1, _SECOND, _SECOND + 1, 2000 * 365 * _DAY}
    | {boundary + by for boundary in _BOUNDARIES for by in (-_SECOND, -1, 0, 1, _SECOND)}
)


def test_the_exact_time_on_hover_is_in_the_zone_of_who_looks(visit: Visit, shared_org: Org, system: System) -> None:
    key = shared_org.create("member", "used in Berlin")
    system.validates_as(key["key"], "VALID")
    page = account(visit(), shared_org)
    for heading in ("Created", "Last used"):
        time = cell(page, "used in Berlin", heading).locator("time")
        expect(time).to_have_attribute("title", re.compile(r", \d\d:\d\d:\d\d (CES?T|GMT\+[12])$"))
        moment = datetime.fromisoformat(time.get_attribute("datetime") or "").astimezone(ZoneInfo("Europe/Berlin"))
        title = time.get_attribute("title") or ""
        assert title.startswith(f"{moment.day} {moment:%b %Y, %H:%M:%S} ")


def test_without_javascript_the_exact_time_on_hover_says_that_it_is_utc(visit: Visit, shared_org: Org) -> None:
    shared_org.create("member", "created anywhere")
    page = account(visit(javascript=False), shared_org)
    time = cell(page, "created anywhere", "Created").locator("time")
    expect(time).to_have_attribute("title", re.compile(r", \d\d:\d\d:\d\d UTC$"))


def test_the_script_tells_distances_in_the_words_of_the_server(visit: Visit) -> None:
    page = visit().opens("/sign-in")
    page.clock.set_fixed_time(datetime.fromtimestamp(_NOW_MS / 1000, UTC))
    times_ms = [_NOW_MS + sign * by for by in _DISTANCES for sign in (-1, 1)]
    assert _told_by_the_script(page, times_ms) == [distance(time_ms, _NOW_MS) for time_ms in times_ms]


def _told_by_the_script(page: Page, times_ms: list[int]) -> list[str]:
    page.evaluate(
        """times => {
            for (const time of times) {
                const told = document.createElement("time");
                told.dateTime = new Date(time).toISOString();
                told.dataset.ago = "";
                document.querySelector("main").append(told);
            }
            // What the page does after each renewal of a part.
            const target = document.querySelector("main");
            document.dispatchEvent(new CustomEvent("htmx:afterSwap", { detail: { target } }));
        }""",
        times_ms,
    )
    return page.locator("main > time").all_inner_texts()
