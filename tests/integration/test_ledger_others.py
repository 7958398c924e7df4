"""What other senders may leave in a topic neither stops a follower nor keeps it behind: only a real broker has these."""

from collections.abc import Iterator, MutableMapping
from contextlib import closing
from pathlib import Path
from secrets import token_hex
from typing import Any, Self

import pytest
from kafka import KafkaProducer
from kafka.record.default_records import DefaultRecordBatchBuilder
from structlog.testing import capture_logs

from services.auth_checker import follower as checker_follower
from services.auth_checker import status
from services.auth_checker.index_reader import IndexReader
from services.ledger.follow import Follower
from services.ledger.kafka_batches import PatientBatch, Unreadable
from services.ledger.kafka_log import KafkaLog
from services.ledger.preflight import prepare
from services.ledger.records import TopicPartition
from services.ledger.seal import new_keys
from tests.integration.ledger_logs import WITHIN_S, KafkaWorld, Kept, append
from tests.waiting import eventually

UNREADABLE = b""
"""What a Kept keeps of a record without a value."""


@pytest.fixture
def world(kafka_bootstrap: str) -> Iterator[KafkaWorld]:
    log = KafkaLog(kafka_bootstrap, "test")
    yield KafkaWorld(kafka_bootstrap, log)
    log.close()


class Stranger:
    """Writes as it likes: whole batches, header names that are not UTF-8, transactions."""

    def __init__(self, world: KafkaWorld, **config: Any) -> None:
        # It waits until it is told to flush, so that what is sent together stands in one batch.
        self._producer = KafkaProducer(bootstrap_servers=world.bootstrap, linger_ms=60_000, **config)

    def send(self, at: TopicPartition, *values: bytes) -> None:
        """One batch; a value that begins with `bad` gets a header name that is not UTF-8."""
        for value in values:
            headers = [(BadName("bad"), b"")] if value.startswith(b"bad") else []
            self._producer.send(at.topic, value, b"key", headers, at.partition)
        self._producer.flush(WITHIN_S)

    def commit(self, at: TopicPartition, *values: bytes) -> None:
        """One transaction."""
        self._producer.begin_transaction()
        self.send(at, *values)
        self._producer.commit_transaction()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close()


class BadName(str):
    """A text whose UTF-8 is none."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe\x80"


class Following:
    """A follower with a handler of its own; it can be started again."""

    def __init__(self, world: KafkaWorld, *partitions: TopicPartition) -> None:
        self.world, self.partitions, self.handler = world, partitions, Kept()

    def __enter__(self) -> Follower:
        self.follower = Follower(self.world.log, self.partitions, self.handler, "test")
        self.follower.start()
        return self.follower

    def __exit__(self, *_: object) -> None:
        self.follower.stop()


def _unreadable(logs: list[MutableMapping[str, Any]]) -> list[tuple[str, int, int]]:
    found = [log for log in logs if log["event"] == "foreign" and log["why"] == "unreadable"]
    return [(log["topic"], log["partition"], log["offset"]) for log in found]


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_record_that_cannot_be_read_is_passed_over_and_all_others_come(
    world: KafkaWorld, compression: str | None
) -> None:
    topic = world.topic(3)
    one, two, three = (TopicPartition(topic, number) for number in range(3))
    following = Following(world, one, two, three)
    with capture_logs() as logs, Stranger(world, compression_type=compression) as stranger:
        stranger.send(one, b"1.0", b"bad", b"1.2")
        stranger.send(one, b"bad")
        append(world.log, one, b"1.4")
        append(world.log, two, b"2.0", b"2.1")
        with following as follower:
            for at, end in ((one, 5), (two, 2)):
                assert follower.wait_for(at, end, WITHIN_S)
            stranger.send(three, b"bad")
            append(world.log, three, b"3.1")
            append(world.log, two, b"2.2")
            for at, end in ((two, 3), (three, 2)):
                assert follower.wait_for(at, end, WITHIN_S)
    values = following.handler.values
    assert [value for value in values if value.startswith(b"1")] == [b"1.0", b"1.2", b"1.4"]
    assert [value for value in values if value.startswith(b"2")] == [b"2.0", b"2.1", b"2.2"]
    assert [value for value in values if value.startswith(b"3")] == [b"3.1"]
    assert (len(values), values.count(UNREADABLE)) == (10, 3)
    assert sorted(_unreadable(logs)) == [(topic, 0, 1), (topic, 0, 3), (topic, 2, 0)]
    assert not [log for log in logs if log["event"] == "follow_again"]


def test_a_restart_goes_on_after_a_last_record_that_cannot_be_read(world: KafkaWorld) -> None:
    at = TopicPartition(world.topic(), 0)
    following = Following(world, at)
    with Stranger(world) as stranger:
        stranger.send(at, b"0", b"1", b"bad")
    with following as follower:
        assert follower.wait_for(at, 3, WITHIN_S)
    append(world.log, at, b"3")
    with following as follower:
        assert follower.wait_for(at, 4, WITHIN_S)
    assert (following.handler.values, following.handler.cuts) == ([b"0", b"1", UNREADABLE, b"3"], [])


def test_a_batch_in_a_codec_that_is_not_installed_is_passed_over(
    world: KafkaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ours are made so that the broker unpacks what it takes; a topic that others made may be of another kind.
    wanted = {"num_partitions": 1, "replication_factor": 1, "configs": {"compression.type": "producer"}}
    at = TopicPartition(f"test-{token_hex(6)}", 0)
    world.admin(lambda admin: admin.create_topics({at.topic: wanted}, timeout_ms=15_000))
    world.admin(lambda admin: admin.wait_for_topics([at.topic], timeout_ms=15_000))
    with Stranger(world, compression_type="gzip") as stranger:
        stranger.send(at, b"0" * 1000, b"1" * 1000, b"2" * 1000)
    append(world.log, at, b"3")
    monkeypatch.setattr("kafka.codec.has_gzip", lambda: False)
    following = Following(world, at)
    with capture_logs() as logs, following as follower:
        assert follower.wait_for(at, 4, WITHIN_S)
    assert following.handler.values == [UNREADABLE, UNREADABLE, UNREADABLE, b"3"]
    assert _unreadable(logs) == [(at.topic, 0, 0), (at.topic, 0, 1), (at.topic, 0, 2)]


def _batch(*values: bytes) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 100_000)
    for offset, value in enumerate(values):
        builder.append(offset, 1, b"key", value, [])
    return bytearray(builder.build())


@pytest.mark.parametrize("length", [0x00, 0x01, 0x7E, 0xFF], ids=["none", "negative", "too long", "endless"])
def test_a_record_of_a_nonsensical_length_does_not_stop_its_batch(length: int) -> None:
    damaged = _batch(b"first", b"second", b"third")
    damaged[damaged.index(b"second") - 9] = length
    found = list(PatientBatch(damaged))
    assert [record.offset for record in found] == [0, 1, 2]
    assert found[0].value == b"first"
    assert isinstance(found[1].headers, Unreadable)


def test_the_marker_of_a_transaction_keeps_no_follower_behind(world: KafkaWorld) -> None:
    topic = world.topic(2)
    at, quiet = TopicPartition(topic, 0), TopicPartition(topic, 1)
    following = Following(world, at, quiet)
    with Stranger(world, transactional_id=f"test-{token_hex(6)}", enable_idempotence=True) as stranger:
        stranger._producer.init_transactions()
        stranger.commit(at, b"0", b"1")
        eventually(lambda: world.log.end_offsets([at], 5) == {at: 3}, WITHIN_S, "the marker is in the log")
        for _restart in range(2):
            with following as follower:
                _is_level(follower, {at: 3, quiet: 0})
        with following as follower:
            _is_level(follower, {at: 3, quiet: 0})
            stranger.commit(at, b"3")
            eventually(lambda: world.log.end_offsets([at], 5) == {at: 5}, WITHIN_S, "the marker is in the log")
            _is_level(follower, {at: 5, quiet: 0})
            append(world.log, at, b"5")
            _is_level(follower, {at: 6, quiet: 0})
    assert following.handler.values == [b"0", b"1", b"3", b"5"]
    assert (following.handler.places[at].next_offset, following.handler.cuts) == (6, [])


def _is_level(follower: Follower, ends: dict[TopicPartition, int]) -> None:
    for at, end in ends.items():
        follower.reach_end(at, WITHIN_S)
        assert follower.wait_for(at, end, WITHIN_S)
    eventually(follower.caught_up, WITHIN_S, "caught up")
    eventually(lambda: follower.lag() == dict.fromkeys(ends, 0), WITHIN_S, "no lag")
    assert follower.next_offsets() == ends


def test_a_marker_counts_only_when_the_records_before_it_were_handled(world: KafkaWorld) -> None:
    at = TopicPartition(world.topic(), 0)
    following = Following(world, at)
    following.handler.may_go_on.clear()
    with Stranger(world, transactional_id=f"test-{token_hex(6)}", enable_idempotence=True) as stranger:
        stranger._producer.init_transactions()
        stranger.commit(at, b"0", b"1")
    eventually(lambda: world.log.end_offsets([at], 5) == {at: 3}, WITHIN_S, "the marker is in the log")
    with following as follower:
        eventually(lambda: follower.lag() == {at: 3}, WITHIN_S, "the lag is known")
        assert not follower.wait_for(at, 1, 0.5)
        assert not follower.caught_up()
        following.handler.may_go_on.set()
        assert follower.wait_for(at, 3, WITHIN_S)
    assert following.handler.places[at].next_offset == 2


def test_the_marker_of_a_transaction_makes_no_checker_stale(
    world: KafkaWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = TopicPartition(world.topic(), 0)
    monkeypatch.setattr(status, "FOLLOWED", (at,))
    prepare(world.bootstrap)
    with Stranger(world, transactional_id=f"test-{token_hex(6)}", enable_idempotence=True) as stranger:
        stranger._producer.init_transactions()
        stranger.commit(at, b"0", b"1")
    eventually(lambda: world.log.end_offsets([at], 5) == {at: 3}, WITHIN_S, "the marker is in the log")
    with closing(status.open_index(tmp_path)) as store:
        clocks = status.machine_clocks()
        following = checker_follower.Following(
            world.log, store, new_keys(), clocks, checker="test", max_staleness_ms=2000, pulse_ms=250
        )
        reader = IndexReader(store, clocks, 2000)
        assert reader.why_stale() is not None, "nothing follows yet"
        following.start()
        try:
            eventually(lambda: reader.why_stale() is None, WITHIN_S, "the index is vouched for")
            following.tell()
        finally:
            following.stop()
        progress = reader.progress()
        assert progress is not None
        assert progress.counts["foreign"] == 2
