"""What the console's pages ask of the read API: searching, sorting, counting, and uses by hour or day."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from schemas import events
from services.ledger.memory_log import MemoryLog
from services.projector.database import read_pool
from services.projector.parameters import SORTS, to_cursor
from tests.integration import projector_story as story
from tests.integration.projector_story import ADMIN, AUDITOR, MEMBER, ORG, OTHER, ROBOT, Ledger, created, key_id, used
from tests.integration.read_api import Client, app_on

KEYS, USERS = f"/v1/orgs/{ORG}/keys", f"/v1/orgs/{ORG}/users"
GONE = "user_gone"
NAMES = {
    ADMIN: ("ÉMILE 100%", "emile@example.org"),
    MEMBER: ("ann", "Ann@Example.org"),
    AUDITOR: ("Bea_x", "bea@example.net"),
    ROBOT: ("Émile 1000", None),
}
# Key, hour, outcome, address: three uses each, beside those of the story.
USES = (
    (1, "2026-11-23T09", "VALID", "192.0.2.1"),
    (1, "2026-11-23T10", "VALID", "192.0.2.1"),
    (1, "2026-11-23T10", "VALID", None),
    (1, "2026-11-23T10", "REVOKED", None),
    (4, "2026-11-20T13", "VALID", None),
)


@pytest.fixture
def client(database: str, tmp_path: Path) -> Iterator[Client]:
    """The story goes on with an erased user and more uses; all others have names."""
    log = MemoryLog()
    Ledger(log, "platform").write(events.OrgRegistered(), events.UserAdded("user_operator", "person", "admin"))
    ledger, _ = story.tell_story(log)
    ledger.write(
        events.UserAdded(GONE, "person", "member"),
        created(5, owner=GONE),
        events.PersonErased(GONE),
        events.UserDisabled(AUDITOR),
        created(6, owner=ROBOT),
    )
    for sequence, (number, hour, outcome, ip) in enumerate(USES, 10):
        first_at, last_at = f"{hour}:10:00.000Z", f"{hour}:10:00.500Z"
        story.use(log, used(number, outcome, first_at=first_at, last_at=last_at, ip=ip, count=3), sequence)
    story.projected(database, log).close()
    _name_people(database)
    with read_pool(database, 4) as pool:
        yield Client(app_on(pool, tmp_path))


def _name_people(database: str) -> None:
    with story.open_session(database) as session:
        session.execute("CREATE SCHEMA console")
        session.execute("CREATE TABLE console.people (org_id text, user_id text, name text, email text, status text)")
        named: list[tuple[str | None, ...]] = [(ORG, user, *name) for user, name in NAMES.items()]
        named += [(ORG, None, "pending", "ann@pending.example"), (OTHER, ROBOT, "ann", "ann@other.example")]
        for row in named:
            session.execute("INSERT INTO console.people VALUES (%s, %s, %s, %s)", row)


def _users(client: Client, query: str) -> list[str]:
    return [user["user_id"] for user in client.items(f"{USERS}?{query}")]


def _keys(client: Client, query: str, path: str = KEYS) -> list[int]:
    return [int(key["last4"]) for key in client.items(f"{path}?{query}")]


SORTED = {
    "newest": [GONE, ROBOT, AUDITOR, MEMBER, ADMIN],
    "name": [MEMBER, AUDITOR, ADMIN, ROBOT, GONE],
    "active_keys": [ROBOT, MEMBER, GONE, AUDITOR, ADMIN],
    "last_activity": [MEMBER, ROBOT, GONE, AUDITOR, ADMIN],
}


def test_users_come_in_the_order_that_is_asked_for_and_newest_first_without(client: Client) -> None:
    assert set(SORTED) == set(SORTS)
    for sort, users in SORTED.items():
        assert _users(client, f"sort={sort}") == users, sort
    assert _users(client, "") == SORTED["newest"]


def test_pages_put_together_are_the_whole_list_in_every_order(client: Client) -> None:
    for sort, users in SORTED.items():
        for limit in (1, 2, 4):
            assert _users(client, f"sort={sort}&limit={limit}") == users, sort
    assert _users(client, f"sort=name&limit=1&search={quote('émile')}") == [ADMIN, ROBOT]
    assert _keys(client, "search=key&limit=1") == [6, 5, 4]


def test_a_cursor_of_another_order_is_refused(client: Client) -> None:
    for sort in SORTS:
        cursor = client.get(f"{USERS}?sort={sort}&limit=1").json["next_cursor"]
        for other in SORTS:
            answer = client.get(f"{USERS}?sort={other}&cursor={cursor}")
            assert answer.status_code == (200 if other == sort else 400), (sort, other)
            assert other == sort or answer.json["errors"][0]["pointer"] == "/cursor"


BAD_PLACES: tuple[tuple[str, list[Any]], ...] = (
    ("name", ["name", "ann", "a"]),
    ("name", ["name", "0\x00", "a"]),
    ("name", ["name", "1ann", "a"]),
    ("name", ["name", 1, "a"]),
    ("active_keys", ["active_keys", "1", "a"]),
    ("active_keys", ["active_keys", 2**63, "a"]),
    ("last_activity", ["last_activity", "yesterday", "a"]),
    ("newest", ["newest", "", "a b"]),
    ("newest", ["", "a"]),
)


def test_a_place_that_cannot_be_is_a_400(client: Client) -> None:
    for sort, place in BAD_PLACES:
        assert client.get(f"{USERS}?sort={sort}&cursor={to_cursor(place)}").status_code == 400, place
    half_a_pair = "WyJuYW1lIiwiMFx1ZDgwMCIsImEiXQ"  # ["name", "0\ud800", "a"]
    assert client.get(f"{USERS}?sort=name&cursor={half_a_pair}").status_code == 400


FOUND_USERS: tuple[tuple[str, list[str]], ...] = (
    ("émile", [ROBOT, ADMIN]),
    ("ÉMILE 1000", [ROBOT]),
    ("100%", [ADMIN]),
    ("%", [ADMIN]),
    ("a_x", [AUDITOR]),
    ("_", [AUDITOR]),
    ("\\", []),
    ("EXAMPLE.ORG", [MEMBER, ADMIN]),
    (ROBOT, [ROBOT]),
    (GONE, [GONE]),
    ("user_robo", []),
    ("pending", []),
    ("other.example", []),
)


def test_users_are_found_by_a_part_of_name_or_e_mail_or_by_their_id(client: Client) -> None:
    for search, users in FOUND_USERS:
        for sort in SORTS:
            assert sorted(_users(client, f"sort={sort}&search={quote(search)}")) == sorted(users), (search, sort)


def test_users_are_filtered_by_kind_and_status(client: Client) -> None:
    assert _users(client, "kind=service_account") == [ROBOT]
    assert _users(client, "kind=person&status=active") == [MEMBER, ADMIN]
    assert _users(client, "status=disabled") == [AUDITOR]
    assert _users(client, "status=erased&sort=last_activity") == [GONE]
    assert _users(client, "status=all") == SORTED["newest"]
    assert _users(client, "status=disabled&search=ann") == []


FOUND_KEYS: tuple[tuple[str, list[int]], ...] = (
    ("search=KEY", [6, 5, 4]),
    ("search=key&state=all", [6, 5, 4, 3, 2]),
    ("search=renamed", [1]),
    ("search=ann", [1]),
    ("search=ann&state=revoked", [3]),
    ("search=%C3%A9mile", [6, 4]),
    ("search=%25", []),
    ("search=100%25", []),
    ("search=ann%40example", [1]),
    ("search=key&never_used=true", [6, 5]),
    ("search=key&never_used=false", [4]),
    (f"search={key_id(5)}", [5]),
    (f"search={key_id(5)[:20]}", []),
    (f"search=key&owner={GONE}", [5]),
    ("search=other.example", []),
)


def test_keys_are_found_by_a_part_of_their_name_or_their_owner_or_by_their_id(client: Client) -> None:
    for query, numbers in FOUND_KEYS:
        assert _keys(client, query) == numbers, query
    assert _keys(client, "search=key%206", f"{USERS}/{ROBOT}/keys") == [6]
    assert _keys(client, "search=nothing", f"{USERS}/{ROBOT}/keys") == []


def test_without_the_consoles_table_lists_are_found_and_sorted_by_what_is_known(client: Client, database: str) -> None:
    with story.open_session(database) as session:
        session.execute("DROP SCHEMA console CASCADE")
    assert _users(client, "sort=name") == sorted([ADMIN, MEMBER, AUDITOR, ROBOT, GONE])
    assert _users(client, "search=ann") == []
    assert _users(client, f"search={ROBOT}") == [ROBOT]
    assert _keys(client, "search=key") == [6, 5, 4]
    assert client.get(f"{KEYS}/{key_id(1)}").json["owner_name"] is None


def test_an_organisation_counts_the_owners_of_its_active_keys(client: Client) -> None:
    org = client.get(f"/v1/orgs/{ORG}").json
    assert (org["active_keys"], org["key_owners"], org["never_used"], org["users"]) == (4, 3, 2, 4)
    assert org in client.get("/v1/orgs", "operator").json["items"]
    assert client.get("/v1/me").json["org"] == org
    [other] = [org for org in client.get("/v1/orgs", "operator").json["items"] if org["org_id"] == OTHER]
    assert (other["active_keys"], other["key_owners"], other["last_activity_at"]) == (0, 0, None)


def test_an_organisation_can_be_asked_without_counts_and_members_never_get_any(client: Client) -> None:
    org = client.get("/v1/me").json["org"]
    without = client.get("/v1/me?counts=exclude").json["org"]
    assert org.keys() - without.keys() == {"active_keys", "key_owners", "never_used", "users", "last_activity_at"}
    assert without == {name: org[name] for name in without}
    path = f"/v1/orgs/{ORG}"
    assert client.get(f"{path}?counts=exclude").json == client.get(f"{path}?counts=exclude", "operator").json == without
    assert client.get("/v1/me", "member").json["org"] == client.get(path, "member").json == without


def _usage(client: Client, query: str = "", number: int = 1) -> list[tuple[str, str, int]]:
    answer = client.get(f"{KEYS}/{key_id(number)}/usage?{query}")
    assert answer.status_code == 200, answer.text
    return [(item["start"], item["outcome"], item["count"]) for item in answer.json["items"]]


BY_HOUR = [
    ("2026-11-23T09:00:00.000Z", "VALID", 3),
    ("2026-11-23T10:00:00.000Z", "REVOKED", 3),
    ("2026-11-23T10:00:00.000Z", "VALID", 6),
]


def test_uses_are_added_up_by_day_and_outcome_over_the_last_thirty_days(client: Client) -> None:
    answer = client.get(f"{KEYS}/{key_id(1)}/usage").json
    assert (answer["from"], answer["to"], answer["step"]) == (
        "2026-10-24T00:00:00.000Z",
        "2026-11-23T16:00:00.000Z",
        "day",
    )
    assert answer["items"] == [
        {"start": "2026-11-20T00:00:00.000Z", "outcome": "VALID", "count": 8},
        {"start": "2026-11-23T00:00:00.000Z", "outcome": "REVOKED", "count": 3},
        {"start": "2026-11-23T00:00:00.000Z", "outcome": "VALID", "count": 9},
    ]
    assert _usage(client, number=6) == []


def test_uses_are_added_up_by_hour_over_the_last_two_days(client: Client) -> None:
    answer = client.get(f"{KEYS}/{key_id(1)}/usage?step=hour").json
    assert (answer["from"], answer["to"]) == ("2026-11-21T16:00:00.000Z", "2026-11-23T16:00:00.000Z")
    assert _usage(client, "step=hour") == BY_HOUR
    assert _usage(client, "step=hour&to=2026-11-20T13:00:00Z") == [("2026-11-20T12:00:00.000Z", "VALID", 8)]


def test_a_period_holds_the_hours_that_begin_in_it(client: Client) -> None:
    first = "from=2026-11-23T09:00:00Z"
    assert _usage(client, f"step=hour&{first}&to=2026-11-23T10:00:00Z") == BY_HOUR[:1]
    assert _usage(client, f"step=hour&{first}&to=2026-11-23T12:00:00.001%2B02:00") == BY_HOUR
    assert _usage(client, "step=hour&from=2026-11-23T09:00:00.001Z") == BY_HOUR[1:]
    assert _usage(client, "from=2026-11-23T10:00:00Z") == [
        ("2026-11-23T00:00:00.000Z", "REVOKED", 3),
        ("2026-11-23T00:00:00.000Z", "VALID", 6),
    ]
    assert _usage(client, "from=2026-11-23T10:00:00Z&to=2026-11-23T10:00:00Z") == []


BAD_PERIODS = (
    ("from=2026-11-24T00:00:00Z", "/from"),
    ("from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z", "/from"),
    ("from=2025-10-19T15:59:59.999Z", "/from"),
    ("step=hour&from=2026-10-23T15:59:59.999Z", "/from"),
    ("from=yesterday", "/from"),
    ("to=", "/to"),
    ("step=week", "/step"),
    ("limit=1", "/limit"),
    ("start=2026-11-23T09:00:00Z", "/start"),
)


def test_a_period_that_is_wrong_or_too_long_is_a_400_with_a_pointer(client: Client) -> None:
    for query, pointer in BAD_PERIODS:
        answer = client.get(f"{KEYS}/{key_id(1)}/usage?{query}")
        assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (400, pointer), query
    assert len(_usage(client, "from=2025-10-19T16:00:00Z")) == 3
    assert len(_usage(client, "step=hour&from=2026-10-23T16:00:00Z")) == 4


def test_the_history_of_a_key_can_leave_its_uses_out(client: Client) -> None:
    path = f"{KEYS}/{key_id(1)}/history"
    with_uses, without = client.items(path), client.items(path + "?uses=exclude&limit=1")
    assert [entry["type"] for entry in without] == ["KeyCreated", "KeyRenamed"]
    assert without == [entry for entry in with_uses if entry["type"] != "KeyUsed"]
    assert len(with_uses) > len(without)
    org_path = f"/v1/orgs/{ORG}/history"
    assert client.items(org_path + "?uses=exclude") == client.items(org_path)


BAD_QUERIES = (
    *(
        f"{USERS}?{query}"
        for query in ("search=", "search=%00", "sort=oldest", "kind=robot", "status=none", "state=all")
    ),
    *(f"{USERS}?{query}" for query in ("search=" + "x" * 101, "sort=name&sort=name", "kind=", "owner=a")),
    *(f"{KEYS}?{query}" for query in ("search=", "search=%E2%80%AE", "sort=name", "kind=person", "status=all")),
    *(f"{KEYS}/{key_id(1)}/history?{query}" for query in ("uses=perhaps", "uses=", "search=a")),
    *(
        f"{path}?{query}"
        for path in ("/v1/me", f"/v1/orgs/{ORG}")
        for query in ("counts=include", "search=a", "uses=exclude")
    ),
)


def test_a_parameter_that_is_wrong_or_of_another_call_is_a_400_with_a_pointer(client: Client) -> None:
    for path in BAD_QUERIES:
        answer = client.get(path)
        assert answer.status_code == 400, path
        assert answer.json["errors"][0]["pointer"] == "/" + path.partition("?")[2].partition("=")[0]
