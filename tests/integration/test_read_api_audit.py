"""What auditors ask of the read API: filtered history, keys as of a moment, around a leaked key, replay, and proof."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from schemas import events
from services.auditor.notary import Notary
from services.auditor.signing_key import SigningKey, open_signing_key
from services.auditor.verify_bundle import read_keys, verify
from services.ledger.lmdb_chain import CHAIN_TABLES
from services.ledger.memory_log import MemoryLog
from services.ledger.store import Store
from services.projector.app import create_app
from services.projector.database import read_pool
from services.projector.reads import Reads
from services.projector.routes import Parts
from services.projector.status import StatusFile
from tests.integration import projector_story as story
from tests.integration.projector_story import ADMIN, DAY, MEMBER, ORG, OTHER, ROBOT, Ledger, created, key_id, used
from tests.integration.read_api import NOW_MS, Client, NamedCallers

ROOT = f"/v1/orgs/{ORG}"
HISTORY = f"{ROOT}/history"
EDITED_LAST = """
    UPDATE ledger_records SET value = replace(convert_from(value, 'UTF8'), 'by a key', 'by a kez')::bytea
    WHERE org_id = %s AND revision = 14
"""


@dataclass
class Site:
    """The story with more uses, a read API around it, and a notary who has not signed yet."""

    client: Client
    log: MemoryLog
    ledger: Ledger
    database: str
    key: SigningKey
    folder: Path

    def sign(self) -> None:
        store = Store(self.folder / "ledger", CHAIN_TABLES)
        with psycopg.connect(self.database, autocommit=True) as session:
            parts = (self.log, store, story.KEYS, session, self.key, self.folder / "checkpoints")
            Notary(*parts, lambda: NOW_MS).sign()
        store.close()
        (self.folder / "notary.pub").write_text(self.key.public_keys())

    def edit(self, statement: str, *values: object) -> None:
        with story.open_session(self.database) as session:
            assert session.execute(statement.encode(), values).rowcount == 1


@pytest.fixture
def site(database: str, tmp_path: Path) -> Iterator[Site]:
    log = MemoryLog()
    ledger, _ = story.tell_story(log)
    ledger.write(created(5))
    ledger.append(ledger.take(ledger.value(events.KeyRenamed(key_id(5), "by a key"), authkey=key_id(1))))
    story.use(log, used(4, ip="192.0.2.7"), 20)
    story.use(log, used(5, ip="203.0.113.5"), 21)
    story.projected(database, log).close()
    with read_pool(database, 4) as pool:
        parts = Parts(
            Reads(pool), NamedCallers(), StatusFile(tmp_path / "status.json"), lambda: NOW_MS, tmp_path / "notary.pub"
        )
        key = open_signing_key(tmp_path / "signing-key")
        yield Site(Client(create_app(parts)), log, ledger, database, key, tmp_path)


@pytest.mark.parametrize(
    ("query", "revisions"),
    [
        (f"key={key_id(1)}", [7, 11]),
        (f"user={MEMBER}", [3, 7, 8, 9, 11, 12, 13, 14]),
        (f"user={ROBOT}", [5, 10]),
        (f"user={MEMBER}&type=KeyCreated", [7, 8, 9, 13]),
        ("type=KeyRevoked", [12]),
        (f"actor={ADMIN}&type=OrgKeysEnabled", [6]),
        (f"actor={MEMBER}", []),
    ],
)
def test_a_history_is_filtered(site: Site, query: str, revisions: list[int]) -> None:
    assert [item["revision"] for item in site.client.items(f"{HISTORY}?{query}&limit=2")] == revisions


def test_a_history_is_cut_by_time_both_ends_included(site: Site) -> None:
    times = [item["time"] for item in site.client.items(HISTORY)]
    found = site.client.items(f"{HISTORY}?since={times[3]}&until={times[6]}")
    assert [item["time"] for item in found] == [time for time in times if times[3] <= time <= times[6]]
    assert found[0]["revision"] == times.index(times[3]) + 1


def test_uses_stand_in_the_history_of_the_organisation_where_asked(site: Site) -> None:
    with_uses = site.client.items(f"{HISTORY}?uses=include&limit=3")
    assert [item for item in with_uses if item["type"] != "KeyUsed"] == site.client.items(HISTORY)
    uses = [item["data"] for item in with_uses if item["type"] == "KeyUsed"]
    assert sum(use["count"] for use in uses) == 11
    assert {use["key_id"] for use in uses} == {key_id(number) for number in (1, 3, 4, 5)}
    of_key = site.client.items(f"{HISTORY}?uses=include&key={key_id(4)}")
    assert [item["type"] for item in of_key] == ["KeyCreated", "KeyUsed"]
    only = site.client.items(f"{HISTORY}?uses=include&type=KeyUsed&user={MEMBER}")
    assert {item["type"] for item in only} == {"KeyUsed"}


def test_the_keys_as_of_a_moment_come_from_the_events_up_to_then(site: Site) -> None:
    times = {item["revision"]: item["time"] for item in site.client.items(HISTORY)}

    def codes(query: str) -> dict[str, str]:
        answer = site.client.get(f"{ROOT}/keys-as-of{query}", "auditor")
        assert answer.status_code == 200, answer.text
        return {item["key_id"]: item["code"] for item in answer.json["items"]}

    numbers = {number: key_id(number) for number in range(1, 6)}
    assert codes(f"?at={times[6]}") == {}
    assert codes(f"?at={times[9]}") == {numbers[1]: "VALID", numbers[2]: "VALID", numbers[3]: "VALID"}
    now = codes("")
    assert now == {
        numbers[1]: "VALID",
        numbers[2]: "EXPIRED",
        numbers[3]: "REVOKED",
        numbers[4]: "VALID",
        numbers[5]: "VALID",
    }
    named = site.client.get(f"{ROOT}/keys-as-of?at={times[10]}").json["items"][0]
    assert (named["name"], named["user_id"], named["role"], named["scopes"]) == (
        "key 1",
        MEMBER,
        "member",
        ["keys:read"],
    )


def test_the_blast_radius_of_a_key(site: Site) -> None:
    found = site.client.get(f"{ROOT}/keys/{key_id(1)}/blast-radius").json
    assert (found["key"]["key_id"], found["key"]["code"]) == (key_id(1), "VALID")
    assert [item["revision"] for item in found["life"]] == [7, 11]
    assert [(item["revision"], item["actor"]["key_id"]) for item in found["commands"]] == [(14, key_id(1))]
    assert {(use["ip"], use["count"]) for use in found["addresses"]} == {("192.0.2.7", 2), ("192.0.2.9", 1), (None, 5)}
    assert [key["key_id"] for key in found["siblings"]] == [key_id(2), key_id(3), key_id(5)]
    assert {(one["key_id"], one["ip"]) for one in found["neighbours"]} == {
        (key_id(3), "192.0.2.7"),
        (key_id(4), "192.0.2.7"),
    }
    assert found["neighbours_cut"] is False
    assert site.client.get(f"{ROOT}/keys/{key_id(9)}/blast-radius").status_code == 404


def test_a_replay_is_the_stored_bytes_in_ledger_order(site: Site) -> None:
    whole = site.client.get(f"{ROOT}/replay")
    assert whole.data.splitlines() == site.ledger.values
    assert whole.headers["Keyledger-Next-Revision"] == "14"
    later = site.client.get(f"{ROOT}/replay?after_revision=12")
    assert later.data.splitlines() == site.ledger.values[12:]
    nothing = site.client.get(f"{ROOT}/replay?after_revision=14")
    assert (nothing.data, nothing.headers["Keyledger-Next-Revision"]) == (b"", "14")
    assert site.client.get(f"{ROOT}/replay?since={DAY}23:00:00.000Z").data == b""


def test_nothing_is_signed_before_the_notary_came(site: Site) -> None:
    assert site.client.get(f"{ROOT}/checkpoint").json == {"signed": None, "revision": 14, "verified": None}
    refused = site.client.get(f"{ROOT}/bundle")
    assert (refused.status_code, refused.json["code"]) == (409, "not_signed")


def test_a_checkpoint_is_shown_and_a_bundle_proves_itself(site: Site, tmp_path: Path) -> None:
    site.sign()
    state = site.client.get(f"{ROOT}/checkpoint", "auditor").json
    assert (state["verified"], state["signed"]["revision"], state["signed"]["head"]) == (True, 14, site.ledger.parent)
    answer = site.client.get(f"{ROOT}/bundle", "auditor")
    assert (answer.status_code, answer.content_type) == (200, "application/zip")
    assert answer.headers["Content-Disposition"].startswith(f'attachment; filename="{ORG}-')
    zipfile.ZipFile(io.BytesIO(answer.data)).extractall(tmp_path / "unzipped")
    report = verify(tmp_path / "unzipped" / "bundle", read_keys(site.key.public_keys()), [])
    assert (report.faults, report.records) == ([], {ORG: 14})


def test_the_history_of_an_erased_person_goes_on_to_verify_and_shows_the_opaque_id(site: Site, tmp_path: Path) -> None:
    site.ledger.write(events.PersonErased(MEMBER))
    story.projected(site.database, site.log).close()
    site.sign()
    [erased] = site.client.items(f"{HISTORY}?type=PersonErased")
    assert erased["data"] == {"user_id": MEMBER}
    assert {item["data"]["user_id"] for item in site.client.items(f"{HISTORY}?user={MEMBER}&type=KeyCreated")} == {
        MEMBER
    }
    codes = {key["user_id"]: key["code"] for key in site.client.get(f"{ROOT}/keys-as-of").json["items"]}
    assert codes == {MEMBER: "OWNER_DISABLED", ROBOT: "VALID"}
    zipfile.ZipFile(io.BytesIO(site.client.get(f"{ROOT}/bundle").data)).extractall(tmp_path / "unzipped")
    report = verify(tmp_path / "unzipped" / "bundle", read_keys(site.key.public_keys()), [])
    assert (report.faults, report.records) == ([], {ORG: 15})


def test_an_edited_archive_is_told_and_leaves_as_no_bundle(site: Site) -> None:
    site.sign()
    site.edit(
        "UPDATE ledger_records SET value = replace(convert_from(value, 'UTF8'), 'Example', 'Exbmple')::bytea"
        " WHERE org_id = %s AND revision = 1",
        ORG,
    )
    for path in ("keys-as-of", f"keys/{key_id(1)}/blast-radius", "bundle"):
        answer = site.client.get(f"{ROOT}/{path}")
        assert (answer.status_code, answer.json["code"]) == (500, "archive_broken"), path
    assert "revision 2" in site.client.get(f"{ROOT}/keys-as-of").json["detail"]


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM ledger_records WHERE org_id = %s AND revision = 14", EDITED_LAST],
)
def test_the_last_row_removed_or_edited_is_told_too(site: Site, statement: str) -> None:
    site.edit(statement, ORG)
    answer = site.client.get(f"{ROOT}/keys-as-of")
    assert (answer.status_code, answer.json["code"]) == (500, "archive_broken")
    assert "14" in answer.json["detail"]


def test_an_archive_whose_head_is_another_contradicts_the_checkpoint(site: Site) -> None:
    site.sign()
    site.edit(EDITED_LAST, ORG)
    assert site.client.get(f"{ROOT}/checkpoint").json["verified"] is False


def test_a_checkpoint_that_the_notary_did_not_sign_is_told(site: Site) -> None:
    site.sign()
    (site.folder / "notary.pub").write_text(open_signing_key(site.folder / "another").public_keys())
    answer = site.client.get(f"{ROOT}/checkpoint")
    assert (answer.status_code, answer.json["code"]) == (500, "archive_broken")


@pytest.mark.parametrize(
    "path", ["history", "keys-as-of", f"keys/{key_id(1)}/blast-radius", "replay", "checkpoint", "bundle"]
)
def test_only_admins_auditors_and_operators_may_ask(site: Site, path: str) -> None:
    site.sign()
    asked = {who: site.client.get(f"{ROOT}/{path}", who).status_code for who in ("admin", "auditor", "operator")}
    assert asked == {"admin": 200, "auditor": 200, "operator": 200}
    refused = {who: site.client.get(f"{ROOT}/{path}", who).status_code for who in ("member", "robot", "stranger", None)}
    hidden = 404 if path.startswith("keys/") else 403
    assert refused == {"member": hidden, "robot": hidden, "stranger": 404, None: 401}
    assert site.client.get(f"/v1/orgs/{OTHER}/{path}", "auditor").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        *(
            "history?key=a.b",
            "history?user=",
            "history?actor=%00",
            "history?type=Key-Created",
            "history?since=yesterday",
        ),
        *("keys-as-of?at=now", "keys-as-of?since=2026-01-01T00:00:00Z", "replay?after_revision=-1", "checkpoint?at=1"),
    ],
)
def test_a_bad_question_is_a_400(site: Site, query: str) -> None:
    answer = site.client.get(f"{ROOT}/{query}")
    assert (answer.status_code, len(answer.json["errors"])) == (400, 1)
