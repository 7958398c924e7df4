"""What the read API answers, on a real database."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask

from schemas import events
from services.ledger.follow import Follower
from services.ledger.memory_log import MemoryLog
from services.projector.database import Pool, read_pool
from services.projector.status import Reporter, Status, StatusFile
from tests.integration import projector_story as story
from tests.integration.projector_story import ADMIN, DAY, MEMBER, ORG, OTHER, ROBOT, Ledger, key_id
from tests.integration.read_api import NOW_MS, Client, app_on
from tests.waiting import eventually

KEYS = f"/v1/orgs/{ORG}/keys"


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def ledger(log: MemoryLog, database: str) -> Ledger:
    """The story, told and projected."""
    Ledger(log, "platform").write(events.OrgRegistered(), events.UserAdded("user_operator", "person", "admin"))
    told, _ = story.tell_story(log)
    story.projected(database, log).close()
    return told


@pytest.fixture
def pool(database: str) -> Iterator[Pool]:
    with read_pool(database, 4) as pool:
        yield pool


@pytest.fixture
def app(pool: Pool, ledger: Ledger, tmp_path: Path) -> Flask:
    return app_on(pool, tmp_path)


@pytest.fixture
def client(app: Flask) -> Client:
    return Client(app)


def _go_on(log: MemoryLog, database: str) -> None:
    story.projected(database, log).close()


def _numbers(items: list[dict[str, Any]]) -> list[int]:
    return [int(item["last4"]) for item in items]


def test_a_key_has_these_fields_and_these_headers(client: Client) -> None:
    answer = client.get(f"{KEYS}/{key_id(1)}")
    assert answer.json == {
        "key_id": key_id(1),
        "org_id": ORG,
        "user_id": MEMBER,
        "name": "renamed",
        "last4": "0001",
        "scopes": ["keys:read"],
        "cidrs": ["192.0.2.0/24"],
        "created_at": f"{DAY}10:07:00.000Z",
        "expires_at": None,
        "revoked_at": None,
        "revision": 11,
        "last_used_at": f"{DAY}12:30:00.900Z",
        "last_used_ip": "192.0.2.9",
        "last_used_user_agent": None,
        "last_used_source": "checker-1",
        "owner_name": None,
    }
    assert answer.headers["Keyledger-Revision"] == f"{ORG}:12"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Keyledger-Halted" not in answer.headers


FILTERED: tuple[tuple[str, list[int]], ...] = (
    ("", [4, 1]),
    ("?state=active", [4, 1]),
    ("?state=expired", [2]),
    ("?state=revoked", [3]),
    ("?state=all", [4, 3, 2, 1]),
    (f"?owner={ROBOT}", [4]),
    ("?state=all&name=key%202", [2]),
    ("?never_used=true", [4]),
    ("?never_used=false", [1]),
    (f"?unused_since={DAY}12:30:00.900Z", [4]),
    (f"?unused_since={DAY}14:30:00.901%2B02:00", [4, 1]),
    (f"?state=all&expires_before={DAY}12:00:00.001Z", [2]),
    (f"?state=all&expires_before={DAY}12:00:00.000Z", []),
    (f"?state=all&owner={MEMBER}&never_used=true", [3, 2]),
)


def test_keys_are_listed_newest_first_and_filtered(client: Client) -> None:
    for query, numbers in FILTERED:
        assert _numbers(client.get(KEYS + query).json["items"]) == numbers, query


def test_pages_put_together_are_the_whole_list(client: Client) -> None:
    paths = (KEYS + "?state=all", f"/v1/orgs/{ORG}/users?", f"/v1/orgs/{ORG}/history?", f"{KEYS}/{key_id(1)}/history?")
    for path in paths:
        whole = client.get(path).json
        assert whole["next_cursor"] is None
        assert len(whole["items"]) >= 3
        assert client.items(path + "&limit=1") == whole["items"]
        assert client.items(path + "&limit=2") == whole["items"]
    assert client.items("/v1/orgs?limit=1", "operator") == client.get("/v1/orgs", "operator").json["items"]


def test_an_organisation_counts_what_it_has(client: Client) -> None:
    expected = {
        "org_id": ORG,
        "name": "Example",
        "keys_enabled": True,
        "revision": 12,
        "registered_at": f"{DAY}10:01:00.000Z",
        "halted": None,
        "active_keys": 2,
        "key_owners": 2,
        "users": 4,
        "never_used": 1,
        "last_activity_at": f"{DAY}12:30:00.900Z",
    }
    assert client.get(f"/v1/orgs/{ORG}").json == expected
    listed = client.get("/v1/orgs", "operator").json["items"]
    assert expected in listed
    assert sorted(org["org_id"] for org in listed) == [ORG, OTHER, "platform"]
    for_members = client.get(f"/v1/orgs/{ORG}", "member").json
    assert for_members == {name: expected[name] for name in for_members}
    assert "active_keys" not in for_members


def test_users_have_names_once_the_console_has_people(client: Client, database: str) -> None:
    path = f"/v1/orgs/{ORG}/users/{MEMBER}"
    assert client.get(path).json == {
        "user_id": MEMBER,
        "org_id": ORG,
        "kind": "person",
        "role": "member",
        "status": "active",
        "name": None,
        "email": None,
        "revision": 3,
        "created_at": f"{DAY}10:03:00.000Z",
        "active_keys": 1,
        "last_activity_at": f"{DAY}12:30:00.900Z",
    }
    with story.open_session(database) as session:
        session.execute("CREATE SCHEMA console")
        session.execute(
            "CREATE TABLE console.people (org_id text, user_id text, name text, email text, kind text, role text)"
        )
        session.execute(
            "INSERT INTO console.people VALUES (%s, %s, 'Ann', 'ann@example.org', 'person', 'x')", [ORG, MEMBER]
        )
        session.execute("INSERT INTO console.people VALUES (%s, NULL, 'Pending', NULL, 'person', 'x')", [ORG])
    assert (client.get(path).json["name"], client.get(path).json["email"]) == ("Ann", "ann@example.org")
    assert [key["owner_name"] for key in client.get(KEYS).json["items"]] == [None, "Ann"]
    assert [user["name"] for user in client.get(f"/v1/orgs/{ORG}/users").json["items"]] == [None, None, "Ann", None]
    assert client.get(f"{KEYS}/{key_id(1)}").json["owner_name"] == "Ann"
    assert client.get("/v1/me", "member").json["name"] == "Ann"


def test_a_users_keys_are_that_users(client: Client) -> None:
    path = f"/v1/orgs/{ORG}/users/{ROBOT}/keys"
    assert _numbers(client.get(path).json["items"]) == [4]
    assert _numbers(client.get(path, "robot").json["items"]) == [4]
    assert client.get(f"{path}?owner={MEMBER}").status_code == 400
    assert client.get(f"/v1/orgs/{ORG}/users/nobody/keys").status_code == 404


def test_the_history_of_a_key_merges_its_events_and_its_uses(client: Client, ledger: Ledger) -> None:
    entries = client.get(f"{KEYS}/{key_id(1)}/history").json["items"]
    assert [entry["type"] for entry in entries] == ["KeyCreated", "KeyRenamed", "KeyUsed", "KeyUsed", "KeyUsed"]
    created = entries[0]
    assert "digest" not in created["data"]
    assert created["data"]["name"] == "key 1"
    assert (created["revision"], created["void"], created["parent"]) == (
        7,
        False,
        client.items(f"/v1/orgs/{ORG}/history")[5]["hash"],
    )
    assert created["actor"] == {"user_id": ADMIN, "type": "user"}
    assert entries[4] == {
        "revision": None,
        "type": "KeyUsed",
        "time": f"{DAY}12:30:00.000Z",
        "actor": None,
        "data": {
            "key_id": key_id(1),
            "outcome": "VALID",
            "count": 5,
            "first_at": f"{DAY}12:30:00.000Z",
            "last_at": f"{DAY}12:30:00.500Z",
            "ip": None,
            "hour": f"{DAY}12:00:00.000Z",
        },
        "hash": None,
        "parent": None,
        "void": False,
    }


def test_the_history_of_an_organisation_is_its_chain_with_void_records_only_where_asked(
    client: Client, ledger: Ledger, log: MemoryLog, database: str
) -> None:
    race = ledger.value(events.KeyRenamed(key_id(1), "lost"))
    ledger.write(events.KeyRenamed(key_id(1), "won"))
    ledger.append(race)
    # A sealed record whose data is none of ours can lose a race too.
    ledger.append(
        ledger.value(events.OrgKeysDisabled(), revision=1, parent="0" * 64).replace(
            b'"data":{}', b'"data":{"a":"\\u0000"}'
        )
    )
    _go_on(log, database)
    path = f"/v1/orgs/{ORG}/history"
    chain = client.items(path)
    assert [entry["revision"] for entry in chain] == list(range(1, 14))
    assert [entry["parent"] for entry in chain[1:]] == [entry["hash"] for entry in chain[:-1]]
    with_void = client.items(path + "?void=include", "auditor")
    assert [entry["revision"] for entry in with_void if entry["void"]] == [1, 13]
    assert [entry for entry in with_void if not entry["void"]] == chain
    of_key = f"{KEYS}/{key_id(1)}/history"
    assert len(client.items(of_key + "?void=include")) == len(client.items(of_key)) + 1
    assert client.get(of_key + "?void=include", "member").status_code == 403


def test_a_halted_organisation_says_so(client: Client, ledger: Ledger, log: MemoryLog, database: str) -> None:
    offset = ledger.append(ledger.value(events.OrgKeysDisabled(), parent="ab" * 32))
    _go_on(log, database)
    answer = client.get(f"/v1/orgs/{ORG}", "operator")
    assert answer.headers["Keyledger-Halted"] == "fork"
    assert (answer.json["halted"]["why"], answer.json["halted"]["offsets"]) == ("fork", [offset])
    assert answer.json["keys_enabled"] is True
    assert client.get(KEYS).headers["Keyledger-Halted"] == "fork"
    assert "Keyledger-Halted" not in client.get("/v1/orgs", "operator").headers
    [halted] = [org for org in client.get("/v1/orgs", "operator").json["items"] if org["halted"]]
    assert halted["halted"]["offsets"] == [offset]


def test_me_is_who_calls(client: Client) -> None:
    me = client.get("/v1/me", "member").json
    assert (me["user_id"], me["org_id"], me["role"], me["kind"]) == (MEMBER, ORG, "member", "person")
    assert me["org"]["keys_enabled"] is True
    assert "key_id" not in me
    robot = client.get("/v1/me", "robot").json
    assert (robot["key_id"], robot["scopes"]) == ("k" * 22, ["keys:read"])


def test_a_read_waits_for_the_revision_it_asks_for(
    client: Client, ledger: Ledger, log: MemoryLog, database: str
) -> None:
    ledger.write(events.UserDisabled(ROBOT))
    later = threading.Timer(0.2, _go_on, (log, database))
    later.start()
    answer = client.get(f"/v1/orgs/{ORG}/users/{ROBOT}?min_revision=13")
    later.join()
    assert answer.json["status"] == "disabled"
    assert client.get(f"/v1/orgs/{ORG}?min_revision={ORG}:13").status_code == 200
    assert client.get(f"/v1/orgs?min_revision={ORG}:13", "operator").status_code == 200
    assert client.get(f"/v1/orgs/{ORG}?min_revision={OTHER}:1").status_code == 400
    assert client.get(f"/v1/me?min_revision={OTHER}:1").status_code == 400


def test_a_revision_that_does_not_come_is_a_503(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.projector.reads.WAIT_S", 0.05)
    for path in (f"/v1/orgs/{ORG}?min_revision=99", "/v1/orgs?min_revision=org_new:1"):
        answer = client.get(path, "operator")
        assert (answer.status_code, answer.json["code"]) == (503, "not_caught_up")


BAD_QUERIES = (
    *("limit=0", "limit=201", "limit=-1", "limit=x", "limit=1&limit=2", "limit=%D9%A1"),
    *("state=none", "owner=a%20b", "name=", "name=%00", "name=" + "x" * 101, "unused_since=yesterday"),
    *("unused_since=2026-02-30T00:00:00Z", "never_used=1", "expires_before=", "min_revision=x", "min_revision=-1"),
    *("void=include", "unknown=1", "cursor=", "cursor=%21", "cursor=bm9uZQ", "cursor=WzFd", "cursor=WyIiXQ"),
    "cursor=WyJcdTAwMDAiLCJcdTAwMDAiXQ",  # ["\0", "\0"]
    "cursor=" + "W1tb" * 200,
)


def test_a_bad_query_is_a_400_with_a_pointer(client: Client) -> None:
    for query in BAD_QUERIES:
        answer = client.get(f"{KEYS}?{query}")
        assert (answer.status_code, answer.content_type) == (400, "application/problem+json"), query
        assert answer.json["errors"][0]["pointer"] == "/" + query.partition("=")[0]


def test_a_cursor_of_a_history_cannot_be_out_of_range(client: Client) -> None:
    for cursor in ("WzkyMjMzNzIwMzY4NTQ3NzU4MDgsMF0", "Wy0xLDBd", "WyIiLDFd"):  # [2^63, 0], [-1, 0], ["", 1]
        assert client.get(f"/v1/orgs/{ORG}/history?cursor={cursor}").status_code == 400


def test_the_lag_is_told_once_it_is_known(client: Client, database: str) -> None:
    assert "Keyledger-Lag-Ms" not in client.get(KEYS).headers
    with story.open_session(database) as session:
        session.execute(
            "INSERT INTO freshness SELECT partition, %s FROM generate_series(0, 11) AS partition", [NOW_MS - 250]
        )
    assert client.get(KEYS).headers["Keyledger-Lag-Ms"] == "250"


def test_readiness_and_metrics_tell_how_the_follower_is_doing(client: Client, tmp_path: Path) -> None:
    assert client.get("/healthz", None).status_code == 200
    assert client.get("/readyz", None).json["code"] == "not_ready"
    told = Status(
        written_ms=NOW_MS - 100,
        caught_up=True,
        failure=None,
        as_of_ms=NOW_MS - 1500,
        counts={"batches": 3, "usage": 7},
        lag={"key-usage/3": 4},
        orgs_halted=2,
    )
    story.write_status(tmp_path / "status.json", told)
    assert client.get("/readyz", None).status_code == 200
    text = client.get("/metrics", None).text
    assert 'keyledger_projector_records_total{outcome="usage"} 7.0' in text
    assert 'keyledger_projector_lag_records{partition="3",topic="key-usage"} 4.0' in text
    assert "keyledger_projector_lag_seconds 1.5" in text
    assert "keyledger_projector_orgs_halted 2.0" in text
    story.write_status(
        tmp_path / "status.json", msgspec.structs.replace(told, failure="the log was cut", caught_up=False)
    )
    answer = client.get("/readyz", None)
    assert (answer.status_code, answer.json["detail"]) == (503, "the log was cut")
    assert "keyledger_projector_stopped 1.0" in client.get("/metrics", None).text


def test_a_reporter_tells_when_the_tables_held_the_whole_log(log: MemoryLog, database: str, tmp_path: Path) -> None:
    ledger, _ = story.tell_story(log)
    projector = story.new_projector(database)
    follower = Follower(log, story.PARTITIONS, projector, "test")
    path = tmp_path / "status.json"
    reporter = Reporter(follower, projector, lambda: story.open_session(database), path, lambda: NOW_MS)
    follower.start()
    assert follower.wait_for(story.at_of(ledger), 12, 10)
    eventually(lambda: follower.caught_up() and follower.lag(), 10, "the follower reaches the ends and knows them")
    reporter.report()
    follower.stop()
    reporter.start()
    reporter.stop()
    projector.close()
    status = StatusFile(path).read()
    assert status is not None
    assert status.caught_up
    assert status.counts["applied"] == 15
    assert status.as_of_ms is not None
    assert NOW_MS - 2000 <= status.as_of_ms <= NOW_MS
    assert len(story.rows(database, "SELECT FROM freshness")) == 12
