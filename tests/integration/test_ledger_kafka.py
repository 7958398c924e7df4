"""What only the real log has: a client that breaks, a broker that refuses, topics that others may have changed."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from secrets import token_hex
from typing import Any

import pytest
from structlog.testing import capture_logs

from schemas.topics import TOPICS, Topic
from services.ledger import preflight
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import LogUnavailable, Message, OffsetGone, OutcomeUnknown
from services.ledger.preflight import PreflightFailed, prepare
from services.ledger.records import TopicPartition
from tests.integration.ledger_logs import WITHIN_S, KafkaWorld, append, read
from tests.waiting import eventually

LIFECYCLE_LIKE, USAGE_LIKE = TOPICS[0], TOPICS[1]


@pytest.fixture
def world(kafka_bootstrap: str) -> Iterator[KafkaWorld]:
    log = KafkaLog(kafka_bootstrap, "test")
    yield KafkaWorld(kafka_bootstrap, log)
    log.close()


@pytest.mark.parametrize("call", ["append", "append_all"])
def test_after_a_record_the_broker_refuses_the_next_append_works(world: KafkaWorld, call: str) -> None:
    at = TopicPartition(world.topic(), 0)
    send: Callable[[bytes], Any] = {
        "append": lambda value: world.log.append(Message(at.topic, 0, b"key", value), 10),
        "append_all": lambda value: append(world.log, at, value),
    }[call]
    send(b"before")
    with pytest.raises(OutcomeUnknown):
        send(b"x" * 100_000)
    assert world.log.producers_replaced == 1
    send(b"after")
    assert read(world.log, at, 2) == [b"before", b"after"]
    assert world.log.producers_replaced == 1


def test_a_topic_that_is_not_there_leaves_the_outcome_unknown_and_is_not_made(world: KafkaWorld) -> None:
    name = f"test-{token_hex(6)}"
    with pytest.raises(OutcomeUnknown):
        world.log.append(Message(name, 0, b"key", b"value"), 10)
    assert name not in world.admin(lambda admin: admin.list_topics())


def test_an_offset_is_where_the_record_stands_for_every_thread(world: KafkaWorld) -> None:
    at = TopicPartition(world.topic(), 0)

    def write(name: int) -> list[tuple[int, bytes]]:
        values = [f"{name}.{number}".encode() for number in range(20)]
        return [(world.log.append(Message(at.topic, 0, b"key", value), 10), value) for value in values]

    with ThreadPoolExecutor(6) as pool:
        written = dict(pair for pairs in pool.map(write, range(6)) for pair in pairs)
    assert sorted(written) == list(range(120))
    assert read(world.log, at, 120) == [written[offset] for offset in range(120)]


def test_a_batch_stands_in_the_order_it_was_given(world: KafkaWorld) -> None:
    at = TopicPartition(world.topic(), 0)
    values = [str(number).encode() for number in range(2000)]
    assert append(world.log, at, *values) == list(range(2000))
    assert read(world.log, at, 2000) == values


def test_a_record_comes_back_as_it_was_sent(world: KafkaWorld) -> None:
    at = TopicPartition(world.topic(2), 1)
    sent = Message(at.topic, 1, b"key", b"\x00\xff", (("one", b"1"), ("two", b"\xff"), ("one", b"2")))
    offset = world.log.append(sent, 10)
    reader = world.log.reader({at: offset})
    (record,) = eventually(lambda: reader.poll(200), WITHIN_S, "the record")
    reader.close()
    assert (record.at, record.offset, record.key, record.value, record.headers) == (
        at,
        0,
        b"key",
        b"\x00\xff",
        sent.headers,
    )
    assert record.header("one") == b"2"
    assert record.time_ms > 1_600_000_000_000
    assert world.log.end_offsets([at, TopicPartition(at.topic, 0)], 5) == {at: 1, TopicPartition(at.topic, 0): 0}


def test_an_offset_past_the_end_is_gone(world: KafkaWorld) -> None:
    at = TopicPartition(world.topic(), 0)
    reader = world.log.reader({at: 7})

    def poll_until_gone() -> bool:
        try:
            reader.poll(100)
        except OffsetGone:
            return True
        return False

    eventually(poll_until_gone, WITHIN_S, "the offset is found to be gone")
    reader.close()
    assert world.log.first_offsets([at], 5) == {at: 0}


def test_a_broker_that_is_away_is_unavailable_to_every_call(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ledger.kafka_log._BOOTSTRAP_MS", 500)
    monkeypatch.setattr("services.ledger.kafka_producer._BOOTSTRAP_MS", 500)
    monkeypatch.setattr("services.ledger.preflight._BOOTSTRAP_MS", 500)
    at = TopicPartition("topic", 0)
    log = KafkaLog(f"127.0.0.1:{free_port()}", "away")
    calls: list[Callable[[], Any]] = [
        log.warm,
        lambda: log.append(Message("topic", 0, b"key", b"value"), 1),
        lambda: log.end_offsets([at], 1),
        lambda: log.reader({at: 0}),
        lambda: prepare(f"127.0.0.1:{free_port()}"),
    ]
    for call in calls:
        with pytest.raises(LogUnavailable) as caught:
            call()
        assert not isinstance(caught.value, OutcomeUnknown), "nothing was sent"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("kafka-io-away")]
    log.close()


def test_a_closed_log_takes_nothing_more(world: KafkaWorld) -> None:
    topic = world.topic()
    world.log.append(Message(topic, 0, b"key", b"value"), 10)
    world.log.close()
    with pytest.raises(LogUnavailable):
        world.log.append(Message(topic, 0, b"key", b"value"), 10)


def _unique(like: Topic, **changes: Any) -> Topic:
    return replace(like, name=f"test-{token_hex(6)}", **changes)


def _made_by_others(world: KafkaWorld, like: Topic, config: dict[str, str], partitions: int | None = None) -> Topic:
    topic = _unique(like)
    wanted = {
        "num_partitions": partitions or topic.partitions,
        "replication_factor": 1,
        "configs": {**topic.config, **config},
    }
    world.admin(lambda admin: admin.create_topics({topic.name: wanted}, timeout_ms=15_000))
    world.admin(lambda admin: admin.wait_for_topics([topic.name], timeout_ms=15_000))
    return topic


def test_missing_topics_are_made_as_the_table_says(world: KafkaWorld) -> None:
    topics = [_unique(LIFECYCLE_LIKE), _unique(USAGE_LIKE, partitions=3)]
    ids = prepare(world.bootstrap, topics)
    assert set(ids) == {topic.name for topic in topics}
    assert prepare(world.bootstrap, topics, known_ids=ids) == ids
    described = {topic["name"]: topic for topic in world.admin(lambda admin: admin.describe_topics(list(ids)))}
    assert [len(described[topic.name]["partitions"]) for topic in topics] == [12, 3]
    for topic in topics:
        found = _config(world, topic.name)
        assert {name: found[name] for name in topic.config} == topic.config
        assert found["unclean.leader.election.enable"] == "false"


def _config(world: KafkaWorld, name: str) -> dict[str, str]:
    return dict(world.admin(lambda admin: preflight._config(admin, name)))


def test_many_processes_may_make_the_topics_at_the_same_time(world: KafkaWorld) -> None:
    topics = [_unique(LIFECYCLE_LIKE), _unique(USAGE_LIKE)]
    with ThreadPoolExecutor(4) as pool:
        answers = [one.result() for one in [pool.submit(prepare, world.bootstrap, topics) for _ in range(4)]]
    assert answers == [answers[0]] * 4


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"cleanup.policy": "compact"}, "compaction destroys history"),
        ({"cleanup.policy": "compact,delete"}, "compaction destroys history"),
        ({"retention.ms": "86400000"}, "retention.ms=-1"),
        ({"retention.bytes": "1000000"}, "retention.bytes=-1"),
        ({"unclean.leader.election.enable": "true"}, "unclean.leader.election.enable=false"),
    ],
    ids=str,
)
def test_a_topic_that_would_lose_history_is_refused(world: KafkaWorld, config: dict[str, str], why: str) -> None:
    topic = _made_by_others(world, LIFECYCLE_LIKE, config)
    with pytest.raises(PreflightFailed, match=why) as caught:
        prepare(world.bootstrap, [topic])
    assert topic.name in str(caught.value)


def test_fewer_partitions_are_refused(world: KafkaWorld) -> None:
    topic = _made_by_others(world, LIFECYCLE_LIKE, {}, partitions=11)
    with pytest.raises(PreflightFailed, match="has 11 partitions, the ledger needs 12"):
        prepare(world.bootstrap, [topic])


def test_more_partitions_are_used_by_nobody_and_alarmed(world: KafkaWorld) -> None:
    topic = _made_by_others(world, LIFECYCLE_LIKE, {}, partitions=13)
    with capture_logs() as logs:
        assert topic.name in prepare(world.bootstrap, [topic])
    assert [(log["event"], log["log_level"]) for log in logs] == [("partitions_ignored", "error")]


def test_a_topic_of_uses_may_be_kept_for_another_time(world: KafkaWorld) -> None:
    topic = _made_by_others(world, USAGE_LIKE, {"retention.ms": "86400000", "retention.bytes": "1000000"})
    assert topic.name in prepare(world.bootstrap, [topic])


def test_a_topic_that_was_deleted_and_made_again_is_refused(world: KafkaWorld) -> None:
    at = TopicPartition(world.topic(), 0)
    topic = world.topics[at.topic]
    before = prepare(world.bootstrap, [topic])
    world.cut(at, 0)
    with pytest.raises(PreflightFailed, match="was deleted and made again"):
        prepare(world.bootstrap, [topic], known_ids=before)
    assert prepare(world.bootstrap, [topic]) != before
