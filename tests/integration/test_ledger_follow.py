"""Following a log, on the real one and on its twin: nothing is lost, nothing comes twice, and a cut is noticed."""

from collections.abc import Iterator, Mapping, Sequence
from threading import Thread
from typing import Any

import pytest

from services.ledger import follow
from services.ledger.follow import Follower
from services.ledger.log import Log, LogUnavailable, LogWasCut, Message, Reader
from services.ledger.memory_log import MemoryLog
from services.ledger.records import Place, Record, TopicPartition, value_hash
from tests.integration.ledger_logs import WITHIN_S, Kept, World, append, worlds
from tests.waiting import eventually


@pytest.fixture(params=["memory", "kafka"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    yield from worlds(request)


@pytest.fixture
def started() -> Iterator[Any]:
    """Starts followers, and stops them after the test."""
    followers: list[Follower] = []

    def start(log: Log, handler: Kept, *partitions: TopicPartition) -> Follower:
        follower = Follower(log, partitions, handler, "test")
        followers.append(follower)
        follower.start()
        return follower

    yield start
    for follower in followers:
        follower.stop()


def _numbers(first: int, end: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, end)]


def _stop(follower: Follower) -> None:
    follower.stop()
    follower.stop = lambda: None  # type: ignore[method-assign]


def test_every_record_is_handled_once_in_the_order_of_its_partition(world: World, started: Any) -> None:
    topic = world.topic(3)
    partitions = [TopicPartition(topic, number) for number in range(3)]
    handler = Kept()
    append(world.log, partitions[0], *_numbers(0, 50))
    follower = started(world.log, handler, *partitions)
    append(world.log, partitions[1], *_numbers(100, 150))
    append(world.log, partitions[0], *_numbers(50, 99))
    for at, end in ((partitions[0], 99), (partitions[1], 50), (partitions[2], 0)):
        assert follower.wait_for(at, end, WITHIN_S)
    assert [value for value in handler.values if int(value) < 100] == _numbers(0, 99)
    assert [value for value in handler.values if int(value) >= 100] == _numbers(100, 150)
    assert {at: place.next_offset for at, place in handler.places.items()} == {partitions[0]: 99, partitions[1]: 50}
    assert follower.next_offsets() == {partitions[0]: 99, partitions[1]: 50, partitions[2]: 0}


def test_a_new_process_goes_on_where_the_store_says(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    append(world.log, at, *_numbers(0, 10))
    first = started(world.log, handler, at)
    assert first.wait_for(at, 10, WITHIN_S)
    _stop(first)
    append(world.log, at, *_numbers(10, 20))
    assert handler.values == _numbers(0, 10)
    second = started(world.log, handler, at)
    assert second.wait_for(at, 20, WITHIN_S)
    assert handler.values == _numbers(0, 20)
    assert handler.places[at].next_offset == 20
    assert handler.cuts == []


def test_waiting_is_over_when_the_record_was_handled_and_not_before(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    follower = started(world.log, handler, at)
    assert not follower.wait_for(at, 1, 0.2)
    waited: list[bool] = []
    waiter = Thread(target=lambda: waited.append(follower.wait_for(at, 2, WITHIN_S)))
    waiter.start()
    append(world.log, at, b"0")
    assert follower.wait_for(at, 1, WITHIN_S)
    assert waited == []
    append(world.log, at, b"1")
    waiter.join(WITHIN_S)
    assert (waited, handler.values) == ([True], [b"0", b"1"])


def test_the_barrier_is_passed_only_after_all_that_was_appended_before_it(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    follower = started(world.log, handler, at)
    for number in range(20):
        append(world.log, at, str(number).encode())
        follower.reach_end(at, WITHIN_S)
        assert handler.values == _numbers(0, number + 1)


def test_many_barriers_at_once_share_a_question_and_each_holds(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    follower = started(world.log, handler, at)
    missing: list[bytes] = []

    def write_and_look(name: int) -> None:
        for number in range(10):
            value = f"{name}.{number}".encode()
            world.log.append(Message(at.topic, 0, b"key", value), 10)
            follower.reach_end(at, WITHIN_S)
            if value not in handler.values:
                missing.append(value)

    threads = [Thread(target=write_and_look, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)
    assert (missing, len(handler.values)) == ([], 60)


def test_caught_up_and_lag_tell_how_far_behind_the_start_and_the_end_it_is(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    append(world.log, at, *_numbers(0, 3))
    handler = Kept()
    handler.may_go_on.clear()
    follower = started(world.log, handler, at)
    eventually(lambda: follower.lag() == {at: 3}, WITHIN_S, "the lag is known")
    assert not follower.caught_up()
    handler.may_go_on.set()
    eventually(follower.caught_up, WITHIN_S, "caught up")
    eventually(lambda: follower.lag() == {at: 0}, WITHIN_S, "no lag")
    assert follower.idle_s() < WITHIN_S


def test_a_handler_that_fails_gets_the_same_records_again(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    append(world.log, at, *_numbers(0, 5))
    handler.failures_left = 2
    follower = started(world.log, handler, at)
    assert follower.wait_for(at, 5, WITHIN_S)
    handler.failures_left = 1
    append(world.log, at, *_numbers(5, 10))
    assert follower.wait_for(at, 10, WITHIN_S)
    assert handler.values == _numbers(0, 10)
    assert handler.failures_left == 0


class Flaky:
    """A log that can be away, as a broker is: every question, poll and append fails."""

    def __init__(self, log: Log) -> None:
        self._log, self.away = log, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def reader(self, offsets: Mapping[TopicPartition, int]) -> Reader:
        self._look()
        return FlakyReader(self, self._log.reader(offsets))

    def first_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        self._look()
        return self._log.first_offsets(partitions, timeout_s)

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        self._look()
        return self._log.end_offsets(partitions, timeout_s)

    def _look(self) -> None:
        if self.away:
            raise LogUnavailable("away")


class FlakyReader:
    """A reader of a Flaky log."""

    def __init__(self, log: Flaky, reader: Reader) -> None:
        self._log, self._reader = log, reader

    def poll(self, timeout_ms: int) -> list[Record]:
        self._log._look()
        return self._reader.poll(timeout_ms)

    def positions(self) -> Mapping[TopicPartition, int]:
        return self._reader.positions()

    def close(self) -> None:
        self._reader.close()


def test_a_log_that_is_away_is_followed_again_when_it_is_back(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    log = Flaky(world.log)
    handler = Kept()
    follower = started(log, handler, at)
    append(world.log, at, *_numbers(0, 5))
    assert follower.wait_for(at, 5, WITHIN_S)
    log.away = True
    with pytest.raises(LogUnavailable):
        follower.reach_end(at, 0.5)
    append(world.log, at, *_numbers(5, 10))
    eventually(lambda: follower.idle_s() > 1.5, WITHIN_S, "it is known that nothing is heard")
    assert handler.values == _numbers(0, 5)
    log.away = False
    follower.reach_end(at, WITHIN_S)
    assert handler.values == _numbers(0, 10)
    eventually(lambda: follower.idle_s() < 1.5, WITHIN_S, "the log is heard again")


def test_the_twin_can_be_away_by_itself() -> None:
    log = MemoryLog()
    log.away = True
    at = TopicPartition("topic", 0)
    calls = [
        lambda: log.append(Message("topic", 0, b"", b""), 1),
        lambda: log.end_offsets([at], 1),
        lambda: log.first_offsets([at], 1),
        lambda: log.reader({at: 0}).poll(1),
    ]
    for call in calls:
        with pytest.raises(LogUnavailable):
            call()
    log.away = False
    assert log.end_offsets([at], 1) == {at: 0}


def _followed(world: World, started: Any, handler: Kept, at: TopicPartition, count: int) -> None:
    append(world.log, at, *_numbers(0, count))
    follower = started(world.log, handler, at)
    assert follower.wait_for(at, count, WITHIN_S)
    _stop(follower)


def test_a_log_that_lost_its_tail_is_read_anew(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    _followed(world, started, handler, at, 10)
    world.cut(at, 6)
    follower = started(world.log, handler, at)
    eventually(lambda: handler.values == _numbers(0, 6), WITHIN_S, "the log is read from its beginning")
    assert len(handler.cuts) == 1
    eventually(follower.caught_up, WITHIN_S, "caught up with the shorter log")


def test_a_log_that_lost_its_tail_and_grew_again_is_noticed_by_its_last_record(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    _followed(world, started, handler, at, 5)
    world.cut(at, 4)
    append(world.log, at, *_numbers(100, 105))
    started(world.log, handler, at)
    eventually(lambda: handler.values == _numbers(0, 4) + _numbers(100, 105), WITHIN_S, "the other history is read")
    assert len(handler.cuts) == 1


def test_a_log_cut_under_a_follower_is_read_anew(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    append(world.log, at, *_numbers(0, 10))
    follower = started(world.log, handler, at)
    assert follower.wait_for(at, 10, WITHIN_S)
    world.cut(at, 6)
    eventually(lambda: handler.values == _numbers(0, 6), WITHIN_S * 2, "the log is read from its beginning")
    assert handler.cuts
    append(world.log, at, b"6")
    assert follower.wait_for(at, 7, WITHIN_S)
    eventually(follower.caught_up, WITHIN_S, "caught up with the shorter log")


def test_a_handler_that_gives_up_at_a_cut_ends_the_follower(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    _followed(world, started, handler, at, 5)
    world.cut(at, 2)
    handler.gives_up = True
    follower = started(world.log, handler, at)
    eventually(lambda: follower.failure, WITHIN_S, "the follower has failed for good")
    assert isinstance(follower.failure, LogWasCut)
    assert handler.values == _numbers(0, 5)


def test_history_whose_beginning_is_gone_is_a_cut(world: World, started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at = TopicPartition(world.topic(), 0)
    monkeypatch.setattr(follow, "KEPT_FOR_EVER", (at.topic,))
    handler = Kept()
    _followed(world, started, handler, at, 5)
    world.expire(at, 3)
    handler.gives_up = True
    follower = started(world.log, handler, at)
    eventually(lambda: follower.failure, WITHIN_S, "the follower has failed for good")
    assert "holds offsets 3 to 5" in handler.cuts[0]


def test_records_that_expired_unread_are_reported_and_the_rest_is_read(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    _followed(world, started, handler, at, 5)
    append(world.log, at, *_numbers(5, 10))
    world.expire(at, 8)
    follower = started(world.log, handler, at)
    assert follower.wait_for(at, 10, WITHIN_S)
    assert handler.losses == [(5, 8)]
    assert handler.values == _numbers(0, 5) + _numbers(8, 10)
    assert handler.cuts == []


@pytest.mark.parametrize("first", [4, 5])
def test_a_last_record_that_expired_is_no_loss_and_no_cut(world: World, started: Any, first: int) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    _followed(world, started, handler, at, 5)
    world.expire(at, first)
    append(world.log, at, *_numbers(5, 8))
    follower = started(world.log, handler, at)
    assert follower.wait_for(at, 8, WITHIN_S)
    assert (handler.values, handler.losses, handler.cuts) == (_numbers(0, 8), [], [])


def test_records_that_expire_under_a_follower_do_not_end_it(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    append(world.log, at, *_numbers(0, 3))
    follower = started(world.log, handler, at)
    assert follower.wait_for(at, 3, WITHIN_S)
    handler.may_go_on.clear()
    append(world.log, at, b"3")
    append(world.log, at, *_numbers(4, 8))
    world.expire(at, 8)
    handler.may_go_on.set()
    append(world.log, at, b"8")
    assert follower.wait_for(at, 9, WITHIN_S)
    assert handler.values[-1] == b"8"
    assert handler.cuts == []


class Epochs(MemoryLog):
    """A twin whose records carry a leader epoch."""

    epoch = 0

    def _append(self, message: Message) -> int:
        offset = super()._append(message)
        records = self._records[TopicPartition(message.topic, message.partition)]
        records[offset] = records[offset]._replace(leader_epoch=self.epoch)
        return offset

    def elect(self, at: TopicPartition, end: int, *values: bytes) -> None:
        """Another leader that lacks what came after `end`, and has other records by the time anybody reads again."""
        with self._changed:
            if end:
                self.truncate(at, end)
            self.epoch += 1
            append(self, at, *values)


def test_another_leader_with_the_same_records_is_followed_without_a_seam(started: Any) -> None:
    log, at, handler = Epochs(), TopicPartition("topic", 0), Kept()
    follower = started(log, handler, at)
    for first in range(0, 30, 5):
        log.elect(at, first, *_numbers(first, first + 5))
        assert follower.wait_for(at, first + 5, WITHIN_S)
    assert (handler.values, handler.cuts) == (_numbers(0, 30), [])


def test_another_leader_with_other_records_is_a_cut(started: Any) -> None:
    log, at, handler = Epochs(), TopicPartition("topic", 0), Kept()
    follower = started(log, handler, at)
    append(log, at, *_numbers(0, 5))
    assert follower.wait_for(at, 5, WITHIN_S)
    log.elect(at, 3, *_numbers(100, 110))
    eventually(
        lambda: handler.values == _numbers(0, 3) + _numbers(100, 110), WITHIN_S, "the new leader's history is read"
    )
    assert len(handler.cuts) == 1


def test_a_place_is_the_next_offset_and_the_hash_of_the_last_value(world: World, started: Any) -> None:
    at = TopicPartition(world.topic(), 0)
    handler = Kept()
    _followed(world, started, handler, at, 3)
    last = Record(at.topic, 0, 2, b"key", b"2")
    assert handler.places == {at: Place(3, value_hash(last))}
