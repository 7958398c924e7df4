"""What admins do with the lists of users and keys: search, sort, filter, find, download, revoke several."""

import csv
import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.actions import answer, cell, row, sign_in
from tests.browser.conftest import Visit, new_org
from tests.end_to_end.system import System
from tests.fault.organisation import Org


@pytest.fixture(scope="module")
def filled(system: System) -> Org:
    """`member` with one key that was used and two that were not, `admin` with none."""
    org = new_org(system)
    for name in ("hourly", "daily"):
        org.create("member", name)
    system.validates_as(org.create("member", "used once")["key"], "VALID")
    return org


def test_admins_search_the_users(visit: Visit, filled: Org) -> None:
    page = _at(visit, filled, "users")
    page.get_by_role("searchbox").fill("member@")
    page.get_by_role("searchbox").press("Enter")
    expect(row(page, f"admin@{filled.id}.test")).to_have_count(0)
    expect(row(page, f"member@{filled.id}.test")).to_have_count(1)


def test_admins_sort_the_users_by_a_heading(visit: Visit, filled: Org) -> None:
    page = _at(visit, filled, "users")
    names = page.locator("tbody td[data-label=Name]")
    expect(names).to_have_text(["member", "admin"])  # The newest first.
    page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    expect(page.get_by_role("columnheader", name="Name")).to_have_attribute("aria-sort", "ascending")
    expect(names).to_have_text(["admin", "member"])
    page.get_by_role("columnheader", name="API keys").get_by_role("link").click()
    expect(page.get_by_role("columnheader", name="API keys")).to_have_attribute("aria-sort", "descending")
    expect(names).to_have_text(["member", "admin"])


def test_admins_disable_and_enable_a_user_seeing_the_effect_before(visit: Visit, org: Org, system: System) -> None:
    key = org.create("member", "the one that stops")["key"]
    page = _at(visit, org, f"users/{org.users['member']}")
    page.get_by_role("link", name="Disable").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 key will stop working at once.")
    system.validates_as(key, "VALID")
    answer(page, "Disable")
    expect(page.get_by_text("member was disabled.")).to_be_visible()
    system.validates_as(key, "OWNER_DISABLED")
    page.get_by_role("link", name="Users", exact=True).click()
    expect(cell(page, f"member@{org.id}.test", "Status")).to_have_text("Disabled")
    page.get_by_role("link", name="member", exact=True).click()
    page.get_by_role("link", name="Enable").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 key will work again.")
    answer(page, "Enable")
    system.validates_as(key, "VALID")


def test_a_filter_leaves_only_the_keys_that_pass_it(visit: Visit, filled: Org) -> None:
    page = _at(visit, filled, "keys")
    expect(cell(page, "used once", "Last used")).not_to_have_text("never")
    page.get_by_label("Never used").check()
    page.get_by_role("button", name="Search").click()
    expect(row(page, "used once")).to_have_count(0)
    expect(row(page, "hourly")).to_have_count(1)
    page.get_by_role("link", name="Show all").click()
    expect(row(page, "used once")).to_have_count(1)


@pytest.mark.parametrize("field", ["Found a key somewhere?", "Key, owner, e-mail or key id"])
def test_a_pasted_key_is_found_and_its_text_stays_on_no_page_that_is_shown(
    visit: Visit, filled: Org, field: str
) -> None:
    key = filled.create("member", f"leaked into {len(field)}")
    page = _at(visit, filled, "keys")
    page.get_by_label(field).fill(f"export TOKEN={key['key']}")
    page.get_by_label(field).press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(key["name"])
    assert page.url.endswith(f"/keys/{key['key_id']}")
    assert key["key"][-49:] not in page.content()


def test_a_key_that_is_pasted_to_be_found_is_in_no_address(visit: Visit, filled: Org) -> None:
    key = filled.create("member", "found in a log")
    page = _at(visit, filled, "keys")
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.get_by_label("Found a key somewhere?").fill(key["key"])
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("found in a log")
    assert any(address.endswith("/keys/find") for address in addresses)
    assert not [address for address in addresses if key["key"][-49:] in address]


def test_the_downloaded_list_has_a_row_for_each_key_that_passes_the_filter(visit: Visit, filled: Org) -> None:
    page = _at(visit, filled, "keys?search=ly")
    expect(row(page, "hourly")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download CSV").click()
    assert re.fullmatch(rf"api-keys-{filled.id}-\d{{4}}-\d\d-\d\d\.csv", download.value.suggested_filename)
    with download.value.path().open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(one["name"], one["owner"], one["last_used_at"]) for one in rows] == [
        ("daily", "member", ""),
        ("hourly", "member", ""),
    ]


def test_admins_revoke_several_keys_after_a_preview_of_what_stops(visit: Visit, org: Org, system: System) -> None:
    used, unused, kept = (org.create("member", name) for name in ("in use", "not in use", "to be kept"))
    system.validates_as(used["key"], "VALID")
    page = _at(visit, org, "keys")
    expect(cell(page, used["key_id"], "Last used")).not_to_have_text("never")
    for key in (used, unused):
        page.get_by_label(f"Select {key['name']}", exact=True).check()
    page.get_by_role("button", name="Revoke selected").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Revoke 2 keys?")
    expect(page.get_by_role("main")).to_contain_text("2 keys of 1 user will stop working at once.")
    expect(page.get_by_role("main")).to_contain_text("1 key of these was used in the last 24 hours")
    system.validates_as(used["key"], "VALID")
    page.get_by_role("button", name="Revoke 2 keys").click()
    for key in (used, unused):
        expect(cell(page, key["key_id"], "Outcome")).to_contain_text("Revoked.")
        system.validates_as(key["key"], "REVOKED")
    system.validates_as(kept["key"], "VALID")


def _at(visit: Visit, org: Org, path: str) -> Page:
    page = sign_in(visit(), org, "admin")
    page.goto(f"/orgs/{org.id}/{path}")
    return page
