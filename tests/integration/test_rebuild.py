"""A rebuild on a real PostgreSQL, from the in-memory log: what it makes, what it finds, and who notices."""

import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from schemas import events
from schemas.times import to_ms
from schemas.topics import USAGE
from services.ledger.follow import Follower
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from services.projector import rebuild as rebuilding
from services.projector.database import OLD, SCHEMA, connect, read_pool
from services.projector.progress import Progress
from services.projector.projector import PROJECTED, Projector
from services.projector.rebuild import AnotherRebuild, CannotRebuild, Rebuild, RowsDiffer
from services.projector.retention import forget_old
from tests.integration import projector_story as story
from tests.integration.projector_story import DAY, ORG, ROBOT, key_id, rows, use, used
from tests.integration.read_api import Client, app_on
from tests.waiting import eventually

NOW_MS = to_ms("2026-11-23T16:00:00.000Z")
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'read%%' ORDER BY 1"


@dataclass
class Clock:
    ms: int = NOW_MS


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> MemoryLog:
    return MemoryLog(lambda: clock.ms)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def rebuild(log: MemoryLog, database: str, lines: list[str]) -> Iterator[Rebuild]:
    def forget(session: psycopg.Connection) -> None:
        forget_old(session, NOW_MS, 90, 400)

    with Progress(lines.append, every_s=0.05) as progress:
        open_session = functools.partial(connect, database, "keyledger-rebuild")
        topic_ids = dict.fromkeys(PROJECTED, "topic-id")
        yield Rebuild(open_session, log, story.KEYS, topic_ids, forget, progress)


@pytest.fixture
def live(log: MemoryLog, database: str) -> Iterator[Follower]:
    """A projector at work."""
    projector = story.new_projector(database)
    follower = Follower(log, story.PARTITIONS, projector, "live")
    follower.start()
    yield follower
    follower.stop()
    projector.close()
    assert projector.stopped is None


def _tell_all(log: MemoryLog) -> story.Ledger:
    """The story with a lost race, a halted organisation, gaps, and copies."""
    ledger, other = story.tell_story(log)
    race = ledger.value(events.UserDisabled(ROBOT))
    ledger.write(events.UserEnabled(ROBOT))
    ledger.append(race)
    other.append(other.value(events.OrgKeysDisabled(), parent="ab" * 32))
    other.write(events.OrgKeysDisabled())
    use(log, used(4), 9)
    use(log, used(4), 9)
    story.use_elsewhere(log, used(4), "id-1")
    story.use_elsewhere(log, used(7), "of-no-key")
    return ledger


def test_a_rebuild_makes_the_same_rows(log: MemoryLog, database: str, rebuild: Rebuild, lines: list[str]) -> None:
    _tell_all(log)
    story.projected(database, log).close()
    before = story.everything(database)
    rebuild.run(accept_differences=False)
    assert story.everything(database) == before
    assert [row["nspname"] for row in rows(database, SCHEMAS)] == [SCHEMA, OLD]
    assert (
        f"ledger_records: {len(before['ledger_records'])} rows live, {len(before['ledger_records'])} rebuilt, 0 differ"
        in lines
    )
    assert {table for table, content in before.items() if not content} == set()


def test_a_wrong_row_refuses_the_switch_and_is_repaired_when_it_is_accepted(
    log: MemoryLog, database: str, rebuild: Rebuild, lines: list[str]
) -> None:
    _tell_all(log)
    projector = story.projected(database, log)
    right = story.everything(database)
    with story.open_session(database) as session:
        session.execute("UPDATE keys SET name = 'planted' WHERE key_id = %s", [key_id(1)])
        session.execute("DELETE FROM users WHERE user_id = %s", [ROBOT])
        session.execute("INSERT INTO orgs VALUES ('org_planted', NULL, true, '')")
    wrong = story.everything(database)
    with pytest.raises(RowsDiffer, match="3 rows differ"):
        rebuild.run(accept_differences=False)
    assert story.everything(database) == wrong
    assert f"  {ORG} {key_id(1)}: name is 'planted', rebuilt 'renamed'" in lines
    assert f"  {ORG} {ROBOT}: only rebuilt" in lines
    assert "  org_planted: only live" in lines
    rebuild.run(accept_differences=True)
    assert story.everything(database) == right
    use(log, used(4), 10)
    story.apply_all(log, projector)  # The projector of before goes on.
    projector.close()
    assert rows(database, "SELECT uses FROM key_usage WHERE key_id = %s", key_id(4)) == [{"uses": 2}]


def _meanwhile(work: Callable[[int], object]) -> tuple[threading.Event, threading.Thread, list[BaseException]]:
    """Do some work again and again in a thread, until the event; what it raised."""
    over, raised = threading.Event(), list[BaseException]()

    def go_on() -> None:
        number = 0
        try:
            while not over.is_set():
                number += 1
                work(number)
        except BaseException as error:  # noqa: BLE001  # Told to the test.
            raised.append(error)

    thread = threading.Thread(target=go_on)
    thread.start()
    return over, thread, raised


def test_writers_and_readers_go_on_while_the_schemas_are_switched(
    log: MemoryLog, database: str, rebuild: Rebuild, live: Follower, tmp_path: Path
) -> None:
    ledger = _tell_all(log)
    pool = read_pool(database, 4)
    client = Client(app_on(pool, tmp_path))
    eventually(live.caught_up, 10, "the live projector has caught up")
    paths = (f"/v1/orgs/{ORG}", f"/v1/orgs/{ORG}/keys", f"/v1/orgs/{ORG}/users", f"/v1/orgs/{ORG}/history?limit=200")
    answers: list[tuple[int, int]] = []

    def read(number: int) -> None:
        answer = client.get(paths[number % len(paths)])
        assert answer.status_code == 200, answer.text
        answers.append((answer.status_code, int(answer.headers["Keyledger-Revision"].split(":")[1])))

    def write(number: int) -> None:
        ledger.write(events.KeyRenamed(key_id(1), f"name {number}"))
        use(log, used(1), 10 + number)
        assert live.wait_for(story.at_of(ledger), len(log.reader({story.at_of(ledger): 0}).poll(0)), 10)

    threads = [_meanwhile(read), _meanwhile(write)]
    eventually(lambda: len(answers) > 10, 10, "the reads have begun")
    for _ in range(3):
        rebuild.run(accept_differences=False)
    for over, thread, raised in threads:
        over.set()
        thread.join()
        assert raised == []
    at = story.at_of(ledger)
    end = log.end_offsets([at], 1)[at]
    assert live.wait_for(at, end, 10)
    assert live.wait_for(TopicPartition(USAGE, 0), log.end_offsets(story.PARTITIONS, 1)[TopicPartition(USAGE, 0)], 10)
    pool.close()
    assert {status for status, _ in answers} == {200}
    assert [revision for _, revision in answers] == sorted(revision for _, revision in answers)
    found = story.everything(database)
    with story.open_session(database) as session:
        session.execute("DROP SCHEMA read CASCADE")
    story.projected(database, log).close()
    assert story.everything(database) == found


def test_what_has_left_the_log_is_taken_over_from_the_live_tables(
    log: MemoryLog, database: str, rebuild: Rebuild, clock: Clock, lines: list[str]
) -> None:
    for hour in range(10, 16):
        clock.ms = to_ms(f"{DAY}{hour}:30:00.000Z")
        at = {"first_at": f"{DAY}{hour}:10:00.000Z", "last_at": f"{DAY}{hour}:10:00.500Z"}
        use(log, used(1, **at, ip=f"192.0.2.{hour}"), hour - 9, source="checker-1")
        use(log, used(2, "REVOKED", **at), hour, partition=1, source="checker-2")
        story.use_elsewhere(log, used(3, **at), f"id-{hour}")
    _tell_all(log)
    story.projected(database, log).close()
    before = story.everything(database)
    log.expire(TopicPartition(USAGE, 0), 3)
    log.expire(TopicPartition(USAGE, 1), 6)  # All of it is gone.
    rebuild.run(accept_differences=False)
    assert story.everything(database) == before
    assert [row["partition"] for row in rows(database, "SELECT * FROM usage_gaps WHERE source = 'checker-2'")] == [1]
    log.expire(story.PARTITIONS[24 + 3], 2)
    use(log, used(2), 16, partition=1, source="checker-2")
    story.projected(database, log).close()
    before = story.everything(database)
    rebuild.run(accept_differences=False)
    assert story.everything(database) == before


def test_a_wrong_count_of_a_retained_hour_is_found_though_older_uses_are_gone(
    log: MemoryLog, database: str, rebuild: Rebuild, clock: Clock
) -> None:
    for hour in range(10, 14):
        clock.ms = to_ms(f"{DAY}{hour}:30:00.000Z")
        use(log, used(1, first_at=f"{DAY}{hour}:10:00.000Z", last_at=f"{DAY}{hour}:10:00.500Z"), hour - 9)
    story.projected(database, log).close()
    right = story.everything(database)
    log.expire(TopicPartition(USAGE, 0), 1)
    with story.open_session(database) as session:
        session.execute("UPDATE key_usage_hours SET count = 7 WHERE hour = %s", [f"{DAY}13:00:00.000Z"])
    with pytest.raises(RowsDiffer):
        rebuild.run(accept_differences=False)
    rebuild.run(accept_differences=True)
    assert story.everything(database) == right


def test_addresses_that_were_cut_are_no_difference(
    log: MemoryLog, database: str, rebuild: Rebuild, clock: Clock
) -> None:
    old = {"first_at": "2026-01-05T10:10:00.000Z", "last_at": "2026-01-05T10:10:00.500Z"}
    use(log, used(1, **old), 1)
    use(log, used(1, **old, ip="192.0.2.200"), 2)
    story.projected(database, log).close()
    rebuild.run(accept_differences=False)
    assert rows(database, "SELECT ip, count FROM key_usage_hours") == [{"ip": "192.0.2.0/24", "count": 2}]


def test_a_rebuild_stays_behind_a_projector_that_stands_still(log: MemoryLog, database: str, rebuild: Rebuild) -> None:
    ledger = _tell_all(log)
    projector = story.projected(database, log)
    before = story.everything(database)
    ledger.write(events.UserDisabled(ROBOT))
    rebuild.run(accept_differences=False)
    assert story.everything(database) == before
    story.apply_all(log, projector)
    projector.close()
    assert rows(database, "SELECT status FROM users WHERE user_id = %s", ROBOT) == [{"status": "disabled"}]


def test_a_log_that_lost_history_is_refused(log: MemoryLog, database: str, rebuild: Rebuild) -> None:
    ledger = _tell_all(log)
    story.projected(database, log).close()
    before = story.everything(database)
    at = story.at_of(ledger)
    log.truncate(at, 5)
    with pytest.raises(CannotRebuild, match="history is missing"):
        rebuild.run(accept_differences=True)
    log.expire(at, 1)
    with pytest.raises(CannotRebuild, match="holds offsets 1 to 5"):
        rebuild.run(accept_differences=True)
    assert story.everything(database) == before


def test_a_second_rebuild_at_the_same_time_is_refused(log: MemoryLog, database: str, rebuild: Rebuild) -> None:
    with story.open_session(database) as session:
        session.execute("SELECT pg_advisory_lock(%s)", [rebuilding._LOCK])
        with pytest.raises(AnotherRebuild):
            rebuild.run(accept_differences=False)
    rebuild.run(accept_differences=False)
    assert [row["nspname"] for row in rows(database, SCHEMAS)] == [SCHEMA, OLD]


def test_a_long_read_is_not_disturbed_and_others_go_on_beside_it(
    log: MemoryLog, database: str, rebuild: Rebuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tell_all(log)
    story.projected(database, log).close()
    before = story.everything(database)
    monkeypatch.setattr(rebuilding, "_ATTEMPTS", 2)
    monkeypatch.setattr(rebuilding, "_AGAIN_AFTER_S", 0.0)
    with story.open_session(database) as session, session.transaction():
        session.execute("SELECT FROM heads")
        with pytest.raises(CannotRebuild, match=r"read\.heads"):
            rebuild.run(accept_differences=False)
        assert session.execute("SELECT count(*) FROM heads").fetchone() == (2,)
    assert story.everything(database) == before


def test_what_a_killed_rebuild_left_is_swept_away_by_the_next(log: MemoryLog, database: str, rebuild: Rebuild) -> None:
    _tell_all(log)
    story.projected(database, log).close()
    before = story.everything(database)
    with story.open_session(database) as session:
        session.execute("CREATE SCHEMA read_new; CREATE TABLE read_new.heads (half text); CREATE SCHEMA read_old")
    rebuild.run(accept_differences=False)
    assert story.everything(database) == before
    assert [row["nspname"] for row in rows(database, SCHEMAS)] == [SCHEMA, OLD]


def test_progress_is_told_while_nothing_else_is(lines: list[str]) -> None:
    with Progress(lines.append, every_s=0.01) as progress:
        progress.doing("7 of 9 records done")
        eventually(lambda: "7 of 9 records done …" in lines, 5, "it is told")
        progress.say("a result")
    assert "a result" in lines


def test_a_projector_that_starts_after_the_switch_finds_its_places(
    log: MemoryLog, database: str, rebuild: Rebuild
) -> None:
    _tell_all(log)
    story.projected(database, log).close()
    rebuild.run(accept_differences=False)
    projector: Projector = story.new_projector(database)
    assert story.new_records(log, projector) == []
    projector.close()
