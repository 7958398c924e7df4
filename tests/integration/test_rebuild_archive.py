"""A rebuild from the archive, the tables that it keeps, the way back to them, and the command."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from keyledger.cli import main
from schemas import events
from schemas.times import DAY_MS, to_ms
from schemas.topics import LIFECYCLE, PARTITIONS, USAGE
from services.ledger.follow import Follower
from services.ledger.kafka_log import KafkaLog
from services.ledger.memory_log import MemoryLog
from services.ledger.preflight import prepare_patiently
from services.ledger.records import Record, TopicPartition
from services.projector.archive_log import ArchiveLog
from services.projector.checkpoints import Checkpoints
from services.projector.database import OLD, SCHEMA, Writer, connect, make_tables
from services.projector.locks import PartitionLocks, PartitionsHeld
from services.projector.progress import Progress
from services.projector.projector import PROJECTED, Projector
from services.projector.rebuild import CannotRebuild, Rebuild, RowsDiffer
from services.projector.retention import forget_everywhere, forget_old
from services.projector.rollback import drop_old, undo
from tests import oracle
from tests.integration import projector_story as story
from tests.integration.projector_story import ORG, OTHER, ROBOT, key_id, rows, use, used
from tests.integration.test_oracle import Mischief
from tests.rows import actual, difference
from tests.waiting import eventually

NOW_MS = to_ms("2026-11-23T16:00:00.000Z")
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'read%%' ORDER BY 1"
ALL_LIFECYCLE = [TopicPartition(LIFECYCLE, partition) for partition in range(PARTITIONS)]
Run = Callable[..., None]


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(lambda: NOW_MS)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def open_schema(database: str) -> Callable[[str], Writer]:
    return functools.partial(connect, database, "keyledger-rebuild")


@pytest.fixture
def rebuild(log: MemoryLog, open_schema: Callable[[str], Writer], lines: list[str]) -> Run:
    """Rebuilds from the archive; with `from_log` from the log."""

    def run(accept: bool = False, from_log: bool = False) -> None:
        topic_ids = dict.fromkeys(PROJECTED, "topic-id")
        with (
            Progress(lines.append) as progress,
            closing(ArchiveLog(lambda: open_schema(SCHEMA), log, accept)) as archive,
        ):
            read = log if from_log else archive
            Rebuild(open_schema, read, story.KEYS, topic_ids, _forget, progress).run(accept)

    return run


def _forget(session: Writer) -> None:
    forget_old(session, NOW_MS, 90, 400)


def _tell_all(log: MemoryLog) -> story.Ledger:
    """The story with a lost race, a fork, and foreign records before, between and after."""
    story.Ledger(log, ORG).append(b"before all others", headers=())
    story.Ledger(log, ORG).append(b"on a partition without anything else", partition=11, headers=())
    ledger, other = story.tell_story(log)
    ledger.append(b"not sealed", headers=())
    race = ledger.value(events.UserDisabled(ROBOT))
    ledger.write(events.UserEnabled(ROBOT))
    ledger.append(race)
    other.append(other.value(events.OrgKeysDisabled(), parent="ab" * 32))
    other.write(events.OrgKeysDisabled())
    use(log, used(4), 9)
    story.use_elsewhere(log, used(7), "of-no-key")
    for at in (ledger, other):
        at.append(b"after all others", headers=())
    return ledger


def _lose_lifecycle(log: MemoryLog) -> None:
    """Kafka's copy has lost its beginning, and a partition its end."""
    for at, end in log.end_offsets(ALL_LIFECYCLE, 1).items():
        if end > 2:
            log.truncate(at, end - 1)
        log.expire(at, min(end, 2))


def _records(log: MemoryLog) -> list[Record]:
    return log.reader(dict.fromkeys(story.PARTITIONS, 0)).poll(0)


def _edit(database: str, statement: str, *values: Any) -> None:
    with psycopg.connect(database, options="-c search_path=read") as connection:
        assert connection.execute(statement, values).rowcount > 0


def _kept(database: str) -> list[str]:
    return [row["nspname"] for row in rows(database, SCHEMAS)]


def _everything_old(database: str) -> dict[str, list[dict[str, Any]]]:
    with psycopg.connect(database, row_factory=dict_row, options=f"-c search_path={OLD}") as connection:
        found = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in story.TABLES}
    return {table: sorted(content, key=repr) for table, content in found.items()}


@pytest.mark.parametrize("at_once", [1, 3, 10_000])
def test_the_archive_gives_the_same_rows_as_the_log(
    log: MemoryLog, database: str, rebuild: Run, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.projector.archive_log.MOST_RECORDS", at_once)
    _tell_all(log)
    story.projected(database, log).close()
    before = story.everything(database)
    halts = {row["org_id"]: row["halt_why"] for row in before["heads"]}
    assert halts == {ORG: None, OTHER: "fork"}
    rebuild(from_log=True)
    assert story.everything(database) == before
    _lose_lifecycle(log)
    with pytest.raises(CannotRebuild, match="history is missing"):
        rebuild(from_log=True)
    rebuild()
    assert story.everything(database) == before
    assert _everything_old(database) == before


@pytest.mark.parametrize("seed", range(4))
def test_any_archive_gives_the_rows_that_the_log_says(seed: int, log: MemoryLog, database: str, rebuild: Run) -> None:
    Mischief(log, seed, ["org_a", "org_b", "org_c"]).run(300)
    story.projected(database, log).close()
    before = story.everything(database)
    wanted = oracle.fold(_records(log), story.KEYS.keys)
    _lose_lifecycle(log)
    rebuild()
    assert story.everything(database) == before
    assert difference(wanted, actual(database)) == []


def test_a_wrong_row_is_repaired_from_the_archive_beside_a_live_projector(
    log: MemoryLog, database: str, rebuild: Run, lines: list[str]
) -> None:
    ledger = _tell_all(log)
    with closing(story.new_projector(database)) as projector:
        follower = Follower(log, story.PARTITIONS, projector, "live")
        follower.start()
        eventually(follower.caught_up, 10, "the live projector has caught up")
        right = story.everything(database)
        _edit(database, "UPDATE keys SET name = 'planted' WHERE key_id = %s", key_id(1))
        wrong = story.everything(database)
        with pytest.raises(RowsDiffer, match="1 rows differ, so"):
            rebuild()
        assert story.everything(database) == wrong
        rebuild(accept=True)
        assert story.everything(database) == right
        ledger.write(events.UserDisabled(ROBOT))
        at = story.at_of(ledger)
        assert follower.wait_for(at, log.end_offsets([at], 1)[at], 10)
        follower.stop()
    assert rows(database, "SELECT status FROM users WHERE user_id = %s", ROBOT) == [{"status": "disabled"}]
    assert _everything_old(database) == wrong  # Nobody writes there any more.


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (
            "UPDATE ledger_records SET value = value || ' '::bytea WHERE org_id = %s AND revision = 5",
            "offset 5 .org_a.",
        ),
        ("UPDATE ledger_records SET hash = 'edited' WHERE org_id = %s AND revision = 5", "offset 5 .org_a."),
        ("UPDATE ledger_records SET headers = '[[1]]' WHERE org_id = %s AND revision = 5", "offset 5 .org_a."),
        ("DELETE FROM ledger_records WHERE org_id = %s AND revision = 5", "org_a would be halted .gap."),
        ("UPDATE ledger_records SET headers = '[]' WHERE org_id = %s AND revision = 5", "org_a would be halted .gap."),
        (
            "UPDATE ledger_records SET value = '{}', hash = encode(sha256('{}'), 'hex') WHERE org_id = %s AND revision = 5",
            "org_a would be halted .gap.",
        ),
        (
            "DELETE FROM ledger_records WHERE org_id = %s AND revision = 13",
            "org_a would end at revision 12, it ends at 13",
        ),
        ("DELETE FROM ledger_records WHERE org_id = %s", "org_a would end at revision 0, it ends at 13"),
    ],
)
def test_an_edited_archive_is_refused_and_the_organisation_named(
    log: MemoryLog, database: str, rebuild: Run, statement: str, why: str
) -> None:
    _tell_all(log)
    story.projected(database, log).close()
    _edit(database, statement, ORG)
    before = story.everything(database)
    with pytest.raises(CannotRebuild, match=why):
        rebuild()
    assert story.everything(database) == before
    rebuild(accept=True)
    after = story.everything(database)
    assert [row for row in after["users"] if row["org_id"] == OTHER] == [
        row for row in before["users"] if row["org_id"] == OTHER
    ]


def test_an_edited_hash_alone_is_made_right_when_it_is_accepted(log: MemoryLog, database: str, rebuild: Run) -> None:
    _tell_all(log)
    story.projected(database, log).close()
    right = story.everything(database)
    _edit(database, "UPDATE ledger_records SET hash = 'edited' WHERE org_id = %s AND revision = 5", ORG)
    rebuild(accept=True)
    assert story.everything(database) == right


def test_undo_goes_back_and_catches_up_and_again_is_a_redo(
    log: MemoryLog, database: str, rebuild: Run, open_schema: Callable[[str], Writer]
) -> None:
    ledger = _tell_all(log)
    story.projected(database, log).close()
    before = story.everything(database)
    rebuild(from_log=True)
    ledger.write(events.UserDisabled(ROBOT), events.KeyRevoked(key_id(1), "user_request"))
    use(log, used(4), 10)
    use(log, used(2), 10)  # A copy.
    story.projected(database, log).close()
    new = story.everything(database)
    assert new != before
    undo(open_schema, log)
    assert story.everything(database) == before
    assert _everything_old(database) == new
    undo(open_schema, log)
    assert story.everything(database) == new
    undo(open_schema, log)
    story.projected(database, log).close()
    assert story.everything(database) == new
    assert difference(oracle.fold(_records(log), story.KEYS.keys), actual(database)) == []
    rebuild(from_log=True)
    assert story.everything(database) == new


def test_undo_needs_no_whole_lifecycle_in_kafka(
    log: MemoryLog, database: str, rebuild: Run, open_schema: Callable[[str], Writer]
) -> None:
    _tell_all(log)
    story.projected(database, log).close()
    _edit(database, "UPDATE keys SET name = 'planted'")
    before = story.everything(database)
    _lose_lifecycle(log)
    rebuild(accept=True)
    assert story.everything(database) != before
    undo(open_schema, log)
    assert story.everything(database) == before


def test_undo_is_refused_while_a_projector_runs_and_where_nothing_is_kept(
    log: MemoryLog, database: str, rebuild: Run, open_schema: Callable[[str], Writer]
) -> None:
    _tell_all(log)
    story.projected(database, log).close()
    before = story.everything(database)
    with pytest.raises(CannotRebuild, match="nothing to go back to"):
        undo(open_schema, log)
    rebuild()
    locks = PartitionLocks(lambda: connect(database, "a-projector"), [7])
    locks.hold()
    with pytest.raises(PartitionsHeld, match=r"a-projector.* holds \[7\]"):
        undo(open_schema, log)
    locks.release()
    assert story.everything(database) == before
    with open_schema(SCHEMA) as session, session.transaction():
        session.execute("SELECT FROM heads")
        with pytest.raises(CannotRebuild, match=r"reading the table read\.heads"):
            undo(open_schema, log)
    undo(open_schema, log)
    assert story.everything(database) == before


def test_undo_is_refused_where_the_log_has_lost_what_only_the_new_tables_saw(
    log: MemoryLog, database: str, rebuild: Run, open_schema: Callable[[str], Writer]
) -> None:
    _tell_all(log)
    story.projected(database, log).close()
    rebuild()
    use(log, used(4), 10)
    use(log, used(4), 11)
    story.projected(database, log).close()
    after = story.everything(database)
    log.expire(TopicPartition(USAGE, 0), 5)
    with pytest.raises(CannotRebuild, match=r"stand at offset 4 of key-usage/0, which holds offsets 5 to 6"):
        undo(open_schema, log)
    assert story.everything(database) == after
    log.expire(TopicPartition(USAGE, 0), 4)
    undo(open_schema, log)
    story.projected(database, log).close()
    assert story.everything(database) == after


def test_what_is_kept_is_dropped_by_the_next_rebuild_or_when_it_is_asked_for(
    log: MemoryLog, database: str, rebuild: Run
) -> None:
    _tell_all(log)
    story.projected(database, log).close()
    rebuild()
    assert _kept(database) == [SCHEMA, OLD]
    _edit(database, "UPDATE keys SET name = 'planted'")
    with pytest.raises(RowsDiffer):
        rebuild()
    assert _kept(database) == [SCHEMA, "read_new"]
    with story.open_session(database) as session:
        assert drop_old(session) == ["read_new"]
    assert _kept(database) == [SCHEMA]
    rebuild(accept=True)
    before = story.everything(database)
    with story.open_session(database) as session:
        assert drop_old(session) == [OLD]
    with story.open_session(database) as session:
        assert drop_old(session) == []
    assert _kept(database) == [SCHEMA]
    assert story.everything(database) == before


def test_addresses_in_the_tables_that_are_kept_are_forgotten_too(
    log: MemoryLog, database: str, rebuild: Run, open_schema: Callable[[str], Writer]
) -> None:
    use(log, used(1, ip="192.0.2.200"), 1)
    story.projected(database, log).close()
    addresses = "SELECT ip FROM key_usage_hours UNION SELECT last_used_ip FROM key_usage"

    def forget(session: Writer) -> None:
        forget_old(session, NOW_MS + 91 * DAY_MS, 90, 400)

    rebuild()
    assert _in_old(database, addresses) == {"192.0.2.200"}
    for _ in range(2):
        forget_everywhere(open_schema, forget)
        assert _in_old(database, addresses) == {"192.0.2.0/24"}
        assert rows(database, addresses) == [{"ip": "192.0.2.0/24"}]
    with story.open_session(database) as session:
        drop_old(session)
    forget_everywhere(open_schema, forget)
    assert rows(database, addresses) == [{"ip": "192.0.2.0/24"}]


def _in_old(database: str, query: str) -> set[str]:
    with psycopg.connect(database, options=f"-c search_path={OLD}") as connection:
        return {text for (text,) in connection.execute(query).fetchall()}


@pytest.fixture
def environment(
    kafka_bootstrap: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[KafkaLog]:
    """What the command needs is in the environment; gives the real log."""
    keys = {"current": story.KEYS.current, "keys": {kid: key.hex() for kid, key in story.KEYS.keys.items()}}
    (tmp_path / "ledger-keys").write_text(json.dumps(keys))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("KEYLEDGER_LEDGER_KEYS", str(tmp_path / "ledger-keys"))
    with closing(KafkaLog(kafka_bootstrap, "test")) as log:
        yield log


def _project_all(log: KafkaLog, database: str, topic_ids: dict[str, str]) -> None:
    with story.open_session(database) as session:
        make_tables(session)
    checkpoints = Checkpoints(story.PARTITIONS, topic_ids)
    with closing(Projector(lambda: story.open_session(database), story.KEYS, checkpoints, range(12))) as projector:
        follower = Follower(log, story.PARTITIONS, projector, "test")
        follower.start()
        eventually(follower.caught_up, 60, "the projector has caught up")
        follower.stop()


def _command(*words: str) -> int:
    return main(["projector", "rebuild", *words])


def test_the_command_rebuilds_from_both_goes_back_drops_and_says_by_its_code_what_came_of_it(
    environment: KafkaLog, kafka_bootstrap: str, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topic_ids = prepare_patiently(kafka_bootstrap)
    ledger = story.Ledger(environment, f"org_{hashlib.sha256(database.encode()).hexdigest()[:16]}")
    ledger.write(events.OrgRegistered(name="Real"), events.UserAdded(story.MEMBER, "person", "member"))
    _project_all(environment, database, topic_ids)
    before = story.everything(database)
    for words in ((), ("--from", "kafka"), ("--from", "archive")):
        assert _command(*words) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith("switched to the rebuilt tables; 0 rows")
        assert story.everything(database) == before
    _edit(database, "UPDATE orgs SET name = 'planted' WHERE org_id = %s", ledger.org)
    assert _command("--from", "archive") == 1
    assert "rebuild again with --accept-differences" in capsys.readouterr().err
    assert _command("--from", "archive", "--accept-differences") == 0
    assert story.everything(database) == before
    with closing(story.open_session(database)) as session:
        session.execute("SELECT pg_advisory_lock(%s, 3)", [0x6B6C_7072])
        assert _command("--undo") == 3
    assert "keyledger-test" in capsys.readouterr().err
    assert _command("--undo") == 0
    assert rows(database, "SELECT name FROM orgs WHERE org_id = %s", ledger.org) == [{"name": "planted"}]
    ledger.write(events.OrgKeysEnabled())
    _project_all(environment, database, topic_ids)
    assert rows(database, "SELECT keys_enabled FROM orgs WHERE org_id = %s", ledger.org) == [{"keys_enabled": True}]
    assert _command("--drop-old") == 0
    assert _command("--undo") == 2
    assert "nothing to go back to" in capsys.readouterr().err


def test_what_was_typed_or_set_wrongly_is_said(
    environment: KafkaLog, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("--undo", "--drop-old"), ("--from", "nowhere")):
        with pytest.raises(SystemExit, match="2"):
            _command(*words)
    with closing(story.open_session(database)) as session:
        session.execute("SELECT pg_advisory_lock(%s)", [0x6B6C_7262])
        assert _command("--drop-old") == 3
        assert _command() == 3
    assert "another rebuild is at work" in capsys.readouterr().err
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    assert _command("--from", "archive") == 2
    monkeypatch.delenv("DATABASE_URL")
    assert _command("--undo") == 2
    assert "needs DATABASE_URL" in capsys.readouterr().err
