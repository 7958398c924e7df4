"""Halts, fences and locks: what the projector does when history or another process gets in the way."""

import base64
import json
from collections.abc import Iterator

import psycopg
import pytest

from schemas import decoder, events
from schemas.topics import LIFECYCLE, USAGE, partition_of
from services.ledger import seal
from services.ledger.chain import ROOT
from services.ledger.follow import Follower
from services.ledger.log import LogWasCut, Message
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from services.projector.checkpoints import FencedOff
from services.projector.locks import PartitionLocks, PartitionsHeld
from services.projector.projector import Projector
from services.projector.read_models import lifecycle
from tests.integration import projector_story as story
from tests.integration.projector_story import ORG, OTHER, ROBOT, key_id, rows, use, used
from tests.waiting import eventually

HALTS = "SELECT org_id, halt_why FROM heads WHERE halt_why IS NOT NULL"


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def following(log: MemoryLog, database: str) -> Iterator[tuple[Follower, Projector]]:
    """A projector that a follower feeds."""
    projector = story.new_projector(database)
    follower = Follower(log, story.PARTITIONS, projector, "test")
    follower.start()
    yield follower, projector
    follower.stop()
    projector.close()


def _archived(database: str, outcome: str) -> int:
    return len(rows(database, "SELECT FROM ledger_records WHERE outcome = %s", outcome))


def test_a_missing_event_halts_its_organisation_alone_until_it_is_appended(log: MemoryLog, database: str) -> None:
    ledger, other = story.tell_story(log)
    missing = ledger.take(ledger.value(events.UserDisabled(ROBOT)))
    ledger.write(events.UserEnabled(ROBOT), events.UserRoleChanged(ROBOT, "admin"))
    other.write(events.OrgKeysDisabled())
    projector = story.projected(database, log)
    assert rows(database, HALTS) == [{"org_id": ORG, "halt_why": "gap"}]
    assert _archived(database, "halting") == 2
    assert rows(database, "SELECT keys_enabled FROM orgs WHERE org_id = %s", OTHER) == [{"keys_enabled": False}]
    ledger.append(missing)
    story.apply_all(log, projector)
    projector.close()
    assert rows(database, HALTS) == []
    assert _archived(database, "halting") == 0
    assert rows(database, "SELECT role, status, revision FROM users WHERE user_id = %s", ROBOT) == [
        {"role": "admin", "status": "active", "revision": 15}
    ]
    assert rows(database, "SELECT revision, hash FROM heads WHERE org_id = %s", ORG) == [
        {"revision": 15, "hash": ledger.parent}
    ]


def test_a_fork_halts_its_organisation_until_an_operator_sets_it_aside(log: MemoryLog, database: str) -> None:
    ledger, _ = story.tell_story(log)
    offset = ledger.append(ledger.value(events.UserDisabled(ROBOT), parent="ab" * 32))
    ledger.write(events.UserRoleChanged(ROBOT, "auditor"))
    projector = story.projected(database, log)
    assert rows(database, HALTS) == [{"org_id": ORG, "halt_why": "fork"}]
    # The head moves, but nothing is folded while the organisation is halted.
    assert rows(database, "SELECT role FROM users WHERE user_id = %s", ROBOT) == [{"role": "member"}]
    ledger.write(events.LedgerResumed((offset,), "a restored backup"))
    story.apply_all(log, projector)
    projector.close()
    assert rows(database, HALTS) == []
    assert rows(database, "SELECT role, status FROM users WHERE user_id = %s", ROBOT) == [
        {"role": "auditor", "status": "active"}
    ]
    assert _archived(database, "halting") == 1


def test_an_event_of_a_newer_version_halts_until_newer_software_starts(
    log: MemoryLog, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, _ = story.tell_story(log)
    unknown = ledger.value(events.UserDisabled(ROBOT)).replace(b"UserDisabled", b"UserRetired\\u0000")
    assert ledger.append(ledger.take(unknown)) >= 0
    ledger.write(events.UserRoleChanged(ROBOT, "auditor"))
    story.projected(database, log).close()
    assert rows(database, HALTS) == [{"org_id": ORG, "halt_why": "upgrade_me"}]
    newer = lambda value: decoder.decode(value.replace(b"UserRetired\\u0000", b"UserDisabled"))  # noqa: E731 - it is one.
    monkeypatch.setattr("services.ledger.fold.decode", newer)
    story.projected(database, log).close()
    assert rows(database, HALTS) == []
    assert rows(database, "SELECT role, status FROM users WHERE user_id = %s", ROBOT) == [
        {"role": "auditor", "status": "disabled"}
    ]


def test_a_forbidden_transition_halts_its_organisation(log: MemoryLog, database: str) -> None:
    ledger, other = story.tell_story(log)
    ledger.write(events.KeyRevoked(key_id(3), "admin"))
    other.write(events.KeyRenamed(key_id(1), "not theirs"))
    story.projected(database, log).close()
    assert sorted(row["org_id"] for row in rows(database, HALTS)) == [ORG, OTHER]
    assert rows(database, "SELECT name FROM keys WHERE key_id = %s", key_id(1)) == [{"name": "renamed"}]


def test_a_value_that_postgresql_refuses_halts_the_guilty_organisation_alone(log: MemoryLog, database: str) -> None:
    ledger, other = story.tell_story(log)
    story.projected(database, log).close()
    with story.open_session(database) as session:
        session.execute("ALTER TABLE users ADD CHECK (org_id <> 'org_b' OR role <> 'auditor')")
    other.write(events.UserAdded("user_bad", "person", "auditor"), events.OrgKeysDisabled())
    ledger.write(events.UserDisabled(ROBOT))
    use(log, used(1), 4)
    projector = story.projected(database, log)
    assert story.new_records(log, projector) == []
    projector.close()
    assert rows(database, HALTS) == [{"org_id": OTHER, "halt_why": "evolve"}]
    assert rows(database, "SELECT FROM users WHERE user_id = 'user_bad'") == []
    assert rows(database, "SELECT revision FROM waiting_events ORDER BY 1") == [{"revision": 4}, {"revision": 5}]
    assert rows(database, "SELECT status FROM users WHERE user_id = %s", ROBOT) == [{"status": "disabled"}]


def test_a_use_that_cannot_be_added_up_is_passed_over(log: MemoryLog, database: str) -> None:
    ledger, _ = story.tell_story(log)
    projector = story.projected(database, log)
    with story.open_session(database) as session:
        session.execute("UPDATE key_usage SET uses = 9223372036854775807 WHERE key_id = %s", [key_id(1)])
    use(log, used(1), 4)
    use(log, used(4), 5)
    ledger.write(events.UserDisabled(ROBOT))
    story.apply_all(log, projector)
    projector.close()
    assert rows(database, "SELECT uses FROM key_usage WHERE key_id = %s", key_id(4)) == [{"uses": 1}]
    assert rows(database, "SELECT status FROM users WHERE user_id = %s", ROBOT) == [{"status": "disabled"}]
    assert projector.counts["foreign"] == 1


def test_one_by_one_gives_the_same_rows(log: MemoryLog, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _ = story.tell_story(log)
    ledger.append(ledger.value(events.UserDisabled(ROBOT), parent="ab" * 32))
    ledger.write(events.UserRoleChanged(ROBOT, "auditor"))
    story.projected(database, log).close()
    at_once = story.everything(database)
    with story.open_session(database) as session:
        session.execute("DROP SCHEMA read CASCADE")

    class Refused(lifecycle.LifecycleFold):
        def write(self) -> None:
            raise psycopg.DataError

    monkeypatch.setattr("services.projector.projector.LifecycleFold", Refused)
    story.projected(database, log).close()
    assert story.everything(database) == at_once


def test_of_two_projectors_the_one_that_comes_too_late_stops_for_good(log: MemoryLog, database: str) -> None:
    ledger, _ = story.tell_story(log)
    first, second = story.projected(database, log), story.projected(database, log)
    ledger.write(events.UserDisabled(ROBOT))
    story.apply_all(log, first)
    after = story.everything(database)
    with pytest.raises(FencedOff):
        story.apply_all(log, second)
    with pytest.raises(FencedOff):
        second.resume_from()
    assert isinstance(second.stopped, FencedOff)
    assert story.everything(database) == after
    first.close()
    second.close()


def test_a_batch_of_a_projector_that_was_overtaken_leaves_nothing(log: MemoryLog, database: str) -> None:
    ledger, _ = story.tell_story(log)
    first, second = story.projected(database, log), story.projected(database, log)
    ledger.write(events.UserDisabled(ROBOT))
    [record] = story.new_records(log, second)
    story.apply_all(log, first)
    after = story.everything(database)
    with pytest.raises(FencedOff):
        second.apply(story.batch_of([record]))
    assert story.everything(database) == after
    first.close()
    second.close()


def test_the_second_holder_of_a_lock_is_told_who_the_first_is(database: str) -> None:
    first = PartitionLocks(lambda: story.open_session(database), range(6))
    first.hold()
    apart = PartitionLocks(lambda: story.open_session(database), range(6, 12))
    apart.hold()
    second = PartitionLocks(lambda: story.open_session(database), [5, 6], patience_s=0)
    with pytest.raises(PartitionsHeld, match=r"session \d+ \(keyledger-test, from .*holds \[5\]"):
        second.hold()
    first.release()
    apart.release()
    second.hold()
    second.release()


def test_locks_are_taken_again_after_the_session_was_lost(
    database: str, following: tuple[Follower, Projector], log: MemoryLog
) -> None:
    locks = PartitionLocks(lambda: story.open_session(database), [0])
    locks.hold()
    with psycopg.connect(database, autocommit=True) as session:
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'keyledger-test'"
        )
    locks.hold()
    rival = PartitionLocks(lambda: story.open_session(database), [0], patience_s=0)
    with pytest.raises(PartitionsHeld):
        rival.hold()
    locks.release()
    # The follower lost its session too, and goes on by itself.
    story.tell_story(log)
    at = TopicPartition(LIFECYCLE, partition_of(ORG))
    assert following[0].wait_for(at, 12, 10)


def test_without_its_locks_a_projector_applies_nothing(log: MemoryLog, database: str) -> None:
    story.tell_story(log)
    projector = story.new_projector(database)

    def held() -> None:
        raise PartitionsHeld("by another")

    projector._hold_locks = held
    with pytest.raises(PartitionsHeld):
        story.apply_all(log, projector)
    assert isinstance(projector.stopped, PartitionsHeld)
    assert rows(database, "SELECT FROM heads") == []


def test_a_log_that_was_cut_stops_the_projector_and_leaves_the_tables(
    log: MemoryLog, database: str, following: tuple[Follower, Projector]
) -> None:
    follower, _ = following
    story.tell_story(log)
    at = TopicPartition(LIFECYCLE, partition_of(ORG))
    assert follower.wait_for(at, 12, 10)
    before = story.everything(database)
    log.truncate(at, 10)
    failure = eventually(lambda: follower.failure, 10, "the follower stops")
    assert isinstance(failure, LogWasCut)
    assert "docs/operations.md" in str(failure)
    assert story.everything(database)["ledger_records"] == before["ledger_records"]


def test_a_log_that_was_cut_is_restored_from_the_archive_as_the_docs_say(log: MemoryLog, database: str) -> None:
    ledger, other = story.tell_story(log)
    projector = story.projected(database, log)
    before = story.everything(database)
    archive = 'SELECT partition, "offset", org_id, value, headers FROM ledger_records ORDER BY partition, "offset"'
    archived = rows(database, archive)
    log.truncate(story.at_of(ledger), 4)
    log.truncate(story.at_of(other), 0)
    ends = log.end_offsets(story.PARTITIONS, 1)
    for row in archived:
        if row["offset"] >= ends[TopicPartition(LIFECYCLE, row["partition"])]:
            headers = tuple((name, base64.b64decode(value)) for name, value in json.loads(row["headers"]))
            log.append(Message(LIFECYCLE, row["partition"], row["org_id"].encode(), row["value"], headers), 1)
    ledger.append(ledger.values[0])  # Appended once too often.
    with story.open_session(database) as session:
        session.execute(
            "TRUNCATE read.checkpoints, read.heads, read.halting_records, read.waiting_events, read.ledger_records,"
            " read.orgs, read.users, read.keys"
        )
    projector.close()
    projector = story.projected(database, log)
    projector.close()
    assert projector.counts["void"] == 1
    assert projector.counts["duplicates"] == 4
    after = story.everything(database)
    void = [row for row in after["ledger_records"] if row["outcome"] == "void"]
    assert [row for row in after["ledger_records"] if row not in void] == before["ledger_records"]
    left_out = {"ledger_records", "checkpoints"}
    assert {table: after[table] for table in after.keys() - left_out} == {
        table: before[table] for table in before.keys() - left_out
    }


def test_a_first_event_that_was_sealed_with_a_key_we_do_not_have_is_foreign(log: MemoryLog, database: str) -> None:
    ledger = story.Ledger(log, ORG)
    value = ledger.value(events.OrgRegistered())
    ledger.append(value, headers=seal.new_keys().seal(value))
    log.append(Message(USAGE, 0, b"k", b"x"), 1)
    projector = story.projected(database, log)
    projector.close()
    assert ledger.parent == ROOT
    assert projector.counts["foreign"] == 2
