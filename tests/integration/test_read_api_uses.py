"""Uses of an organisation, a user and a key: added up by hour or day, refused ones with their addresses, uncounted ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas import events
from schemas.times import to_ms
from schemas.topics import EXTERNAL_USAGE, USAGE
from services.ledger.memory_log import MemoryLog
from services.projector.database import read_pool
from services.projector.parameters import REFUSALS, to_cursor
from tests.integration import projector_story as story
from tests.integration.projector_story import ADMIN, MEMBER, ORG, OTHER, ROBOT, Ledger, created, key_id, used
from tests.integration.read_api import Client, app_on

HOME = f"/v1/orgs/{ORG}"
# Key, day and hour of November, outcome, address, count; beside those of the story, of which one is refused.
USES = (
    (1, "22T09", "VALID", "192.0.2.1", 4),
    (1, "22T10", "IP_NOT_ALLOWED", "10.0.0.9", 2),
    (3, "22T10", "REVOKED", "10.0.0.7", 3),
    (3, "23T10", "REVOKED", "10.0.0.7", 4),
    (3, "23T09", "REVOKED", "10.0.0.8", 1),
    (3, "23T09", "REVOKED", None, 6),
    (4, "23T11", "REVOKED", "10.0.0.7", 5),
    (4, "23T12", "VALID", "192.0.2.2", 7),
    (9, "23T13", "EXPIRED", "other", 1),
)
Tried = tuple[int, str, str | None, int]


@pytest.fixture
def client(database: str, tmp_path: Path) -> Iterator[Client]:
    """The story goes on with more uses; key 9 is one that nobody has heard of yet."""
    log = MemoryLog()
    Ledger(log, "platform").write(events.OrgRegistered(), events.UserAdded("user_operator", "person", "admin"))
    _, other = story.tell_story(log)
    other.write(created(11, owner="user_other"))
    for sequence, (number, hour, outcome, ip, count) in enumerate(USES, 10):
        first_at, last_at = f"2026-11-{hour}:10:00.000Z", f"2026-11-{hour}:10:00.500Z"
        use = used(number, outcome, first_at=first_at, last_at=last_at, ip=ip, count=count)
        story.use(log, use, sequence)
    elsewhere = used(11, "REVOKED", org_id=OTHER, user_id="user_other", first_at="2026-11-23T10:00:00.000Z")
    story.use(log, elsewhere, 99)
    story.projected(database, log).close()
    with read_pool(database, 4) as pool:
        yield Client(app_on(pool, tmp_path))


def _tried(client: Client, path: str, caller: str = "admin") -> list[Tried]:
    items = client.items(HOME + path, caller)
    numbers = {key_id(number): number for number in range(1, 12)}
    return [(numbers[one["key_id"]], one["outcome"], one["ip"], one["count"]) for one in items]


REVOKED: list[Tried] = [
    (4, "REVOKED", "10.0.0.7", 5),
    (3, "REVOKED", "10.0.0.7", 7),
    (3, "REVOKED", "10.0.0.8", 1),
    (3, "REVOKED", None, 6),
    (3, "REVOKED", "192.0.2.7", 1),
]
EVERY: list[Tried] = [(9, "EXPIRED", "other", 1), *REVOKED]
EVERY.insert(-1, (1, "IP_NOT_ALLOWED", "10.0.0.9", 2))


def test_refused_uses_are_listed_by_key_outcome_and_address_last_tried_first(client: Client) -> None:
    assert _tried(client, "/refused-uses") == REVOKED
    assert _tried(client, "/refused-uses?outcome=REVOKED") == REVOKED
    assert _tried(client, "/refused-uses?outcome=all") == EVERY
    for outcome in REFUSALS:
        expected = [one for one in EVERY if one[1] == outcome]
        assert _tried(client, f"/refused-uses?outcome={outcome}") == expected, outcome
    for limit in (1, 2, 5):
        assert _tried(client, f"/refused-uses?outcome=all&limit={limit}") == EVERY, limit


def test_a_refused_use_tells_whose_key_was_tried_from_where_and_how_often(client: Client, database: str) -> None:
    _name(database, MEMBER, "Ann")
    first, second = client.get(f"{HOME}/refused-uses?limit=2").json["items"]
    assert second == {
        "key_id": key_id(3),
        "name": "key 3",
        "user_id": MEMBER,
        "owner_name": "Ann",
        "outcome": "REVOKED",
        "ip": "10.0.0.7",
        "count": 7,
        "first_at": "2026-11-22T10:10:00.000Z",
        "last_at": "2026-11-23T10:10:00.500Z",
    }
    # The owner is the ledger's, whatever its event said.
    assert (first["name"], first["user_id"], first["owner_name"]) == ("key 4", ROBOT, None)
    [unknown] = client.get(f"{HOME}/refused-uses?outcome=EXPIRED").json["items"]
    assert (unknown["name"], unknown["user_id"]) == (None, MEMBER)


def test_refused_uses_of_a_key_or_a_user_are_those_of_the_organisation_that_are_theirs(client: Client) -> None:
    assert _tried(client, f"/keys/{key_id(3)}/refused-uses") == REVOKED[1:]
    assert _tried(client, f"/keys/{key_id(3)}/refused-uses?limit=1", "member") == REVOKED[1:]
    assert _tried(client, f"/users/{ROBOT}/refused-uses", "robot") == REVOKED[:1]
    assert _tried(client, f"/users/{MEMBER}/refused-uses?outcome=all") == [one for one in EVERY if one[0] in (1, 3)]
    assert _tried(client, f"/users/{ADMIN}/refused-uses?outcome=all") == []
    assert client.get(f"{HOME}/users/nobody/refused-uses").status_code == 404
    assert client.get(f"{HOME}/keys/{key_id(9)}/refused-uses").status_code == 404


def test_refused_uses_are_those_of_the_hours_that_begin_in_the_period(client: Client) -> None:
    day = "from=2026-11-23T00:00:00Z&to=2026-11-23T11:00:00Z"
    assert _tried(client, f"/refused-uses?{day}") == [(3, "REVOKED", "10.0.0.7", 4), *REVOKED[2:4]]
    assert _tried(client, "/refused-uses?to=2026-11-01T00:00:00Z") == []
    for query, pointer in (
        ("from=2026-11-24T00:00:00Z", "/from"),
        ("outcome=VALID", "/outcome"),
        ("step=day", "/step"),
    ):
        answer = client.get(f"{HOME}/refused-uses?{query}")
        assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (400, pointer), query


BAD_PLACES: tuple[list[Any], ...] = (
    ["", key_id(1), "REVOKED", ""],
    ["2026-11-23T10:10:00.500Z", "a b", "REVOKED", ""],
    ["2026-11-23T10:10:00.500Z", key_id(1), "REVOKED"],
    ["2026-11-23T10:10:00.500Z", key_id(1), "REVOKED", "\x00"],
    [1, EXTERNAL_USAGE, 0],
    [1, "key-lifecycle", 0, 0],
    [2**63, EXTERNAL_USAGE, 0, 0],
)


def test_a_cursor_of_another_list_is_a_400(client: Client) -> None:
    for place in BAD_PLACES:
        for path in ("refused-uses", "quarantined-uses"):
            answer = client.get(f"{HOME}/{path}?cursor={to_cursor(place)}")
            assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (400, "/cursor"), place


def _usage(client: Client, path: str, caller: str = "admin") -> list[tuple[str, str, int]]:
    answer = client.get(HOME + path, caller)
    assert answer.status_code == 200, answer.text
    return [(item["start"][8:13], item["outcome"], item["count"]) for item in answer.json["items"]]


def test_the_uses_of_an_organisation_are_those_of_all_its_keys(client: Client) -> None:
    assert _usage(client, "/usage") == [
        ("20T00", "REVOKED", 1),
        ("20T00", "VALID", 8),
        ("22T00", "IP_NOT_ALLOWED", 2),
        ("22T00", "REVOKED", 3),
        ("22T00", "VALID", 4),
        ("23T00", "EXPIRED", 1),
        ("23T00", "REVOKED", 16),
        ("23T00", "VALID", 7),
    ]
    hours = _usage(client, "/usage?step=hour&from=2026-11-23T10:00:00Z&to=2026-11-23T12:00:00Z")
    assert hours == [("23T10", "REVOKED", 4), ("23T11", "REVOKED", 5)]


def test_the_uses_of_a_user_are_those_of_the_users_keys(client: Client) -> None:
    assert _usage(client, f"/users/{ROBOT}/usage", "robot") == [("23T00", "REVOKED", 5), ("23T00", "VALID", 7)]
    assert _usage(client, f"/users/{MEMBER}/usage?from=2026-11-23T00:00:00Z", "member") == [("23T00", "REVOKED", 11)]
    assert _usage(client, f"/users/{ADMIN}/usage") == []
    answer = client.get(f"{HOME}/users/{MEMBER}/usage?step=hour")
    assert {name: answer.json[name] for name in ("from", "to", "step")} == {
        "from": "2026-11-21T16:00:00.000Z",
        "to": "2026-11-23T16:00:00.000Z",
        "step": "hour",
    }
    assert client.get(f"{HOME}/users/nobody/usage").status_code == 404


# Topic, partition, offset, reason, organisation, time.
QUARANTINED = (
    (EXTERNAL_USAGE, 3, 17, "unknown_key", ORG, "2026-11-23T09:00:00.000Z"),
    (EXTERNAL_USAGE, 4, 2, "wrong_org", ORG, "2026-11-23T10:00:00.000Z"),
    (USAGE, 4, 2, "future", ORG, "2026-11-23T10:00:00.000Z"),
    (EXTERNAL_USAGE, 4, 3, "waiting", OTHER, "2026-11-23T11:00:00.000Z"),
)


def _quarantine(database: str) -> None:
    columns = '"offset", reason, source, id, org_id, key_id, outcome, count, last_at, sent_ms, value'
    with story.open_session(database) as session:
        for topic, partition, offset, reason, org, at in QUARANTINED:
            row = [
                topic,
                partition,
                offset,
                reason,
                "billing",
                "id-1",
                org,
                key_id(8),
                "VALID",
                3,
                at,
                to_ms(at),
                b"{}",
            ]
            session.execute(
                f"INSERT INTO usage_quarantine (topic, partition, {columns})"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                row,
            )


def _places(items: list[dict[str, Any]]) -> list[tuple[str, int, int, str]]:
    return [(one["topic"], one["partition"], one["offset"], one["reason"]) for one in items]


def test_uses_that_were_not_counted_are_listed_with_the_reason_last_sent_first(client: Client, database: str) -> None:
    assert client.get(f"{HOME}/quarantined-uses").json == {"items": [], "next_cursor": None}
    _quarantine(database)
    mine = [
        (EXTERNAL_USAGE, 4, 2, "wrong_org"),
        (USAGE, 4, 2, "future"),
        (EXTERNAL_USAGE, 3, 17, "unknown_key"),
    ]
    for caller in ("admin", "auditor", "operator"):
        assert _places(client.items(f"{HOME}/quarantined-uses?limit=1", caller)) == mine
    everybodys = _places(client.items("/v1/quarantined-uses?limit=2", "operator"))
    assert everybodys == [(EXTERNAL_USAGE, 4, 3, "waiting"), *mine]
    assert client.get(f"{HOME}/quarantined-uses").json["items"][2] == {
        "topic": EXTERNAL_USAGE,
        "partition": 3,
        "offset": 17,
        "reason": "unknown_key",
        "source": "billing",
        "id": "id-1",
        "org_id": ORG,
        "key_id": key_id(8),
        "outcome": "VALID",
        "count": 3,
        "last_at": "2026-11-23T09:00:00.000Z",
    }


def test_a_read_that_takes_too_long_is_ended_and_says_so(client: Client, database: str, tmp_path: Path) -> None:
    with story.open_session(database) as session, session.transaction():
        session.execute("LOCK TABLE key_usage_hours")
        with read_pool(database, 1, timeout_ms=50) as pool:
            hasty = Client(app_on(pool, tmp_path))
            answer = hasty.get(f"{HOME}/usage")
            assert (answer.status_code, answer.json["code"]) == (503, "too_slow")
            assert hasty.get(HOME).status_code == 200
    assert client.get(f"{HOME}/usage").status_code == 200


def _name(database: str, user: str, name: str) -> None:
    with story.open_session(database) as session:
        session.execute("CREATE SCHEMA console")
        session.execute("CREATE TABLE console.people (org_id text, user_id text, name text, email text, status text)")
        session.execute("INSERT INTO console.people VALUES (%s, %s, %s)", [ORG, user, name])
