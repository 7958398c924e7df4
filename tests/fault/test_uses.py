"""Uses are counted exactly while checkers, the broker and the projector are killed: `make prove-uses` for the full form."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from schemas.topics import PARTITIONS, USAGE
from services.ledger.kafka_log import KafkaLog
from services.ledger.records import TopicPartition
from services.projector.database import connect
from tests.end_to_end.system import System, running
from tests.fault.batches import Asked, Client
from tests.fault.field import Field
from tests.fault.running import kill_all
from tests.waiting import eventually

FULL = bool(os.environ.get("KEYLEDGER_FULL"))
VALIDATIONS, KEYS_EACH, BATCH, PER_S = (1_000_000, 200, 50, 60.0) if FULL else (20_000, 20, 10, 40.0)
CHECKERS = ("auth_checker", "auth_checker_2", "auth_checker_3")
KILLS = 2
"""Of each checker."""
STEP = VALIDATIONS // 60
"""So many validations a checker answers at least between two of its deaths."""
BEFORE_S = 0.5
DRAINED_S = 120.0
_USES = "SELECT key_id, outcome, sum(count)::bigint FROM key_usage_hours WHERE org_id = %s GROUP BY 1, 2"
_PLACES = "SELECT partition, next_offset FROM checkpoints WHERE topic = %s"
_USAGE = [TopicPartition(USAGE, number) for number in range(PARTITIONS)]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """Three checkers and one of everything else."""
    with running(tmp_path / "var", checkers=len(CHECKERS)) as made:
        yield made


class Load:
    """A client for each checker. `over` are the lives that a checker has had, by `kill` or `end`; all in order."""

    def __init__(self, system: System, field: Field) -> None:
        self._system, self._field = system, field
        self._clients = {name: self._client(name) for name in CHECKERS}
        self.over: list[tuple[str, float | None, Asked]] = []

    def start(self) -> None:
        """Begin asking."""
        for client in self._clients.values():
            client.start()

    def total(self) -> int:
        """Validations answered by now."""
        return sum(client.answered for client in self._clients.values())

    def go_on(self, name: str, count: int) -> None:
        """Wait until this checker answered so many more."""
        client = self._clients[name]
        goal = client.answered + count
        eventually(lambda: client.answered >= goal, DRAINED_S, f"{name} to answer {count} more")

    def kill(self, name: str) -> None:
        """`kill -9` of a checker with all its processes, and a new start."""
        client, killed_at = self._clients[name], time.monotonic()
        kill_all(self._system, name)
        self.over.append((name, killed_at, client.asked))
        client.asked = Asked(self._field.take(KEYS_EACH))
        self._system.spawn(name)

    def end(self) -> None:
        """SIGTERM for all checkers while they are asked; then they start again, to send what is left in their spools."""
        for name, client in self._clients.items():
            self._system.end(name, signal.SIGTERM)
            self.over.append((name, None, client.asked))
        for client in self._clients.values():
            client.stop()
        for name in CHECKERS:
            self._system.spawn(name)
        for name in CHECKERS:
            self._system.wait_ready(name)

    def _client(self, name: str) -> Client:
        return Client(self._system.programs[name].port, BATCH, PER_S, Asked(self._field.take(KEYS_EACH)))


def test_no_use_is_counted_twice_and_a_killed_checker_loses_its_last_moments_at_most(system: System) -> None:
    load = Load(system, field := Field(system, len(CHECKERS) * (KILLS + 1) * KEYS_EACH))
    load.start()
    for number, name in enumerate(CHECKERS * KILLS):
        load.go_on(name, STEP)
        if number < 5:
            kill_all(system, "projector")
            system.spawn("projector")
        if number == 3:
            system.broker.kill()
            system.broker.launch()
            system.broker.wait_ready()
        load.kill(name)
        system.wait_ready(name)
    for name in CHECKERS:
        load.go_on(name, STEP)
    eventually(lambda: load.total() >= VALIDATIONS, 600, f"{VALIDATIONS} validations to be answered")
    load.end()
    _wait_drained(system)
    counted = _counted(system, field)
    print(f"\n{load.total()} validations answered, {sum(counted.values())} uses counted")
    lost = [_lost(name, killed_at, asked, counted) for name, killed_at, asked in load.over]
    assert len(lost) == len(CHECKERS) * (KILLS + 1)
    assert all(count <= bound for count, bound in lost), lost


def _lost(name: str, killed_at: float | None, asked: Asked, counted: Counter[tuple[str, str]]) -> tuple[int, int]:
    """How many answered validations were not counted, and how many may be; fails when more were counted than asked."""
    ids = {prey.key_id for prey in asked.keys}
    mine = Counter({place: count for place, count in counted.items() if place[0] in ids})
    lost, more = (asked.answered - mine).total(), mine - asked.answered
    bound = 0 if killed_at is None else asked.since(killed_at - BEFORE_S)
    how = "ended with SIGTERM" if killed_at is None else "killed with -9"
    print(
        f"{name} {how}: {asked.answered.total()} answered, {asked.unanswered.total()} without an answer,"
        f" {lost} lost of {bound} that may be, {more.total()} counted though no answer came"
    )
    by_key: Counter[str] = Counter()
    for (key_id, _), count in more.items():
        by_key[key_id] += count
    assert by_key <= asked.unanswered, "counted more often than asked"
    assert asked.answered.total() >= STEP
    return lost, bound


def _wait_drained(system: System) -> None:
    def spooled() -> Sequence[int]:
        answers = [system.call("checker", "GET", "/readyz", at=at) for at in range(len(CHECKERS))]
        return [answer.json["spool"]["records"] if answer.status == 200 else -1 for answer in answers]

    eventually(lambda: not any(spooled()), DRAINED_S, "the spools to be empty")
    with (
        closing(KafkaLog(system.broker.bootstrap, "test-uses")) as log,
        closing(connect(system.database.url, "test-uses")) as session,
    ):
        ends = log.end_offsets(_USAGE, 10)

        def followed() -> bool:
            places: dict[int, int] = dict(session.execute(_PLACES, [USAGE]).fetchall())
            return all(places.get(at.partition, 0) >= end for at, end in ends.items())

        eventually(followed, DRAINED_S, "the projector to have counted all")


def _counted(system: System, field: Field) -> Counter[tuple[str, str]]:
    with closing(connect(system.database.url, "test-uses")) as session:
        found = session.execute(_USES, [field.org]).fetchall()
    return Counter({(key_id, outcome): count for key_id, outcome, count in found})
