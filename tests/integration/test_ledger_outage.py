"""A broker that goes away and comes back: every writer and reader recovers by itself, and nothing piles up meanwhile."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.embedded.kafka import Broker
from services.embedded.ports import free_ports, is_taken
from services.ledger.follow import Follower
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import LogUnavailable, Message
from services.ledger.records import TopicPartition
from tests.integration.ledger_logs import WITHIN_S, KafkaWorld, Kept
from tests.waiting import eventually


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    port = next(port for port in iter(lambda: free_ports()[0], 0) if not is_taken(port + 1))
    broker = Broker(tmp_path, port)
    broker.start()
    yield broker
    broker.stop()


def _fails(call: Callable[[], object]) -> bool:
    try:
        call()
    except LogUnavailable:
        return True
    return False


def test_a_broker_that_was_killed_is_used_again_when_it_is_back(broker: Broker) -> None:
    log = KafkaLog(broker.bootstrap, "test")
    at = TopicPartition(KafkaWorld(broker.bootstrap, log).topic(), 0)
    handler = Kept()
    follower = Follower(log, [at], handler, "test")
    follower.start()
    log.append(Message(at.topic, 0, b"key", b"before"), 10)
    follower.reach_end(at, WITHIN_S)
    before = threading.active_count()

    broker.kill()
    for _ in range(5):
        assert _fails(lambda: log.append(Message(at.topic, 0, b"key", b"lost"), 2))
        assert _fails(lambda: follower.reach_end(at, 2))
    eventually(lambda: follower.idle_s() > 5, WITHIN_S, "it is known that the log is away")
    assert threading.active_count() <= before + 4, [thread.name for thread in threading.enumerate()]

    broker.start()
    eventually(
        lambda: not _fails(lambda: log.append(Message(at.topic, 0, b"key", b"after"), 5)),
        WITHIN_S,
        "appends work again",
    )
    eventually(lambda: not _fails(lambda: follower.reach_end(at, 5)), WITHIN_S, "the follower is at the end again")
    assert handler.values[0] == b"before"
    assert handler.values[-1] == b"after"
    assert handler.cuts == []
    eventually(lambda: follower.idle_s() < 2, WITHIN_S, "the log is heard")
    eventually(lambda: threading.active_count() <= before, WITHIN_S, "nothing was left behind")
    follower.stop()
    log.close()
