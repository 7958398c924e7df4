"""What auditors, admins and operators do with the history of an organisation: read, search, prove, take along."""

import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.accessibility import check_looks
from tests.browser.actions import cell, row, sign_in, sign_in_operator
from tests.browser.conftest import Visit
from tests.browser.visitor import Visitor
from tests.end_to_end.pasting import ROOT, paste
from tests.end_to_end.system import System
from tests.fault.organisation import Org


def test_an_admin_sees_everything_that_happened_and_who_did_it(visit: Visit, org: Org) -> None:
    key = org.create("member", "nightly import")
    org.made("admin", "DELETE", f"{org.path}/keys/{key['key_id']}", {"reason": "unused", "comment": "not needed"})
    page = _history(visit(), org, "admin")
    told = page.locator("tbody td[data-label='What happened']")
    expect(told).to_have_text(
        [
            "Organisation registered",
            "Person added as an admin: admin",
            "API keys turned on",
            "Person added as a member: member",
            "API key created",
            "API key revoked: it is not used any more: not needed",
        ]
    )
    expect(cell(page, "Organisation registered", "By")).to_contain_text("an operator")
    expect(cell(page, "API key revoked", "Revision")).to_contain_text("6")
    expect(cell(page, "API key revoked", "Key")).to_have_text("nightly import")
    cell(page, "API key created", "By").get_by_role("link", name="member").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("member")
    page.get_by_role("link", name="What this user did").click()
    expect(told).to_have_text(["API key created"])
    page.get_by_role("link", name="By member: take this filter away").click()
    expect(told).to_have_count(6)


def test_what_happens_shows_on_the_open_page_under_its_filter(visit: Visit, org: Org) -> None:
    page = _history(visit(), org, "admin")
    page.get_by_label("About a user or its keys").fill("member")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.evaluate("window.isMarked = true")
    org.create("admin", "of the admin")
    org.create("member", "of the member")
    expect(row(page, "of the member")).to_be_visible()
    expect(row(page, "of the admin")).to_have_count(0)
    assert page.evaluate("window.isMarked") is True


def test_the_time_and_the_type_narrow_what_is_shown(visit: Visit, org: Org) -> None:
    page = _history(visit(), org, "admin")
    expect(page.locator("tbody tr")).to_have_count(4)
    page.get_by_text("More: a key").click()
    page.get_by_label("Not after (UTC)").fill("2020-01-31T12:00")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("No event fits what you are looking for.")).to_be_visible()
    expect(page.get_by_label("Not after (UTC)")).to_have_value("2020-01-31T12:00")
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("What happened").select_option("User added")
    page.get_by_label("When").select_option("In the last 24 hours")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(2)


def test_members_find_no_history(visit: Visit, org: Org) -> None:
    visitor = visit()
    page = sign_in(visitor, org, "member")
    expect(page.get_by_role("link", name="History")).to_have_count(0)
    visitor.expect(403)
    for path in ("history", "history/bundle.zip"):
        page.goto(f"/orgs/{org.id}/{path}")
        expect(page.get_by_role("heading", level=1)).to_have_text("Not allowed")


def test_a_checkpoint_that_is_signed_shows_on_the_open_page(visit: Visit, org: Org, system: System) -> None:
    visitor = visit()
    page = _history(visitor, org, "admin")
    expect(_proof(page)).to_contain_text("Not signed yet")
    check_looks(visitor)
    _sign(system)
    expect(_proof(page)).to_contain_text("Verified up to revision 4", timeout=20_000)
    expect(_proof(page)).to_contain_text("Nothing has happened since.")
    check_looks(visitor)
    org.create("member", "after the checkpoint")
    expect(_proof(page)).to_contain_text("1 later event waits for the next checkpoint.", timeout=20_000)


@pytest.mark.parametrize("javascript", [True, False])
def test_an_auditor_takes_a_bundle_along_that_proves_itself(
    visit: Visit, org: Org, system: System, tmp_path: Path, javascript: bool
) -> None:
    org.add("auditor", role="auditor")
    _sign(system)
    page = _history(visit(javascript=javascript), org, "auditor")
    expect(_proof(page)).to_contain_text("Verified up to revision 5")
    with page.expect_download() as download:
        _proof(page).get_by_role("link", name="Export").click()
    name = rf"{org.id}-\d{{4}}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{{3}}Z\.zip"
    assert re.fullmatch(name, download.value.suggested_filename)
    with zipfile.ZipFile(download.value.path()) as zipped:
        zipped.extractall(tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    verified = _verify(system, folder)
    assert verified.startswith("VERIFIED: "), verified
    records = folder / "records" / f"{org.id}.jsonl"
    records.write_bytes(records.read_bytes().replace(b'"role":"admin"', b'"role":"owner"'))
    assert f"changed: {org.id}: record 2 was changed" in _verify(system, folder)


def test_an_operator_is_told_that_there_is_nothing_signed_to_export(visit: Visit, org: Org, system: System) -> None:
    visitor = visit()
    page = sign_in_operator(visitor, system)
    page.goto(f"/orgs/{org.id}")
    page.get_by_role("link", name="History", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"History of {org.id}")
    expect(_proof(page).get_by_role("link", name="Export")).to_have_count(0)
    visitor.expect(409)
    page.goto(f"/orgs/{org.id}/history/bundle.zip")
    expect(page.get_by_role("main")).to_contain_text("Nothing was signed for this organisation yet")


def test_an_archive_that_is_not_what_was_signed_is_an_alarm_on_the_open_page(
    visit: Visit, org: Org, system: System
) -> None:
    visitor = visit()
    page = _verified(visitor, org, system)
    with _edited(system, org, revision=4, with_hash=True):
        expect(_proof(page).get_by_role("alert")).to_contain_text(
            "The archive contradicts the signed checkpoint", timeout=20_000
        )
        expect(_proof(page).get_by_role("link", name="Export")).to_have_count(0)
        check_looks(visitor)
    expect(_proof(page)).to_contain_text("Verified up to revision 4", timeout=20_000)


def test_an_event_that_was_edited_is_an_alarm_at_once_and_cannot_be_exported(
    visit: Visit, org: Org, system: System
) -> None:
    visitor = visit()
    page = _verified(visitor, org, system)
    with _edited(system, org, revision=2, with_hash=False):
        expect(page.get_by_role("alert").nth(1)).to_contain_text("The archive was edited")
        expect(_proof(page).get_by_role("alert")).to_contain_text("The archive contradicts the signed checkpoint")
        check_looks(visitor)
    expect(_proof(page)).to_contain_text("Verified up to revision 4")
    with _edited(system, org, revision=2, with_hash=True):
        visitor.expect(500)
        page.get_by_role("link", name="Export").click()
        expect(page.get_by_role("main")).to_contain_text("The archive contradicts the signed checkpoint")


def _history(visitor: Visitor, org: Org, who: str) -> Page:
    """By the link in the navigation, from where one is after signing in."""
    page = sign_in(visitor, org, who)
    page.get_by_role("link", name="History", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("History")
    return page


def _proof(page: Page) -> Locator:
    return page.locator("#proof")


def _verified(visitor: Visitor, org: Org, system: System) -> Page:
    """The page of an admin on which all four events are signed."""
    _sign(system)
    page = _history(visitor, org, "admin")
    expect(_proof(page)).to_contain_text("Verified up to revision 4")
    return page


def _sign(system: System) -> None:
    """What an operator's timer does."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": system.urls["kafka"][0],
        "DATABASE_URL": system.database.url,
        "KEYLEDGER_LEDGER_KEYS": str(system.ledger_keys),
        "KEYLEDGER_STATE_DIR": str(system.config.var / "auditor"),
    }
    given = " ".join(f"'{name}={value}'" for name, value in settings.items())
    done = paste(f"env {given} {sys.executable} -m keyledger.cli audit checkpoint", system.config.var)
    assert done.stdout.startswith("signed at "), done.stdout + done.stderr


def _verify(system: System, folder: Path) -> str:
    """What the stand-alone file says of a bundle."""
    file, key = ROOT / "services/auditor/verify_bundle.py", system.config.var / "auditor" / "notary.pub"
    done = paste(f"{sys.executable} -I {file} {folder} --key {key} || true", folder.parent)
    return done.stdout + done.stderr


@contextmanager
def _edited(system: System, org: Org, revision: int, *, with_hash: bool) -> Iterator[None]:
    """Another kind of user in the archive for the length of a `with`, and the hash of that where it is asked for."""
    kinds, record = ("person", "robots"), "org_id = %s AND revision = %s AND outcome = 'applied'"
    for old, new in (kinds, kinds[::-1]):
        with psycopg.connect(system.database.url) as connection:
            edit = "SET value = convert_to(replace(convert_from(value, 'UTF8'), %s, %s), 'UTF8')"
            done = connection.execute(f"UPDATE read.ledger_records {edit} WHERE {record}", [old, new, org.id, revision])
            assert done.rowcount == 1
            if with_hash:
                edit = "SET hash = encode(sha256(value), 'hex')"
                connection.execute(f"UPDATE read.ledger_records {edit} WHERE {record}", [org.id, revision])
        if old == kinds[0]:
            yield
