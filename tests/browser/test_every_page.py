"""What holds for each page: it is light, it is accessible in both colour schemes, and it fits a phone."""

from collections.abc import Callable

import pytest

from tests.browser.accessibility import check_looks
from tests.browser.actions import sign_in
from tests.browser.conftest import Visit
from tests.browser.tour import STOPS, Stop, enter, new_key, populate
from tests.browser.visitor import Visitor
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
    stop.see(visitor, ids)
    check_looks(visitor)


def test_the_page_with_a_new_key_is_accessible_and_fits_a_phone(come: Callable[[str], Visitor]) -> None:
    visitor = come("member")
    new_key(visitor)
    check_looks(visitor)


def test_the_pages_of_an_organisation_whose_keys_are_off_are_accessible_and_fit_a_phone(visit: Visit, org: Org) -> None:
    org.create("member", "stopped")
    org.made("admin", "PUT", f"{org.path}/keys-enabled", {"enabled": False})
    for who, path in (("member", "/account"), ("admin", f"/orgs/{org.id}/keys")):
        visitor = visit()
        sign_in(visitor, org, who)
        visitor.opens(path)
        check_looks(visitor)


@pytest.fixture
def come(visit: Visit, system: System, shared_org: Org) -> Callable[[str], Visitor]:
    """A visitor who is signed in as somebody of the organisation that is shared."""

    def make(who: str) -> Visitor:
        visitor = visit()
        enter(visitor, system, shared_org, who)
        return visitor

    return make
