"""POST /v1/usage: uses that other services saw go to the log, all or none."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from schemas.times import to_text, wall_clock_ms
from schemas.topics import EXTERNAL_USAGE, PARTITIONS, partition_of
from services.ledger.records import Record
from services.ledger.seal import new_keys
from services.ledger.store import Store
from tests.integration.command_log import TroubledLog, records_of
from tests.integration.command_parts import CommandWorld, check_problem, running_command_api

SCOPES = ["usage:write"]


@pytest.fixture
def log() -> TroubledLog:
    return TroubledLog()


@pytest.fixture
def world(tmp_path: Path, log: TroubledLog) -> Iterator[CommandWorld]:
    with running_command_api(tmp_path, log) as running:
        yield running


@pytest.fixture
def admin(world: CommandWorld) -> str:
    return world.org("acme")


@pytest.fixture
def key(world: CommandWorld, admin: str) -> dict[str, Any]:
    """A key that may report its own use."""
    return world.key("acme", admin, scopes=SCOPES)


def use(key_id: str, **more: Any) -> dict[str, Any]:
    return {"id": "u1", "key_id": key_id, "outcome": "VALID", "at": "2026-01-01T02:00:00.5+02:00"} | more


def published(log: TroubledLog) -> list[Record]:
    return [record for partition in range(PARTITIONS) for record in records_of(log, EXTERNAL_USAGE, partition)]


def errors(answer: Any) -> dict[str, str]:
    """The errors of a 400 by pointer."""
    assert answer.status_code == 400, answer.get_data(as_text=True)
    return {error["pointer"]: error["detail"] for error in check_problem(answer)["errors"]}


def test_a_use_is_published_with_its_org_and_owner(world: CommandWorld, key: dict[str, Any], log: TroubledLog):
    body = [use(key["key_id"], count=3, ip="192.0.2.1", user_agent="pipeline/1")]
    assert world.done("POST", "/v1/usage", key["key"], body) == {"accepted": 1}
    (record,) = published(log)
    document = json.loads(record.value or b"")
    assert (record.key, record.partition) == (key["key_id"].encode(), partition_of(key["key_id"]))
    assert (document["id"], document["source"], document["type"]) == ("u1", "keyledger/usage/acme", "KeyUsed")
    assert document["data"] == {
        "key_id": key["key_id"],
        "org_id": "acme",
        "user_id": key["user_id"],
        "outcome": "VALID",
        "count": 3,
        "first_at": "2026-01-01T00:00:00.500Z",
        "last_at": "2026-01-01T00:00:00.500Z",
        "ip": "192.0.2.1",
        "user_agent": "pipeline/1",
    }


def test_one_bad_use_among_good_ones_and_nothing_is_taken(world: CommandWorld, key: dict[str, Any], log: TroubledLog):
    good, key_id = use(key["key_id"]), key["key_id"]
    bad: list[Any] = [
        use(key_id, id=""),
        use(key_id, outcome="FINE"),
        use(key_id, at="yesterday"),
        use(key_id, count=0),
        use(key_id, count=1.5),
        use(key_id, ip="localhost"),
        use(key_id, user_agent="x" * 201),
        use("short"),
        use(key_id, surprise=1),
        "no object",
    ]
    pointers = errors(world.call("POST", "/v1/usage", key["key"], [good, *bad]))
    names = ["id", "outcome", "at", "count", "count", "ip", "user_agent", "key_id", "surprise"]
    assert set(pointers) == {f"/{at}/{name}" for at, name in enumerate(names, 1)} | {"/10"}
    assert published(log) == []


def test_a_list_has_one_to_a_thousand_uses(world: CommandWorld, key: dict[str, Any], log: TroubledLog):
    one = use(key["key_id"])
    for body in ([], [one] * 1001, one, {}):
        assert errors(world.call("POST", "/v1/usage", key["key"], body)) == {"": "must be such an array"}
    assert world.call("POST", "/v1/usage", key["key"]).status_code == 400
    assert published(log) == []
    many = [use(key["key_id"], id=f"u{number}") for number in range(1000)]
    assert world.done("POST", "/v1/usage", key["key"], many) == {"accepted": 1000}
    assert len(published(log)) == 1000


def test_an_org_reports_only_its_own_keys_and_the_platform_reports_any(
    world: CommandWorld, key: dict[str, Any], log: TroubledLog
):
    other = world.key("other", world.org("other"), scopes=SCOPES)
    operator = world.operator()
    world.done("PUT", "/v1/orgs/platform/keys-enabled", operator, {"enabled": True})
    platform = world.key("platform", operator, scopes=SCOPES)["key"]
    both = [use(key["key_id"]), use(other["key_id"])]
    assert errors(world.call("POST", "/v1/usage", key["key"], both)) == {"/1/key_id": "is no key of this organisation"}
    assert published(log) == []
    assert world.done("POST", "/v1/usage", platform, both) == {"accepted": 2}
    owners = {json.loads(record.value or b"")["data"]["org_id"] for record in published(log)}
    assert owners == {"acme", "other"}
    assert errors(world.call("POST", "/v1/usage", platform, [use("x" * 22)])) == {
        "/0/key_id": "is no key of this organisation"
    }


def test_a_use_lies_in_the_past_or_at_most_a_minute_ahead(world: CommandWorld, key: dict[str, Any]):
    soon, later = to_text(wall_clock_ms() + 30_000), to_text(wall_clock_ms() + 120_000)
    assert world.call("POST", "/v1/usage", key["key"], [use(key["key_id"], at=soon)]).status_code == 202
    answer = world.call("POST", "/v1/usage", key["key"], [use(key["key_id"]), use(key["key_id"], at=later)])
    assert errors(answer) == {"/1/at": "is in the future"}


def test_the_uses_of_a_revoked_key_are_taken(world: CommandWorld, admin: str, key: dict[str, Any]):
    old = world.key("acme", admin, "old")["key_id"]
    world.done("DELETE", f"/v1/orgs/acme/keys/{old}", admin)
    assert world.done("POST", "/v1/usage", key["key"], [use(old, outcome="REVOKED")]) == {"accepted": 1}


@contextmanager
def paused(store: Store) -> Iterator[Event]:
    """Nothing new reaches the store until the event is set: its one writer's place is taken."""
    begun, go_on = Event(), Event()

    def hold() -> None:
        with store.write():
            begun.set()
            go_on.wait(10)

    thread = Thread(target=hold)
    thread.start()
    assert begun.wait(10)
    try:
        yield go_on
    finally:
        go_on.set()
        thread.join()


def test_a_key_that_was_just_created_elsewhere_is_waited_for(
    tmp_path: Path, log: TroubledLog, monkeypatch: pytest.MonkeyPatch
):
    keys = new_keys()
    with (
        running_command_api(tmp_path / "1", log, keys) as here,
        running_command_api(tmp_path / "2", log, keys) as there,
    ):
        admin = here.org("acme")
        there.beside.signing = here.beside.signing
        reporter = here.key("acme", admin, "reporter", scopes=SCOPES)["key"]
        with paused(here.store) as go_on:
            fresh = there.key("acme", admin, "fresh")["key_id"]
            reach_end = here.follower.reach_end

            def after_release(*args: Any) -> None:
                go_on.set()
                reach_end(*args)

            monkeypatch.setattr(here.follower, "reach_end", after_release)
            assert here.done("POST", "/v1/usage", reporter, [use(fresh)]) == {"accepted": 1}


def test_while_the_log_is_away_no_use_is_taken_and_the_same_list_may_come_again(
    world: CommandWorld, key: dict[str, Any], log: TroubledLog
):
    log.fail_once("before")
    answer = world.call("POST", "/v1/usage", key["key"], [use(key["key_id"])])
    assert (answer.status_code, check_problem(answer)["code"]) == (503, "outcome_unknown")
    log.away = True
    answer = world.call("POST", "/v1/usage", key["key"], [use(key["key_id"])])
    assert (answer.status_code, check_problem(answer)["code"]) == (503, "log_unavailable")
    log.away = False
    assert world.done("POST", "/v1/usage", key["key"], [use(key["key_id"])]) == {"accepted": 1}
