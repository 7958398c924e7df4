"""What an operator is told of projectors and uses: from both stores, and as somebody types it."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from schemas import events
from schemas.times import to_ms
from schemas.topics import EXTERNAL_USAGE, LIFECYCLE, USAGE, partition_of
from services.ledger.follow import Follower
from services.ledger.kafka_log import KafkaLog
from services.ledger.memory_log import MemoryLog
from services.ledger.preflight import prepare_patiently
from services.ledger.records import TopicPartition
from services.projector.locks import PartitionLocks
from services.projector.reports import usage_gaps, usage_quarantine
from services.projector.standing import PartitionStanding, Standing, standing
from tests.integration import projector_story as story
from tests.integration.ledger_logs import KafkaWorld
from tests.integration.projector_story import DAY, ORG, OTHER, use, used
from tests.integration.test_ledger_others import Stranger
from tests.waiting import eventually

NOW_MS = to_ms(f"{DAY}16:00:00.000Z")


@dataclass
class Clock:
    ms: int = NOW_MS - 60_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> MemoryLog:
    return MemoryLog(lambda: clock.ms)


def _standing(database: str, log: MemoryLog, most_behind_s: float = 10.0) -> Standing:
    with story.open_session(database) as session:
        return standing(session, log, lambda: NOW_MS, 0.0, most_behind_s, pause=lambda _: None)


def _of(found: Standing, topic: str, partition: int) -> PartitionStanding:
    [one] = [one for one in found.partitions if (one.topic, one.partition) == (topic, partition)]
    return one


@contextmanager
def _holding(database: str, partitions: list[int]) -> Iterator[None]:
    locks = PartitionLocks(lambda: story.open_session(database), partitions)
    locks.hold()
    yield
    locks.release()


def test_all_is_well_when_every_record_is_in_the_tables_and_somebody_works_on_each_partition(
    database: str, log: MemoryLog
) -> None:
    story.tell_story(log)
    story.projected(database, log).close()
    with _holding(database, list(range(12))):
        found = _standing(database, log)
    assert found.wrong == []
    assert len(found.partitions) == 36
    assert {(one.behind, one.behind_s) for one in found.partitions} == {(0, 0.0)}
    assert {"keyledger-test" in (one.held_by or "") for one in found.partitions} == {True}


def test_what_is_behind_is_told_in_records_and_by_the_age_of_the_oldest(
    database: str, log: MemoryLog, clock: Clock
) -> None:
    story.tell_story(log)
    story.projected(database, log).close()
    clock.ms = NOW_MS - 25_000
    use(log, used(1), 4)
    clock.ms = NOW_MS - 5_000
    use(log, used(1), 5)
    with _holding(database, [0, 1]):
        found = _standing(database, log)
    one = _of(found, USAGE, 0)
    assert (one.behind, one.behind_s, one.end_offset - one.next_offset) == (2, 25.0, 2)
    assert found.wrong == [
        f"no projector works on partitions {list(range(2, 12))}",
        f"{USAGE} is 2 records and 25 s behind in [0]",
    ]
    assert _standing(database, log, most_behind_s=30.0).wrong == [f"no projector works on partitions {list(range(12))}"]


def test_rates_are_those_between_two_looks(database: str, log: MemoryLog) -> None:
    story.tell_story(log)
    projector = story.projected(database, log)

    def meanwhile(over_s: float) -> None:
        for number in range(4, 10):
            use(log, used(1), number)
        story.apply_all(log, projector)
        use(log, used(1), 10)

    with story.open_session(database) as session:
        found = standing(session, log, lambda: NOW_MS, 2.0, 10.0, pause=meanwhile)
    projector.close()
    one = _of(found, USAGE, 0)
    assert one.behind == 1
    assert one.appended_per_s / one.projected_per_s == pytest.approx(7 / 6)
    assert _of(found, LIFECYCLE, 0).projected_per_s == 0


def test_what_nobody_ever_read_counts_from_the_first_record_that_is_left(database: str, log: MemoryLog) -> None:
    story.tell_story(log)
    story.new_projector(database).close()
    log.expire(TopicPartition(USAGE, 0), 2)
    found = _standing(database, log)
    assert (_of(found, USAGE, 0).behind, _of(found, EXTERNAL_USAGE, 3).behind) == (1, 1)
    assert f"{USAGE} is 1 records and 60 s behind in [0]" in found.wrong


def test_a_log_that_was_cut_and_a_halted_organisation_are_wrong(database: str, log: MemoryLog) -> None:
    _, other = story.tell_story(log)
    other.append(other.value(events.OrgKeysDisabled(), parent="ab" * 32))
    story.projected(database, log).close()
    end = log.end_offsets(story.PARTITIONS, 1)[TopicPartition(USAGE, 0)]
    log.truncate(TopicPartition(USAGE, 0), 1)
    with _holding(database, list(range(12))):
        found = _standing(database, log)
    assert found.wrong == [
        f"{USAGE}/0 was cut: the tables go on at {end}, the log ends at 1",
        "1 organisations are halted",
    ]
    assert found.orgs_halted == 1


def test_gaps_are_told_by_source_with_each_missing_range(database: str, log: MemoryLog) -> None:
    for number in (1, 3, 7, 9, 12):
        use(log, used(1), number, source="checker-1")
    use(log, used(2), 5, partition=4, source="checker-2")
    story.projected(database, log).close()
    report = usage_gaps(database)
    assert not report.is_good
    assert json.loads(json.dumps(report.document)) == [
        {
            "topic": USAGE,
            "source": "checker-1",
            "partition": 0,
            "last": 12,
            "missing": 7,
            "ranges": [[2, 2], [4, 6], [8, 8], [10, 11]],
        },
        {"topic": USAGE, "source": "checker-2", "partition": 4, "last": 5, "missing": 4, "ranges": [[1, 4]]},
    ]
    assert report.text.splitlines()[1].split() == [
        USAGE,
        "checker-1",
        "0",
        "12",
        "7",
        "2,",
        "4-6,",
        "8",
        "and",
        "1",
        "more",
    ]
    found = _standing(database, log)
    assert (found.gaps, found.missing) == (5, 11)


def test_without_gaps_and_quarantine_both_reports_say_so(database: str) -> None:
    story.new_projector(database).close()
    assert usage_gaps(database) == ("No number is missing.", [], True)
    assert usage_quarantine(database, None) == ("Nothing is in quarantine.", [], True)


def _quarantine(database: str, org: str, reason: str, records: int, count: int) -> None:
    with story.open_session(database) as session:
        for _ in range(records):
            values = [secrets.randbits(60), reason, "billing", secrets.token_hex(4), org, count]
            session.execute(
                f"INSERT INTO usage_quarantine VALUES ('{EXTERNAL_USAGE}', 3, %s, %s, %s, %s, %s, 'key', 'VALID', %s,"
                f" '{DAY}12:30:00.000Z', {NOW_MS}, '')",
                values,
            )


def test_quarantine_is_told_by_reason_and_source_and_of_one_organisation(database: str, log: MemoryLog) -> None:
    story.new_projector(database).close()
    _quarantine(database, ORG, "unknown_key", records=3, count=2)
    _quarantine(database, OTHER, "unknown_key", records=1, count=2**53 - 1)
    _quarantine(database, OTHER, "future", records=2, count=1)
    sent = {"first_sent_at": f"{DAY}16:00:00.000Z", "last_sent_at": f"{DAY}16:00:00.000Z"}
    of_all = {"topic": EXTERNAL_USAGE, "source": "billing", **sent}
    assert usage_quarantine(database, None).document == [
        {"reason": "unknown_key", **of_all, "records": 4, "uses": 2**53 + 5},
        {"reason": "future", **of_all, "records": 2, "uses": 2},
    ]
    of_one = usage_quarantine(database, ORG)
    assert of_one.document == [{"reason": "unknown_key", **of_all, "records": 3, "uses": 6}]
    assert not of_one.is_good
    assert _standing(database, log).quarantine == {"future": 2, "unknown_key": 4}


def _typed(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """What somebody gets who types `keyledger` and these words."""
    command = [sys.executable, "-m", "keyledger.cli", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def environment(kafka_bootstrap: str, database: str) -> dict[str, str]:
    prepare_patiently(kafka_bootstrap)
    return {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap, "DATABASE_URL": database}


def test_the_command_tells_a_projector_at_work_from_one_that_is_gone(
    environment: dict[str, str], kafka_bootstrap: str, database: str
) -> None:
    log, projector = KafkaLog(kafka_bootstrap, "test"), story.new_projector(database)
    ledger = story.Ledger(log, f"org_{secrets.token_hex(8)}")
    ledger.write(events.OrgRegistered())
    # The marker of a transaction is no record that could be missing.
    with Stranger(KafkaWorld(kafka_bootstrap, log), transactional_id="billing", enable_idempotence=True) as stranger:
        stranger._producer.init_transactions()
        stranger.commit(TopicPartition(EXTERNAL_USAGE, 5), b"garbage")
    follower = Follower(log, story.PARTITIONS, projector, "test")
    follower.start()
    eventually(follower.caught_up, 60, "it has caught up")
    status = ("projector", "status", "--seconds", "0.1", "--most-behind", "0")
    with _holding(database, list(range(12))):
        well = _typed(environment, *status)
        assert (well.returncode, well.stderr) == (0, "")
        assert well.stdout.splitlines()[0].split() == [
            "topic",
            "partition",
            "behind",
            "seconds",
            "in/s",
            "done/s",
            "held",
            "by",
        ]
        # Other tests leave uses of unknown keys in the log.
        [held] = story.rows(database, "SELECT count(*) FROM usage_quarantine")
        assert f"quarantine: {held['count']} records" in well.stdout
        follower.stop()
        projector.close()
        ledger.write(events.OrgKeysEnabled())
        behind = _typed(environment, *status, "--json")
        assert behind.returncode == 1, behind.stderr
    at = partition_of(ledger.org)
    told: dict[str, Any] = json.loads(behind.stdout)
    [one] = [one for one in told["partitions"] if (one["topic"], one["partition"]) == (LIFECYCLE, at)]
    assert one["behind"] == 1
    assert 0 < one["behind_s"] < 60
    gone = _typed(environment, *status)
    assert gone.returncode == 1
    assert f"WRONG: no projector works on partitions {list(range(12))}" in gone.stdout
    log.close()


def test_the_commands_end_with_a_code_a_script_can_use(environment: dict[str, str], database: str) -> None:
    empty = _typed(environment, "usage", "gaps")
    assert empty.returncode == 2
    assert "DATABASE_URL leads to no tables of a projector" in empty.stderr
    story.new_projector(database).close()
    assert _typed(environment, "usage", "gaps").returncode == 0
    _quarantine(database, ORG, "future", records=1, count=1)
    some = _typed(environment, "usage", "quarantine", "--org", ORG, "--json")
    assert (some.returncode, json.loads(some.stdout)[0]["reason"]) == (1, "future")
    assert _typed(environment, "usage", "quarantine", "--org", "another").returncode == 0
    for away in ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}):
        told = _typed(environment | away, "projector", "status", "--seconds", "0")
        assert (told.returncode, told.stdout) == (3, "")
        assert told.stderr.splitlines()[-1].startswith("keyledger: ")
    nowhere = _typed(environment | {"DATABASE_URL": ""}, "projector", "status")
    assert (nowhere.returncode, nowhere.stderr) == (
        2,
        "keyledger: DATABASE_URL must say where the projector's PostgreSQL is\n",
    )
