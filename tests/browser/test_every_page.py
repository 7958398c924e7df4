"""What holds for each page: it is light, it is accessible in both colour schemes, and it fits a phone."""

from collections.abc import Callable

import pytest

from tests.browser.accessibility import check_accessibility
from tests.browser.conftest import Visit
from tests.browser.tour import STOPS, Stop, enter, new_key, populate
from tests.browser.visitor import PHONE_WIDTH, Visitor
from tests.end_to_end.system import System
from tests.fault.organisation import Org

_LIMIT_BYTES = 60_000


@pytest.fixture(scope="module")
def ids(system: System, shared_org: Org) -> dict[str, str]:
    return populate(system, shared_org)


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.name)
def test_every_page_is_light_accessible_and_fits_a_phone(
    come: Callable[[str], Visitor], ids: dict[str, str], stop: Stop
) -> None:
    visitor = come(stop.who)
    assert stop.weigh(visitor, ids) < _LIMIT_BYTES
    page = stop.see(visitor, ids)
    check_accessibility(page)
    page.set_viewport_size({"width": PHONE_WIDTH, "height": 700})
    assert visitor.overflow() == 0
    check_accessibility(page)


def test_the_page_with_a_new_key_is_accessible_and_fits_a_phone(come: Callable[[str], Visitor]) -> None:
    visitor = come("member")
    page = new_key(visitor)
    check_accessibility(page)
    page.set_viewport_size({"width": PHONE_WIDTH, "height": 700})
    assert visitor.overflow() == 0


@pytest.fixture
def come(visit: Visit, system: System, shared_org: Org) -> Callable[[str], Visitor]:
    """A visitor who is signed in as somebody of the organisation that is shared."""

    def make(who: str) -> Visitor:
        visitor = visit()
        enter(visitor, system, shared_org, who)
        return visitor

    return make
