"""Appending, on the real log and on its twin: any number of writers, no lock, and every command's effect exactly once."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from schemas.events import LedgerEvent
from schemas.topics import LIFECYCLE, partition_of
from services.ledger import append as append_module
from services.ledger.append import Appended, Appender, Busy, Cause, Decide, Refusal
from services.ledger.follow import Follower
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import Log, LogUnavailable, Message, OutcomeUnknown
from services.ledger.memory_log import MemoryLog
from services.ledger.records import Batch, TopicPartition
from services.ledger.store import Transaction
from tests.integration.ledger_logs import WITHIN_S, KafkaWorld, World, read, worlds
from tests.ledger_story import KEYS, Reader, hash_of, message, named, names_in, value_of
from tests.waiting import eventually

ORGS = ("org_a", "org_b", "org_c")
ORG = ORGS[0]
CAUSE = Cause(authid="user", authtype="user", commandid="ab" * 32, commandhash="cd" * 32)


@pytest.fixture(params=["memory", "kafka"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    yield from worlds(request)


@dataclass
class Steady:
    """Time, ids and chance of a test."""

    times: Iterator[int] = field(default_factory=lambda: count(1_800_000_000_000))
    numbers: Iterator[int] = field(default_factory=count)

    def now_ms(self) -> int:
        return next(self.times)

    def new_id(self) -> str:
        return f"{next(self.numbers):036d}"

    def jitter_s(self) -> float:
        return random.uniform(0.001, 0.01)


class Api:
    """A store, a follower and an Appender, as a command API has them; `gate` holds its follower back."""

    def __init__(self, log: Log, topic: str, folder: Path, sources: Steady | None = None) -> None:
        self.reader = Reader(folder)
        self.gate = Event()
        self.gate.set()
        self.partitions = [TopicPartition(topic, number) for number in range(12)]
        self.follower = Follower(log, self.partitions, Gated(self), folder.name)
        self.appender = Appender(log, self.reader.store, self.follower, KEYS, "keyledger/test", sources or Steady())
        self.follower.start()

    def execute(self, org: str, name: str, cause: Cause = CAUSE) -> Appended | None:
        """Name something, once."""
        return self.appender.execute(org, cause, once(org, name))

    def history(self, org: str) -> list[str]:
        """The names in an organisation's ledger, after all that is in the log was read."""
        self.follower.reach_end(self.partitions[partition_of(org)], WITHIN_S)
        return self.reader.names(org)

    def close(self) -> None:
        self.gate.set()
        self.follower.stop()
        self.reader.store.close()


class Gated:
    """The handler of an Api's store."""

    def __init__(self, api: Api) -> None:
        self._api, self._handler = api, api.reader.handler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def apply(self, batch: Batch) -> None:
        assert self._api.gate.wait(WITHIN_S)
        self._handler.apply(batch)


def once(org: str, name: str) -> Decide:
    """Decides for an event of this name, unless there is one."""
    return lambda txn, now: None if name in names_in(txn, org) else named(name)


@pytest.fixture
def apis(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Api]]:
    """Makes command APIs on one log; each has its own connection to it."""
    topic = world.topic(12)
    monkeypatch.setattr(append_module, "LIFECYCLE", topic)
    made: list[Api] = []
    logs: list[Log] = []

    def make(wrap: Callable[[Log], Log] = lambda log: log, sources: Steady | None = None) -> Api:
        logs.append(KafkaLog(world.bootstrap, f"test-{len(made)}") if isinstance(world, KafkaWorld) else world.log)
        # Ids of its own: two writers' events of the same bytes would be one event.
        own = sources or Steady(numbers=count(len(made) * 1_000_000))
        made.append(Api(wrap(logs[-1]), topic, tmp_path / f"api{len(made)}", own))
        return made[-1]

    yield make
    for api in made:
        api.close()
    for log in logs:
        log.close()


def _race(apis: Sequence[Api], commands: int) -> list[tuple[str, str, Appended]]:
    """Four threads on each API, each with its own commands on all organisations."""

    def work(api: Api, worker: str) -> list[tuple[str, str, Appended]]:
        answers = []
        for number in range(commands):
            org, name = ORGS[number % 3], f"{worker}.{number}"
            appended = api.execute(org, name)
            assert appended is not None
            answers.append((org, name, appended))
        return answers

    with ThreadPoolExecutor(4 * len(apis)) as pool:
        works = [pool.submit(work, api, f"{at}-{thread}") for at, api in enumerate(apis) for thread in range(4)]
        return [answer for one in works for answer in one.result()]


def test_racing_writers_each_get_their_own_revision_and_all_readers_agree(apis: Any) -> None:
    both = [apis(), apis()]
    answers = _race(both, 15)
    for org in ORGS:
        mine = sorted((appended.revision, name) for answered, name, appended in answers if answered == org)
        assert len(mine) == 40
        assert [revision for revision, _ in mine] == list(range(1, 41))
        for api in both:
            assert api.history(org) == [name for _, name in mine]
        assert both[0].reader.head(org) == both[1].reader.head(org)
        assert both[0].reader.halt(org) is None
    lost = sum(api.appender.races_lost for api in both)
    voids = [api.reader.counts.get("void", 0) for api in both]
    assert lost > 0, "the writers did not race"
    assert voids == [lost, lost]


def test_what_is_answered_is_what_stands_in_the_log(world: World, apis: Any) -> None:
    api = apis()
    cause = Cause("u1", "api_key", "ef" * 32, "01" * 32, "k" * 22, 7, "00-trace-span-01")
    appended = api.execute(ORG, "one", cause)
    at = api.partitions[partition_of(ORG)]
    (value,) = read(world.log, at, 1)
    document = json.loads(value)
    assert (appended.revision, appended.hash, appended.time, appended.event) == (
        1,
        hash_of(value),
        document["time"],
        named("one"),
    )
    sent = {
        name: document[name] for name in ("authid", "authtype", "commandid", "commandhash", "authkey", "authrevision")
    }
    assert sent == {
        "authid": "u1",
        "authtype": "api_key",
        "commandid": "ef" * 32,
        "commandhash": "01" * 32,
        "authkey": "k" * 22,
        "authrevision": 7,
    }
    assert (document["source"], document["subject"]) == ("keyledger/test", document["data"]["key_id"])
    reader = world.log.reader({at: 0})
    (record,) = eventually(lambda: reader.poll(200), WITHIN_S, "the record")
    reader.close()
    assert (record.key, record.header("ce_type"), record.header("traceparent")) == (
        ORG.encode(),
        b"KeyRenamed",
        b"00-trace-span-01",
    )
    assert KEYS.is_sealed(record)


def test_a_command_that_is_done_already_appends_nothing(apis: Any) -> None:
    first, second = apis(), apis()
    assert first.execute(ORG, "one").revision == 1
    assert second.execute(ORG, "one") is None
    assert second.history(ORG) == ["one"]


class NotTheThird(Refusal):
    """There are not two before it."""


def _third_only(org: str, name: str, seen: list[int], api: Api) -> Decide:
    def decide(txn: Transaction, now: str) -> LedgerEvent:
        seen.append(len(names_in(txn, org)))
        api.gate.set()
        if seen[-1] != 2:
            raise NotTheThird
        return named(name)

    return decide


def test_a_refusal_is_given_only_after_the_end_of_the_log_was_seen(world: World, apis: Any) -> None:
    api = apis()
    api.execute(ORG, "one")
    api.gate.clear()
    parent = api.reader.head(ORG)
    _append_behind(world, api, value_of(ORG, 2, parent.hash, named("two")))
    seen: list[int] = []
    appended = api.appender.execute(ORG, CAUSE, _third_only(ORG, "three", seen, api))
    assert (appended.revision, seen) == (3, [1, 2]), "the refusal rested on old state and was thought over"
    seen.clear()
    with pytest.raises(NotTheThird):
        api.appender.execute(ORG, CAUSE, _third_only(ORG, "four", seen, api))
    assert seen == [3, 3], "a refusal was decided twice, the second time at the end of the log"


def test_that_nothing_needs_to_happen_is_said_only_after_the_end_of_the_log_was_seen(world: World, apis: Any) -> None:
    api = apis()
    api.execute(ORG, "one")
    api.gate.clear()
    _append_behind(world, api, value_of(ORG, 2, api.reader.head(ORG).hash, named("switch off")))

    def decide(txn: Transaction, now: str) -> LedgerEvent | None:
        api.gate.set()
        return named("switch on") if "switch off" in names_in(txn, ORG) else None

    appended = api.appender.execute(ORG, CAUSE, decide)
    assert appended is not None
    assert appended.revision == 3


def _append_behind(world: World, api: Api, value: bytes) -> None:
    """Another writer's event, in the log before the API has read it."""
    rival = message(ORG, value)
    world.log.append(Message(api.partitions[0].topic, rival.partition, rival.key, value, rival.headers), 10)


class Wrapped:
    """A log of which a test changes one thing."""

    def __init__(self, log: Log) -> None:
        self.inner = log
        self.left = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class LosesAnswers(Wrapped):
    """The record is written, but the acknowledgement does not come."""

    def append(self, message: Message, timeout_s: float) -> int:
        offset = self.inner.append(message, timeout_s)
        if self.left:
            self.left -= 1
            raise OutcomeUnknown("no acknowledgement")
        return offset


class LosesRecords(Wrapped):
    """Neither is the record written."""

    def append(self, message: Message, timeout_s: float) -> int:
        if self.left:
            self.left -= 1
            raise OutcomeUnknown("no acknowledgement")
        return self.inner.append(message, timeout_s)


class SendsTwice(Wrapped):
    """A client's retry of a record that was written, or a zombie: the second copy is the one acknowledged."""

    def append(self, message: Message, timeout_s: float) -> int:
        self.inner.append(message, timeout_s)
        return self.inner.append(message, timeout_s)


@pytest.mark.parametrize("kind", [LosesAnswers, LosesRecords])
def test_a_command_of_unknown_outcome_takes_effect_once_when_it_is_repeated(apis: Any, kind: type[Wrapped]) -> None:
    api = apis(kind)
    api.appender._log.left = 1
    with pytest.raises(OutcomeUnknown):
        api.execute(ORG, "one")
    repeated = api.execute(ORG, "one")
    assert (repeated is None) == (kind is LosesAnswers)
    assert api.history(ORG) == ["one"]


def test_a_copy_of_an_event_is_void_and_the_event_is_still_mine(apis: Any) -> None:
    api = apis(SendsTwice)
    assert [api.execute(ORG, name).revision for name in ("one", "two")] == [1, 2]
    assert api.history(ORG) == ["one", "two"]
    assert api.reader.counts["void"] == 2


class AlwaysFirst(Wrapped):
    """A rival who is always a moment faster."""

    def append(self, message: Message, timeout_s: float) -> int:
        document = json.loads(message.value)
        rival = value_of(
            document["org"], document["revision"], document["parent"], named(f"rival {document['revision']}")
        )
        self.inner.append(Message(message.topic, message.partition, message.key, rival, KEYS.seal(rival)), timeout_s)
        return self.inner.append(message, timeout_s)


def test_who_always_loses_is_told_that_the_organisation_is_busy(apis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_module, "RACE_S", 1.0)
    api = apis(AlwaysFirst)
    with pytest.raises(Busy):
        api.execute(ORG, "mine")
    history = api.history(ORG)
    assert len(history) == api.appender.races_lost == api.reader.counts["void"] >= 1
    assert "mine" not in history


def test_a_write_that_is_not_read_back_in_time_has_an_unknown_outcome(
    apis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_module, "WAIT_S", 2)
    api = apis()
    api.gate.clear()
    with pytest.raises(OutcomeUnknown):
        api.execute(ORG, "one")
    api.gate.set()
    assert api.execute(ORG, "one") is None
    assert api.history(ORG) == ["one"]


def test_the_times_of_a_ledger_never_run_backwards_though_the_clock_does(apis: Any) -> None:
    api = apis(sources=Steady(times=count(1_800_000_000_000, -1000)))
    times = [api.execute(ORG, str(number)).time for number in range(5)]
    assert times == [times[0]] * 5
    ahead = apis(sources=Steady(times=count(1_900_000_000_000, 1)))
    assert ahead.history(ORG)
    times.append(ahead.execute(ORG, "ahead").time)
    assert api.history(ORG)[-1] == "ahead"
    times.append(api.execute(ORG, "behind").time)
    assert times == sorted(times)


def test_what_decide_raises_comes_through_and_appends_nothing(apis: Any) -> None:
    api = apis()

    def decide(txn: Transaction, now: str) -> LedgerEvent | None:
        raise KeyError("a mistake")

    with pytest.raises(KeyError):
        api.appender.execute(ORG, CAUSE, decide)
    assert api.history(ORG) == []


def test_while_the_twin_is_away_nothing_is_appended_and_nothing_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    monkeypatch.setattr(append_module, "WAIT_S", 0.5)
    api = Api(log, LIFECYCLE, tmp_path)
    assert api.execute(ORG, "one") is not None
    log.away = True
    for name in ("one", "two"):
        with pytest.raises(LogUnavailable):
            api.execute(ORG, name)
    log.away = False
    assert api.history(ORG) == ["one"]
    api.close()


def test_the_twin_and_the_real_log_give_the_same_answers(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = [(org, f"{round_} {org}") for round_ in range(4) for org in ORGS] + [(ORG, "0 org_a"), (ORG, "last")]

    def run(log: Log, topic: str, folder: Path) -> list[object]:
        monkeypatch.setattr(append_module, "LIFECYCLE", topic)
        api = Api(log, topic, folder)
        answers: list[object] = [api.execute(org, name) for org, name in script]
        answers += [api.history(org) for org in ORGS] + [api.reader.head(org) for org in ORGS]
        ends = log.end_offsets(api.partitions, 5)
        api.close()
        return [*answers, [ends[at] for at in api.partitions]]

    real = KafkaWorld(kafka_bootstrap, KafkaLog(kafka_bootstrap, "test"))
    by_twin = run(MemoryLog(), "key-lifecycle", tmp_path / "twin")
    by_kafka = run(real.log, real.topic(12), tmp_path / "kafka")
    real.log.close()
    assert by_twin == by_kafka
    assert by_twin[-7] == ["0 org_a", "1 org_a", "2 org_a", "3 org_a", "last"]
