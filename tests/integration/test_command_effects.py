"""What takes rights away says when it is in effect everywhere: the floor, the wait, 202 and the status of a revision."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from secrets import token_hex
from threading import Event
from typing import Any

import pytest
from werkzeug.test import TestResponse

from schemas.topics import CHECKER_STATUS, LIFECYCLE, partition_of
from services.command_api import effects, floors
from services.command_api.effect import Target
from services.command_api.effects import Effects, boot_ns
from services.ledger.log import Log, Message, OutcomeUnknown
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from services.ledger.seal import LedgerKeys, new_keys
from services.ledger.store import Store
from tests.integration.command_log import records_of
from tests.integration.command_parts import CommandWorld, check_problem, running_command_api
from tests.integration.pulsing import PulsingChecker, floors_of, pulsing, say
from tests.waiting import eventually

KEYS = "/v1/orgs/acme/keys"
M_MS, WAIT_MS = 400, 500
MOST_WAITING = 2
ASYNC = {"Prefer": "respond-async"}
STATUS = TopicPartition(CHECKER_STATUS, 0)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.ms, self._start_ns = 0, boot_ns()

    def now_ns(self) -> int:
        return self._start_ns + self.ms * 1_000_000


class StatusTrouble(MemoryLog):
    """A log whose `checker-status` takes nothing while `trouble` raises or waits."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: Callable[[], None] = lambda: None

    def append_all(self, messages: Sequence[Message], timeout_s: float) -> list[int]:
        if messages[0].topic == CHECKER_STATUS:
            self.trouble()
        return super().append_all(messages, timeout_s)


def not_acknowledged() -> None:
    raise OutcomeUnknown("not acknowledged in time")


@pytest.fixture
def log() -> StatusTrouble:
    return StatusTrouble()


@pytest.fixture
def keys() -> LedgerKeys:
    return new_keys()


@pytest.fixture
def clock() -> Clock:
    return Clock()


Starting = Callable[[], AbstractContextManager[CommandWorld]]


@pytest.fixture
def start(tmp_path: Path, log: StatusTrouble, keys: LedgerKeys, clock: Clock) -> Starting:
    """Starts a command API on the same store and log each time."""

    def effects_of(log: Log, store: Store, keys: LedgerKeys) -> Effects:
        return Effects(log, store, keys, M_MS, MOST_WAITING, clock.now_ns)

    return lambda: running_command_api(tmp_path, log, keys, effects_of=effects_of)


@pytest.fixture
def world(start: Starting, clock: Clock) -> Iterator[CommandWorld]:
    """A command API that has read `checker-status` for longer than M + margin."""
    with start() as running:
        listening(running)
        clock.ms += WAIT_MS
        yield running


@pytest.fixture
def admin(world: CommandWorld) -> str:
    return world.org("acme")


def listening(world: CommandWorld) -> None:
    """Wait until the topic is read."""
    polled = world.effects.listener.idle_s
    eventually(lambda: polled() < 0.04, 10, "checker-status is read")


def revoke(world: CommandWorld, admin: str, **headers: str) -> TestResponse:
    """Make a key and revoke it."""
    key = world.key("acme", admin, token_hex(6))["key_id"]
    return world.call("DELETE", f"{KEYS}/{key}", admin, **headers)


def is_effective(world: CommandWorld, admin: str, answer: TestResponse) -> bool:
    """What the status of an answer's revision says now."""
    return bool(world.done("GET", answer.get_json()["status_url"], admin)["effective"])


def is_pending(answer: TestResponse) -> bool:
    """Whether an answer says that its effect is not known yet, and where that will be told."""
    document = answer.get_json()
    told = {name: document[name] for name in ("effective", "effective_ms", "status_url")}
    url = f"/v1/orgs/acme/effects/{document['revision']}"
    return (
        answer.status_code == 202
        and told == {"effective": False, "effective_ms": None, "status_url": url}
        and answer.headers["Location"] == url
    )


TAKING: list[tuple[str, str, Any]] = [
    ("DELETE", "/keys/<key>", {}),
    ("PUT", "/keys-enabled", {"enabled": False}),
    ("PUT", "/users/<user>/enabled", {"enabled": False}),
    ("PUT", "/users/<user>/role", {"role": "auditor"}),
    ("DELETE", "/users/<user>", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), TAKING, ids=str)
def test_what_takes_rights_away_is_answered_once_every_checker_is_past_it_and_again_when_it_was_so(
    method: str, path: str, body: Any, world: CommandWorld, admin: str, log: StatusTrouble, keys: LedgerKeys
):
    user, key = world.user("acme", "member")[0], world.key("acme", admin)["key_id"]
    path = "/v1/orgs/acme" + path.replace("<key>", key).replace("<user>", user)
    with pulsing(log, keys):
        first = world.call(method, path, admin, body, Idempotency_Key="once")
        repeated = world.call(method, path, admin, body, Idempotency_Key="once")
        already_so = world.call(method, path, admin, body)
    numbers = []
    for answer in (first, repeated, already_so):
        document = answer.get_json()
        assert answer.status_code == 200
        assert document["effective"] is True
        assert document["effective_ms"] == 0
        assert "status_url" not in document
        numbers.append(document["revision"])
    assert numbers == [world.head("acme").revision] * 3
    assert world.done("GET", f"/v1/orgs/acme/effects/{numbers[0]}", admin) == {
        "revision": numbers[0],
        "effective": True,
        "effective_ms": 0,
    }
    raised = floors_of(log, keys)
    assert [floor.number for floor in raised] == [1, 2, 3], "each answer rests on a floor of its own"
    partition = partition_of("acme")
    event = [record for record in records_of(log, LIFECYCLE, partition) if record.key == b"acme"][-1]
    assert all(floor.offsets[partition] >= event.offset for floor in raised)


def test_what_gives_rights_says_nothing_of_an_effect_and_raises_no_floor(
    world: CommandWorld, admin: str, log: StatusTrouble, keys: LedgerKeys
):
    user = world.user("acme", "member")[0]
    answers = [
        world.done("PUT", "/v1/orgs/acme/keys-enabled", admin, {"enabled": True}, **ASYNC),
        world.done("PUT", f"/v1/orgs/acme/users/{user}/enabled", admin, {"enabled": True}, **ASYNC),
        world.done("POST", KEYS, admin, {"name": "ci"}, **ASYNC),
    ]
    assert not any("effective" in answer for answer in answers)
    assert floors_of(log, keys) == []


@pytest.mark.parametrize("prefer", ["respond-async", "handling=lenient, Respond-Async;wait=1"])
def test_who_prefers_not_to_wait_is_answered_at_once_and_told_later(
    prefer: str, world: CommandWorld, admin: str, clock: Clock, log: StatusTrouble, keys: LedgerKeys
):
    checker = PulsingChecker(log, keys)
    checker.pulse()
    answer = revoke(world, admin, Prefer=prefer)
    assert is_pending(answer)
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert answer.headers["Keyledger-Revision"] == f"acme:{answer.get_json()['revision']}"
    assert not is_effective(world, admin, answer)
    clock.ms += 7
    checker.pulse()
    eventually(lambda: world.effects.pending() == 0, 10, "the pulse was read")
    clock.ms += 100
    told = world.done("GET", answer.get_json()["status_url"], admin)
    assert told == {"revision": answer.get_json()["revision"], "effective": True, "effective_ms": 7}


def test_a_preference_for_something_else_is_none_for_not_waiting(world: CommandWorld, admin: str):
    answer = revoke(world, admin, Prefer="respond-asynchronously, x=respond-async")
    assert answer.status_code == 200
    assert "Preference-Applied" not in answer.headers


def test_a_checker_that_is_behind_is_waited_for_until_its_lease_is_over(
    world: CommandWorld, admin: str, clock: Clock, log: StatusTrouble, keys: LedgerKeys
):
    behind = PulsingChecker(log, keys)
    behind.pulse({partition_of("acme"): 0})
    answer = revoke(world, admin, **ASYNC)
    eventually(lambda: floors_of(log, keys), 10, "the floor is written")
    eventually(lambda: world.effects.floors.unacknowledged() == 0, 10, "the floor is acknowledged")
    clock.ms += WAIT_MS - 1
    assert not is_effective(world, admin, answer)
    clock.ms += 1
    assert is_effective(world, admin, answer)


def test_without_any_checker_only_the_first_revocations_after_the_start_wait(start: Starting, clock: Clock):
    with start() as world:
        admin = world.org("acme")
        listening(world)
        first = revoke(world, admin, **ASYNC)
        eventually(lambda: world.effects.floors.unacknowledged() == 0, 10, "the floor is acknowledged")
        clock.ms += WAIT_MS - 1
        assert not is_effective(world, admin, first), "a checker may have pulsed before this API began to listen"
        clock.ms += 1
        assert is_effective(world, admin, first)
        assert revoke(world, admin).get_json()["effective_ms"] == 0


def test_a_floor_that_cannot_be_written_is_a_202_and_an_alarm_and_is_written_later(
    world: CommandWorld, admin: str, clock: Clock, log: StatusTrouble, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(effects, "FLOOR_S", 0.1)
    log.trouble = not_acknowledged
    answer = revoke(world, admin)
    assert is_pending(answer)
    assert "Preference-Applied" not in answer.headers
    clock.ms += 10 * WAIT_MS
    assert not is_effective(world, admin, answer)
    metrics = world.call("GET", "/metrics", None).get_data(as_text=True)
    assert 'keyledger_effects_late_total{why="floor_not_written"} 1.0' in metrics
    assert world.call("GET", "/readyz", None).status_code == 200
    log.trouble = lambda: None
    eventually(lambda: is_effective(world, admin, answer), 10, "the floor was written after all")


def test_checkers_that_take_too_long_are_a_202(
    world: CommandWorld, admin: str, log: StatusTrouble, keys: LedgerKeys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(effects, "FLOOR_S", 0.1)
    monkeypatch.setattr(effects, "LONGEST_S", 0.1)
    PulsingChecker(log, keys).pulse({partition_of("acme"): 0})
    assert is_pending(revoke(world, admin))
    metrics = world.call("GET", "/metrics", None).get_data(as_text=True)
    assert 'keyledger_effects_late_total{why="checkers_late"} 1.0' in metrics


def test_no_more_wait_than_may_and_others_are_served_meanwhile(
    world: CommandWorld, admin: str, clock: Clock, log: StatusTrouble, keys: LedgerKeys
):
    PulsingChecker(log, keys).pulse({partition_of("acme"): 0})
    with ThreadPoolExecutor(MOST_WAITING + 1) as pool:
        answers = [pool.submit(revoke, world, admin) for _ in range(MOST_WAITING + 1)]
        turned_away = eventually(lambda: [each for each in answers if each.done()], 10, "one does not wait")
        assert is_pending(turned_away[0].result())
        assert world.call("POST", KEYS, admin, {"name": "ci"}).status_code == 201
        eventually(lambda: world.effects.floors.unacknowledged() == 0, 10, "all floors are acknowledged")
        clock.ms += WAIT_MS
        statuses = sorted(each.result(10).status_code for each in answers)
    assert statuses == [200] * MOST_WAITING + [202]
    metrics = world.call("GET", "/metrics", None).get_data(as_text=True)
    assert 'keyledger_effects_late_total{why="too_many_waiting"} 1.0' in metrics


def test_a_revision_of_an_earlier_start_gets_a_floor_of_its_own(
    start: Starting, clock: Clock, log: StatusTrouble, keys: LedgerKeys
):
    with start() as world:
        admin = world.org("acme")
        revision = revoke(world, admin, **ASYNC).get_json()["revision"]
        eventually(lambda: floors_of(log, keys), 10, "the floor is written")
        signing, before = world.beside.signing, floors_of(log, keys)
    with start() as world:
        world.beside.signing = signing
        listening(world)
        clock.ms += WAIT_MS
        path = f"/v1/orgs/acme/effects/{revision}"
        eventually(lambda: world.done("GET", path, admin)["effective"], 10, "it is in effect")
        mine = [floor for floor in floors_of(log, keys) if floor.api != before[0].api]
        assert [floor.number for floor in mine] == [1], "it asked once, and remembers"
        assert mine[0].offsets[partition_of("acme")] >= before[0].offsets[partition_of("acme")]


@pytest.mark.parametrize("revision", ["999", "0", "-1", "01", "x", "9" * 16])
def test_a_revision_that_is_not_there_is_a_404(revision: str, world: CommandWorld, admin: str):
    answer = world.call("GET", f"/v1/orgs/acme/effects/{revision}", admin)
    assert answer.status_code == 404
    assert check_problem(answer)["code"] == "not_found"


def test_what_is_foreign_on_the_topic_is_counted_and_ignored(
    world: CommandWorld, admin: str, log: StatusTrouble, keys: LedgerKeys
):
    stuck, foreign = PulsingChecker(log, keys), PulsingChecker(log, new_keys())
    stuck.pulse({})
    foreign.pulse()
    foreign.incarnation, foreign.number = stuck.incarnation, stuck.number
    answer = revoke(world, admin, **ASYNC)
    foreign.pulse()
    say(log, b"", b"no document", keys.seal(b"no document"))
    eventually(lambda: world.effects.listener.foreign == 3, 10, "they were counted")
    assert not is_effective(world, admin, answer), "a pulse with another's seal vouches for nobody"
    stuck.pulse()
    eventually(lambda: is_effective(world, admin, answer), 10, "the checker itself was heard")


def test_after_records_were_lost_it_begins_to_listen_anew(
    world: CommandWorld, admin: str, clock: Clock, log: StatusTrouble, keys: LedgerKeys
):
    PulsingChecker(log, keys).pulse()
    PulsingChecker(log, keys).pulse()
    log.expire(STATUS, 99)
    eventually(lambda: world.effects.listener.idle_s() > 0.3, 10, "its place is gone")
    log.expire(STATUS, 0)
    listening(world)
    answer = revoke(world, admin, **ASYNC)
    eventually(lambda: world.effects.floors.unacknowledged() == 0, 10, "the floor is acknowledged")
    clock.ms += WAIT_MS - 1
    assert not is_effective(world, admin, answer), "who pulsed in what was lost is unknown"
    clock.ms += 1
    assert is_effective(world, admin, answer)


def test_it_goes_on_by_itself_after_the_log_was_away(world: CommandWorld, admin: str, log: StatusTrouble):
    log.away = True
    eventually(lambda: world.effects.listener.idle_s() > 0.3, 10, "the topic is not read")
    log.away = False
    listening(world)
    answer = revoke(world, admin, **ASYNC)
    eventually(lambda: is_effective(world, admin, answer), 10, "it is in effect")
    assert world.effects.pending() == 0


def test_the_newest_floor_is_repeated(
    world: CommandWorld, log: StatusTrouble, keys: LedgerKeys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(floors, "REPEAT_S", 0.02)
    world.effects.floors.raise_floor(Target(3, 7))
    world.effects.floors.raise_floor(Target(3, 5))
    eventually(lambda: len(floors_of(log, keys)) > 3, 10, "it is repeated")
    written = floors_of(log, keys)
    assert all(floor.offsets == {3: 7} for floor in written), "a floor never sinks"
    assert [floor.number for floor in written] == list(range(1, len(written) + 1))


def test_who_asks_while_a_floor_is_written_shares_the_next(world: CommandWorld, log: StatusTrouble, keys: LedgerKeys):
    writing, go_on = Event(), Event()

    def hold() -> None:
        writing.set()
        go_on.wait(10)

    log.trouble = hold
    raised = [world.effects.floors.raise_floor(Target(0, 1))]
    assert writing.wait(10)
    raised += [world.effects.floors.raise_floor(Target(partition, 2)) for partition in range(3)]
    assert [each.number for each in raised] == [1, 2, 2, 2]
    go_on.set()
    eventually(lambda: all(each.acknowledged_ns for each in raised), 10, "both are acknowledged")
    assert [floor.offsets for floor in floors_of(log, keys)] == [{0: 1}, {0: 2, 1: 2, 2: 2}]


def test_effects_that_nobody_asks_for_any_more_are_forgotten(
    world: CommandWorld, admin: str, log: StatusTrouble, keys: LedgerKeys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(effects, "_MOST_KNOWN", 3)
    PulsingChecker(log, keys).pulse({})
    answers = [revoke(world, admin, **ASYNC) for _ in range(5)]
    assert world.effects.pending() == 3
    assert not is_effective(world, admin, answers[0]), "it is begun anew"
