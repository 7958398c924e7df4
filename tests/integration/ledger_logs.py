"""The two logs behind one face, so that the same tests run on both."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from threading import Event
from typing import Any, Protocol

import pytest
from kafka import TopicPartition as KafkaPartition
from kafka.admin import KafkaAdminClient

from schemas.topics import TOPICS, Topic
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import Log, LogWasCut, Message
from services.ledger.memory_log import MemoryLog
from services.ledger.preflight import prepare
from services.ledger.records import Batch, Places, TopicPartition
from tests.waiting import eventually

WITHIN_S = 30
_CONFIG = next(topic.config for topic in TOPICS)


class World(Protocol):
    """A log and what can happen to it."""

    @property
    def log(self) -> Log:
        """The log."""

    def topic(self, partitions: int = 1) -> str:
        """A new topic of its own."""

    def cut(self, at: TopicPartition, end: int) -> None:
        """Lose the records from `end` on."""

    def expire(self, at: TopicPartition, first: int) -> None:
        """Lose the records before `first`."""


@dataclass
class MemoryWorld:
    """The twin."""

    log: MemoryLog = field(default_factory=MemoryLog)
    _numbers: Iterator[int] = field(default_factory=count)

    def topic(self, partitions: int = 1) -> str:
        """See World."""
        return f"topic-{next(self._numbers)}-{partitions}"

    def cut(self, at: TopicPartition, end: int) -> None:
        """See World."""
        self.log.truncate(at, end)

    def expire(self, at: TopicPartition, first: int) -> None:
        """See World."""
        self.log.expire(at, first)


@dataclass
class KafkaWorld:
    """A broker."""

    bootstrap: str
    log: KafkaLog
    topics: dict[str, Topic] = field(default_factory=dict)

    def topic(self, partitions: int = 1) -> str:
        """See World."""
        topic = Topic(f"test-{token_hex(6)}", partitions, _CONFIG)
        self.topics[topic.name] = topic
        prepare(self.bootstrap, [topic])
        return topic.name

    def cut(self, at: TopicPartition, end: int) -> None:
        """See World: the topic is made again with the records before `end`, as a restore of an old backup would."""
        kept = read(self.log, at, end)
        self.admin(lambda admin: admin.delete_topics([at.topic], timeout_ms=15_000))
        eventually(lambda: at.topic not in self.admin(lambda admin: admin.list_topics()), WITHIN_S, "the topic is gone")
        prepare(self.bootstrap, [self.topics[at.topic]])
        fresh = KafkaLog(self.bootstrap, "test-restore")
        append(fresh, at, *kept)
        fresh.close()

    def expire(self, at: TopicPartition, first: int) -> None:
        """See World."""
        partition = KafkaPartition(at.topic, at.partition)
        self.admin(lambda admin: admin.delete_records({partition: first}, timeout_ms=15_000))

    def admin(self, call: Callable[[Any], Any]) -> Any:
        """Ask the broker something as an administrator."""
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            return call(client)
        finally:
            client.close()


def worlds(request: pytest.FixtureRequest) -> Iterator[World]:
    """For a fixture with the parameters `memory` and `kafka`."""
    if request.param == "memory":
        yield MemoryWorld()
        return
    bootstrap = request.getfixturevalue("kafka_bootstrap")
    log = KafkaLog(bootstrap, "test")
    yield KafkaWorld(bootstrap, log)
    log.close()


def append(log: Log, at: TopicPartition, *values: bytes) -> list[int]:
    """Append values under one key."""
    return log.append_all([Message(at.topic, at.partition, b"key", value) for value in values], 10)


def read(log: Log, at: TopicPartition, end: int) -> list[bytes]:
    """The values before `end`."""
    values: list[bytes] = []
    reader = log.reader({at: 0})

    def all_there() -> bool:
        values.extend(record.value or b"" for record in reader.poll(200))
        return len(values) >= end

    if end:
        eventually(all_there, WITHIN_S, f"{end} records of {at}")
    reader.close()
    return values[:end]


class Kept:
    """A handler that keeps values and places; it can be made to fail, to wait and to give up."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.places: Places = {}
        self.cuts: list[str] = []
        self.losses: list[tuple[int, int]] = []
        self.failures_left = 0
        self.gives_up = False
        self.may_go_on = Event()
        self.may_go_on.set()

    def resume_from(self) -> Places:
        return dict(self.places)

    def apply(self, batch: Batch) -> None:
        assert self.may_go_on.wait(WITHIN_S)
        if self.failures_left:
            self.failures_left -= 1
            raise RuntimeError("the store is away")
        self.values += [record.value or b"" for record in batch.records]
        self.places.update(batch.places)

    def log_was_cut(self, why: str) -> None:
        self.cuts.append(why)
        if self.gives_up:
            raise LogWasCut(why)
        self.values, self.places = [], {}

    def lost(self, at: TopicPartition, next_offset: int, first_offset: int) -> None:
        self.losses.append((next_offset, first_offset))
