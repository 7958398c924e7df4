"""The follower and a reader together, as in two processes of the checker, on the in-memory log."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas import checker_status, events
from schemas.checker_status import Floor
from schemas.topics import LIFECYCLE, partition_of
from services.auth_checker import status
from services.auth_checker.bodies import Asked
from services.auth_checker.follower import Following
from services.auth_checker.handler import Checker
from services.auth_checker.index_reader import IndexReader
from services.auth_checker.pulses import TOPIC
from services.auth_checker.spool import Spool
from services.auth_checker.uses import Uses
from services.ledger.log import Message
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from tests.unit.checker_story import BEGINNING, Teller, created, key_id, key_of
from tests.waiting import eventually

M_MS = 500


class Parts:
    """What runs in the follower process, and a checker as in a worker."""

    def __init__(self, folder: Path, log: MemoryLog, teller: Teller) -> None:
        clocks = status.machine_clocks()
        self.store = status.open_index(folder)
        self.following = Following(
            log, self.store, teller.keys, clocks, checker="test", max_staleness_ms=M_MS, pulse_ms=50
        )
        self.spool = Spool(folder / "spool")
        self.reader = IndexReader(self.store, clocks, M_MS)
        self.checker = Checker(self.reader, Uses(self.spool))

    def start(self) -> None:
        self.following.start()

    def stop(self) -> None:
        self.following.stop()
        self.close()

    def close(self) -> None:
        self.spool.close()
        self.store.close()

    def becomes(self, code: str) -> bool:
        return eventually(lambda: self.code() == code, 10, f"the key is {code}")

    def code(self) -> str:
        return self.checker.validate(Asked(key_of())).code


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def teller(log: MemoryLog) -> Teller:
    return Teller(log)


@pytest.fixture
def run(tmp_path: Path, log: MemoryLog, teller: Teller) -> Iterator[Callable[[], Parts]]:
    """Starts the parts on the same folder; stops them at the end."""
    started: list[Parts] = []

    def run() -> Parts:
        started.append(Parts(tmp_path, log, teller))
        started[-1].start()
        return started[-1]

    yield run
    started[-1].stop()


def test_a_ledger_that_is_away_makes_everything_stale_until_it_is_back(run, log, teller) -> None:
    teller.tell("org", *BEGINNING, created())
    parts = run()
    assert parts.becomes("VALID")
    log.away = True
    assert parts.becomes("STALE")
    log.away = False
    assert parts.becomes("VALID")


def test_a_restart_is_stale_until_it_has_what_happened_meanwhile(run, log, teller, tmp_path) -> None:
    teller.tell("org", *BEGINNING, created())
    before = run()
    assert before.becomes("VALID")
    before.stop()
    teller.tell("org", events.KeyRevoked(key_id=key_id(), reason="unused"))
    after = Parts(tmp_path, log, teller)
    assert after.code() == "STALE", "nothing follows yet"
    after.close()
    assert run().becomes("REVOKED")


def test_a_checker_that_begins_behind_a_floor_is_stale_until_it_is_past_it(run, log, teller) -> None:
    teller.tell("org", *BEGINNING, created())
    value = checker_status.encode(Floor("api", 1, {partition_of("org"): 4}))
    log.append(Message(*TOPIC, b"api", value, teller.keys.seal(value)), 1)
    parts = run()
    eventually(lambda: len(log.reader({TOPIC: 0}).poll(0)) > 3, 10, "some pulses were sent")
    assert parts.code() == "STALE"
    teller.tell("org", events.KeyRevoked(key_id=key_id(), reason="unused"))
    assert parts.becomes("REVOKED")


def test_a_log_that_was_cut_ends_the_follower_and_the_next_one_folds_it_anew(run, log, teller) -> None:
    teller.tell("org", *BEGINNING, created(), events.KeyRevoked(key_id=key_id(), reason="unused"))
    before = run()
    assert before.becomes("REVOKED")
    log.truncate(TopicPartition(LIFECYCLE, partition_of("org")), 4)
    why = eventually(before.following.failure, 10, "the follower cannot go on")
    assert "key-lifecycle" in why
    assert before.code() == "STALE"
    before.stop()
    assert run().becomes("VALID")


def test_a_status_topic_that_was_cut_is_read_from_its_beginning(run, log, teller) -> None:
    teller.tell("org", *BEGINNING, created())
    parts = run()
    assert parts.becomes("VALID")
    log.truncate(TOPIC, 0)
    until_ns = parts.following._clocks.boot_ns() + M_MS * 1_000_000

    def has_a_later_lease() -> bool:
        with parts.reader.read() as (_, current):
            return current is not None and current.lease.begun_boot_ns > until_ns

    eventually(has_a_later_lease, 10, "pulses count again")
    assert parts.following.failure() is None


def test_how_it_is_going_is_told_to_readers(run, log, teller) -> None:
    teller.tell("org", *BEGINNING, created())
    parts = run()
    assert parts.becomes("VALID")

    def is_told() -> bool:
        parts.following.tell()
        progress = parts.reader.progress()
        return progress is not None and progress.caught_up and progress.lag == 0 and progress.counts["applied"] == 4

    eventually(is_told, 10, "the follower told that it has all")
