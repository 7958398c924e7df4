"""The follower, the watch and the readers together, as in the main process and its workers, on the in-memory log."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas import events
from schemas.times import wall_clock_ms
from schemas.topics import LIFECYCLE, partition_of
from services.auth_checker import status
from services.auth_checker.bodies import Asked
from services.auth_checker.handler import Checker
from services.auth_checker.index_reader import IndexReader
from services.auth_checker.status import IndexHandler, Watch
from services.auth_checker.uses import Numbering, Uses
from services.ledger.follow import Follower
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from tests.unit.checker_story import BEGINNING, Teller, created, key_id, key_of
from tests.waiting import eventually

M_MS = 500


class Parts:
    """What runs in the main process; `ask` reads with a store of its own, as a worker does."""

    def __init__(self, folder: Path, log: MemoryLog, teller: Teller) -> None:
        clocks = status.machine_clocks()
        self.store = status.open_index(folder)
        status.forget(self.store)
        handler = IndexHandler(self.store, teller.keys)
        self.follower = Follower(log, status.FOLLOWED, handler, "test")
        self.watch = Watch(log, self.store, handler, self.follower.next_offsets, clocks, M_MS)
        uses = Uses(log, Numbering("test", wall_clock_ms, lambda bits: 0))
        self.checker = Checker(IndexReader(self.store, clocks, M_MS), uses)

    def start(self) -> None:
        self.follower.start()
        self.watch.start()

    def stop(self) -> None:
        self.watch.stop()
        self.follower.stop()
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
    after.store.close()
    assert run().becomes("REVOKED")


def test_a_log_that_was_cut_is_folded_anew(run, log, teller) -> None:
    teller.tell("org", *BEGINNING, created(), events.KeyRevoked(key_id=key_id(), reason="unused"))
    parts = run()
    assert parts.becomes("REVOKED")
    log.truncate(TopicPartition(LIFECYCLE, partition_of("org")), 4)
    assert parts.becomes("VALID")
