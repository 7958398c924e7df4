"""Uses are counted exactly though PostgreSQL goes away in the middle of a batch, or another projector is at work.

With a real Kafka and a real PostgreSQL.
"""

import os
import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schemas import codec, events
from schemas.topics import TOPICS, USAGE, partition_of
from services.ledger.follow import Follower
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import Message
from services.ledger.preflight import prepare
from services.projector.read_models.usage import UsageRows
from services.projector.read_models.usage_sources import UsageSources
from tests.integration import projector_story as story
from tests.integration.projector_story import key_id, rows, used
from tests.waiting import eventually

KEYS = 5
TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'keyledger-%'
"""


class Sender:
    """A checker that sends every use twice. `sent` is what must be counted, by key."""

    def __init__(self, log: KafkaLog) -> None:
        self.org, self._source, self._log = f"org_{secrets.token_hex(8)}", secrets.token_hex(8), log
        self._last: Counter[int] = Counter()
        self.sent: Counter[str] = Counter()

    def send(self, uses: int) -> None:
        messages = []
        for number in range(uses):
            event = used(number % KEYS, org_id=self.org, count=number % 3 + 1)
            partition = partition_of(event.key_id)
            self._last[partition] += 1
            envelope = events.UsageEnvelope(
                secrets.token_hex(8), self._source, event.key_id, event.last_at, event, self._last[partition]
            )
            messages.append(Message(USAGE, partition, event.key_id.encode(), codec.encode_usage(envelope)))
            self.sent[event.key_id] += event.count
        self._log.append_all([*messages, *messages], 30)

    def counted(self, database: str) -> Counter[str]:
        found = rows(database, "SELECT key_id, uses FROM key_usage WHERE org_id = %s", self.org)
        return Counter({row["key_id"]: row["uses"] for row in found})

    def wait_counted(self, database: str) -> None:
        """Until all of it is counted, and no more of it than that."""
        eventually(lambda: self.counted(database) == self.sent, 60, f"{self.sent} are counted")
        hours = rows(database, "SELECT sum(count)::bigint AS count FROM key_usage_hours WHERE org_id = %s", self.org)
        assert hours == [{"count": self.sent.total()}]
        assert rows(database, "SELECT * FROM usage_gaps WHERE source = %s", self._source) == []


@pytest.fixture
def log(kafka_bootstrap: str) -> Iterator[KafkaLog]:
    prepare(kafka_bootstrap, TOPICS)
    log = KafkaLog(kafka_bootstrap, "test")
    yield log
    log.close()


@contextmanager
def running(kafka: str, database: str, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A projector's process."""
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "DATABASE_URL": database,
        "CHECKER_URL": "http://127.0.0.1:9",
        "KEYLEDGER_LEDGER_KEYS": str(folder / "ledger-keys"),
        "KEYLEDGER_PORT": str(port),
        "KEYLEDGER_STATE_DIR": str(folder / f"state-{port}"),
    }
    command = [sys.executable, "-m", "services.projector"]
    with (
        (folder / f"log-{port}").open("w") as said,
        subprocess.Popen(command, env=environment, stderr=said) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def sleeps(pid: int) -> bool:
    """Whether all threads of a process are stopped."""
    states = [
        task.joinpath("stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
    ]
    return set(states) == {"T"}


@pytest.mark.parametrize("place", [(UsageSources, "write"), (UsageRows, "write")])
def test_a_lost_connection_in_the_middle_of_a_batch_leaves_counts_exact(
    place: tuple[type, str], log: KafkaLog, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = Sender(log)
    losses: list[object] = []
    kind, name = place
    write = getattr(kind, name)

    def write_and_lose(rows_of_batch: UsageSources | UsageRows, *arguments: object) -> None:
        write(rows_of_batch, *arguments)
        if len(losses) < 5:
            with story.open_session(database) as session:
                losses.append(session.execute(TERMINATE).fetchall())

    monkeypatch.setattr(kind, name, write_and_lose)
    projector = story.new_projector(database)
    follower = Follower(log, story.PARTITIONS, projector, "test")
    follower.start()
    try:
        for _ in range(10):
            sender.send(200)
        sender.wait_counted(database)
    finally:
        follower.stop()
        projector.close()
    assert len(losses) == 5


def test_a_projector_that_wakes_up_after_another_took_over_counts_nothing_and_ends(
    kafka_bootstrap: str, log: KafkaLog, database: str, free_port: Callable[[], int], tmp_path: Path
) -> None:
    sender = Sender(log)
    with running(kafka_bootstrap, database, tmp_path, free_port()) as sleeper:
        made = "SELECT to_regclass('read.key_usage') IS NOT NULL AS made"
        eventually(lambda: rows(database, made)[0]["made"], 60, "the tables are made")
        sender.send(500)
        sender.wait_counted(database)
        sender.send(500)
        sleeper.send_signal(signal.SIGSTOP)
        eventually(lambda: sleeps(sleeper.pid), 10, "every thread of it stands still")
        # What PostgreSQL does to a session whose host does not answer any more.
        with story.open_session(database) as session:
            session.execute(TERMINATE)
        sender.send(500)
        with running(kafka_bootstrap, database, tmp_path, free_port()) as heir:
            sender.wait_counted(database)
            sleeper.send_signal(signal.SIGCONT)
            sender.send(500)
            assert sleeper.wait(60) == 3
            sender.send(500)
            sender.wait_counted(database)
            assert heir.poll() is None


def test_two_projectors_of_other_partitions_count_the_same_keys_exactly(log: KafkaLog, database: str) -> None:
    sender = Sender(log)
    halves = [[at for at in story.PARTITIONS if at.partition % 2 == half] for half in range(2)]
    projectors = [story.new_projector(database, half) for half in halves]
    followers = [Follower(log, half, one, "test") for half, one in zip(halves, projectors, strict=True)]
    for follower in followers:
        follower.start()
    try:
        for _ in range(10):
            sender.send(300)
        sender.wait_counted(database)
    finally:
        for follower, projector in zip(followers, projectors, strict=True):
            follower.stop()
            projector.close()
    assert {key_id(number) for number in range(KEYS)} == sender.sent.keys()
