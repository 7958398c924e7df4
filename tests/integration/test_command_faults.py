"""What the command API says when the log is away, when others are always first, and when an organisation is halted."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from schemas.codec import canonical
from schemas.topics import LIFECYCLE, partition_of
from services.ledger import append
from services.ledger.log import Message
from services.ledger.seal import LedgerKeys, new_keys
from tests.integration.command_log import TroubledLog, events_of, records_of
from tests.integration.command_parts import CommandWorld, check_problem, running_command_api
from tests.integration.test_command_roles import TABLE
from tests.waiting import eventually

KEYS = "/v1/orgs/acme/keys"


@pytest.fixture
def log() -> TroubledLog:
    return TroubledLog()


@pytest.fixture
def keys() -> LedgerKeys:
    return new_keys()


@pytest.fixture
def world(tmp_path: Path, log: TroubledLog, keys: LedgerKeys) -> Iterator[CommandWorld]:
    with running_command_api(tmp_path / "mine", log, keys) as running:
        yield running


@pytest.fixture
def rival(tmp_path: Path, log: TroubledLog, keys: LedgerKeys, world: CommandWorld) -> Iterator[CommandWorld]:
    """Another command API on the same log, which knows the same people."""
    with running_command_api(tmp_path / "rival", log, keys) as running:
        running.beside.signing = world.beside.signing
        yield running


@pytest.fixture
def admin(world: CommandWorld) -> str:
    return world.org("acme")


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, check_problem(answer)["code"]


def test_while_the_log_is_away_every_command_is_a_503_and_afterwards_all_goes_on(
    world: CommandWorld, admin: str, log: TroubledLog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(append, "WAIT_S", 0.3)
    key, before = world.key("acme", admin), world.head("acme")
    log.away = True
    assert code(world.call("POST", KEYS, admin, {"name": "new"})) == (503, "log_unavailable")
    assert code(world.call("DELETE", f"{KEYS}/{key['key_id']}", admin)) == (503, "log_unavailable")
    # A refusal rests on the state, which may be old now: it is not given.
    assert code(world.call("POST", KEYS, admin, {"name": "ci"})) == (503, "log_unavailable")
    assert code(world.call("DELETE", f"{KEYS}/{'x' * 22}", admin)) == (503, "log_unavailable")
    log.away = False
    eventually(lambda: world.call("POST", KEYS, admin, {"name": "ci"}).status_code == 409, 10, "refusals are back")
    eventually(lambda: world.call("DELETE", f"{KEYS}/{key['key_id']}", admin).status_code == 200, 10, "commands too")
    assert world.head("acme").revision == before.revision + 1


def first_once(log: TroubledLog, rival: CommandWorld, admin: str, name: str) -> None:
    """Let the rival create a key just before the next event is written."""

    def trouble(_when: str) -> None:
        log.trouble = lambda _when: None
        rival.done("POST", KEYS, admin, {"name": name})

    log.trouble = trouble


def test_a_lost_race_is_decided_again_on_the_new_head(
    world: CommandWorld, rival: CommandWorld, admin: str, log: TroubledLog
):
    first_once(log, rival, admin, "theirs")
    mine = world.done("POST", KEYS, admin, {"name": "mine"})
    revisions = [event["revision"] for event in events_of(log, "acme") if event["type"] == "KeyCreated"]
    assert revisions == [mine["revision"] - 1, mine["revision"] - 1, mine["revision"]]
    assert world.appender.races_lost == 1


def test_who_loses_the_race_for_a_name_is_refused(
    world: CommandWorld, rival: CommandWorld, admin: str, log: TroubledLog
):
    first_once(log, rival, admin, "ci")
    assert code(world.call("POST", KEYS, admin, {"name": "ci"})) == (409, "name_taken")


def test_who_is_never_first_is_told_that_the_organisation_is_busy(
    world: CommandWorld, rival: CommandWorld, admin: str, log: TroubledLog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(append, "RACE_S", 0.2)
    rivals_turn = [False]

    def always_first(when: str) -> None:
        if when == "before" and not rivals_turn[0]:
            rivals_turn[0] = True
            rival.done("POST", "/v1/orgs/acme/users", admin, {"kind": "person", "role": "member"})
            rivals_turn[0] = False

    log.trouble = always_first
    assert code(world.call("POST", KEYS, admin, {"name": "ci"})) == (503, "busy")
    log.trouble = lambda _when: None
    assert world.call("POST", KEYS, admin, {"name": "ci"}).status_code == 201


def test_who_waits_too_long_behind_the_own_threads_is_told_busy(
    world: CommandWorld, admin: str, log: TroubledLog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(append, "RACE_S", 0.2)
    writing, go_on = Event(), Event()

    def hold(when: str) -> None:
        if when == "before":
            writing.set()
            go_on.wait(10)

    log.trouble = hold
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.call, "POST", KEYS, admin, {"name": "first"})
        assert writing.wait(10)
        assert code(world.call("POST", KEYS, admin, {"name": "second"})) == (503, "busy")
        go_on.set()
        assert first.result().status_code == 201


def fork(log: TroubledLog, keys: LedgerKeys, org: str) -> int:
    """Append a sealed event of another history; its offset."""
    partition = partition_of(org)
    last = [record for record in records_of(log, LIFECYCLE, partition) if record.key == org.encode()][-1]
    value = canonical(json.loads(last.value or b"") | {"parent": "f" * 64})
    return log.append(Message(LIFECYCLE, partition, org.encode(), value, keys.seal(value)), 5)


def test_a_halted_organisation_is_closed_and_alone_until_an_operator_resumes_it(
    world: CommandWorld, admin: str, log: TroubledLog, keys: LedgerKeys
):
    user, key, other = world.user("acme", "member")[0], world.key("acme", admin)["key_id"], world.org("other")
    offset = fork(log, keys, "acme")
    eventually(lambda: world.is_halted("acme"), 10, "the organisation is halted")
    resume = "/v1/orgs/acme/resume"
    for method, rule, body, _ in TABLE:
        path = rule.replace("<org>", "acme").replace("<user>", user).replace("<key>", key).replace("<revision>", "1")
        if "<org>" in rule and path != resume:
            assert code(world.call(method, path, admin, body)) == (503, "org_halted"), rule
            assert code(world.call(method, path, world.operator(), body)) == (503, "org_halted"), rule
            assert code(world.call(method, path, other, body)) == (404, "not_found"), rule
    assert code(world.call("POST", "/v1/orgs", world.operator(), {"org_id": "acme"})) == (503, "org_halted")
    assert world.call("POST", "/v1/orgs/other/keys", other, {"name": "ci"}).status_code == 201
    body = {"offsets": [offset], "reason": "a copy of the test"}
    assert code(world.call("POST", resume, admin, body)) == (403, "forbidden")
    elsewhere = world.done("POST", resume, world.operator(), body | {"offsets": [offset + 9]})
    assert elsewhere["halted"] is True
    assert world.done("POST", resume, world.operator(), body)["halted"] is False
    assert code(world.call("POST", resume, world.operator(), body)) == (409, "not_halted")
    assert world.call("POST", KEYS, admin, {"name": "after"}).status_code == 201


def test_commands_are_counted_by_call_and_outcome(world: CommandWorld, admin: str):
    world.key("acme", admin)
    world.call("POST", KEYS, admin, {"name": "ci"})
    text = world.call("GET", "/metrics", None).get_data(as_text=True)
    assert 'keyledger_commands_total{call="calls.create_key",outcome="201"} 1.0' in text
    assert 'keyledger_commands_total{call="calls.create_key",outcome="name_taken"} 1.0' in text


def test_an_error_of_ours_is_a_problem_that_tells_nothing(
    world: CommandWorld, admin: str, monkeypatch: pytest.MonkeyPatch
):
    def broken(_prefix: str) -> Any:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(world.sources, "mint", broken)
    answer = world.call("POST", KEYS, admin, {"name": "ci"})
    assert answer.status_code == 500
    assert answer.get_json()["code"] == "internal_error"
    assert "secret detail" not in answer.get_data(as_text=True)
