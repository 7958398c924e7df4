"""Uses that cannot have been are kept and not counted; those that came too early are counted in the end."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from schemas import events
from schemas.times import to_ms
from schemas.topics import EXTERNAL_USAGE, LIFECYCLE, USAGE
from services.ledger.log import Message
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from services.projector.database import Writer, make_tables
from services.projector.judge import Judge
from services.projector.key_births import KeyBirths
from services.projector.projector import TOLERANCE_MS, Projector
from services.projector.quarantine import ready, release_apart
from tests.integration import projector_story as story
from tests.integration.projector_story import (
    DAY,
    MEMBER,
    ORG,
    OTHER,
    ROBOT,
    Ledger,
    created,
    key_id,
    rows,
    use,
    use_elsewhere,
    used,
)

SENT_MS = to_ms(f"{DAY}12:31:00.000Z")
LATE = 7
"""The number of a key that the story does not make."""


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(lambda: SENT_MS)


@pytest.fixture
def ledger(log: MemoryLog) -> Ledger:
    """The one of the story; the story's uses are of keys 1 and 3."""
    return story.tell_story(log)[0]


@pytest.fixture
def projector(log: MemoryLog, ledger: Ledger, database: str) -> Iterator[Projector]:
    """One that has read the story."""
    assert ledger.revision > 0
    with closing(story.projected(database, log)) as projector:
        yield projector


@pytest.fixture
def session(database: str) -> Iterator[Writer]:
    with closing(story.open_session(database)) as session:
        yield session


def judge(database: str, log: MemoryLog) -> Judge:
    return Judge(lambda: story.open_session(database), log, range(12), TOLERANCE_MS)


def held(database: str) -> list[tuple[str, str]]:
    found = rows(database, 'SELECT reason, id FROM usage_quarantine ORDER BY topic, partition, "offset"')
    return [(row["reason"], row["id"]) for row in found]


def uses_of(database: str, number: int) -> int:
    found = rows(database, "SELECT uses FROM key_usage WHERE key_id = %s", key_id(number))
    return sum(row["uses"] for row in found)


@pytest.mark.parametrize(
    ("last_at", "reason"),
    [
        (f"{DAY}12:36:00.000Z", None),
        (f"{DAY}12:36:00.001Z", "future"),
        (f"{DAY}10:05:00.000Z", None),  # The key was made at 10:10.
        (f"{DAY}10:04:59.999Z", "before_creation"),
    ],
)
def test_a_use_at_a_time_that_cannot_be_is_held_whoever_tells_of_it(
    last_at: str, reason: str | None, log: MemoryLog, projector: Projector, database: str
) -> None:
    event = used(4, first_at=last_at, last_at=last_at)
    use(log, event, 4)
    use_elsewhere(log, event, "id-4")
    story.apply_all(log, projector)
    assert [found for found, _ in held(database)] == ([reason] * 2 if reason else [])
    assert uses_of(database, 4) == (0 if reason else 2)


def test_what_is_held_tells_what_it_claims_and_stops_nothing(
    log: MemoryLog, projector: Projector, database: str
) -> None:
    use_elsewhere(log, used(LATE, "REVOKED", count=3), "id-9")
    use_elsewhere(log, used(1), "id-10")
    story.apply_all(log, projector)
    [row] = rows(database, "SELECT * FROM usage_quarantine")
    value = row.pop("value")
    assert json.loads(value)["data"]["key_id"] == key_id(LATE)
    assert row == {
        "topic": EXTERNAL_USAGE,
        "partition": 3,
        "offset": 1,
        "reason": "waiting",
        "source": "their-service",
        "id": "id-9",
        "org_id": ORG,
        "key_id": key_id(LATE),
        "outcome": "REVOKED",
        "count": 3,
        "last_at": f"{DAY}12:30:00.500Z",
        "sent_ms": SENT_MS,
    }
    assert uses_of(database, 1) == 9
    assert projector.counts["waiting"] == 1


def test_a_use_is_judged_only_after_lifecycle_was_followed_to_the_ends_asked_for_after_it_was_read(
    log: MemoryLog, ledger: Ledger, projector: Projector, database: str, session: Writer
) -> None:
    use_elsewhere(log, used(LATE), "no-such-key")
    use_elsewhere(log, used(1, org_id=OTHER), "of-another-org")
    story.apply_all(log, projector)
    ledger.write(events.KeyRenamed(key_id(1), "later"))
    judging = judge(database, log)
    judging.look(session)
    assert held(database) == [("waiting", "no-such-key"), ("waiting", "of-another-org")]
    story.apply_all(log, projector)
    judging.look(session)
    assert held(database) == [("unknown_key", "no-such-key"), ("wrong_org", "of-another-org")]
    assert rows(database, "SELECT * FROM key_usage WHERE org_id = %s", OTHER) == []


@pytest.mark.parametrize("judged", [False, True])
def test_a_use_that_was_sent_before_its_key_exists_is_counted_when_it_does_and_once(
    judged: bool, log: MemoryLog, ledger: Ledger, projector: Projector, database: str, session: Writer
) -> None:
    use_elsewhere(log, used(LATE, user_id="whoever"), "id-50")
    use_elsewhere(log, used(LATE, first_at=f"{DAY}09:00:00.000Z", last_at=f"{DAY}09:00:00.000Z"), "too-early")
    story.apply_all(log, projector)
    if judged:
        judge(database, log).look(session)
    ledger.write(created(LATE, owner=ROBOT))
    use_elsewhere(log, used(LATE, user_id="whoever"), "id-50")
    story.apply_all(log, projector)
    assert uses_of(database, LATE) == 1
    assert rows(database, "SELECT user_id FROM key_usage_hours WHERE key_id = %s", key_id(LATE)) == [{"user_id": ROBOT}]
    assert held(database) == [("before_creation", "too-early")]
    assert projector.counts["released"] == 1


def test_a_use_whose_key_was_made_while_it_was_being_read_is_counted_by_the_judge(
    log: MemoryLog, projector: Projector, database: str, session: Writer
) -> None:
    use_elsewhere(log, used(1), "id-10")
    story.apply_all(log, projector)
    before = uses_of(database, 1)
    # As another process would have left it that read the use before the creation was committed.
    session.execute("UPDATE key_usage SET uses = uses - 1 WHERE key_id = %s", [key_id(1)])
    value = story.new_use(used(1), "id-10")
    session.execute(
        "INSERT INTO usage_quarantine VALUES ('key-usage-external', 3, 1, 'waiting', 's', 'id-10', %s, %s, 'VALID', 1, '', 0, %s)",
        [ORG, key_id(1), value],
    )
    judging = judge(database, log)
    judging.look(session)
    assert (uses_of(database, 1), held(database), judging.counts["released"]) == (before, [], 1)


def test_of_two_that_release_the_same_uses_at_once_each_use_is_counted_by_one(
    log: MemoryLog, ledger: Ledger, projector: Projector, database: str, session: Writer
) -> None:
    for number in range(300):
        use_elsewhere(log, used(LATE, ip=f"192.0.2.{number % 5}"), f"id-{number + 100}")
    story.apply_all(log, projector)
    ledger.write(created(LATE))
    released: list[int] = []

    def go() -> None:
        with closing(story.open_session(database)) as own:
            late = [(ORG, key_id(LATE))]
            released.extend(release_apart(own, KeyBirths(TOLERANCE_MS), late)["released"] for _ in range(30))

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    story.apply_all(log, projector)
    for thread in threads:
        thread.join()
    assert sum(released) + projector.counts["released"] == 300
    assert (uses_of(database, LATE), ready(session)) == (300, [])


def test_a_checkers_use_that_overtakes_its_key_is_counted_at_once(
    log: MemoryLog, projector: Projector, database: str
) -> None:
    use(log, used(LATE), 4)
    story.apply_all(log, projector)
    assert (uses_of(database, LATE), held(database)) == (1, [])


def test_nobody_else_can_speak_for_a_checker(log: MemoryLog, projector: Projector, database: str) -> None:
    for sequence in (1, 3, 3, 2):
        use_elsewhere(log, used(1, "REVOKED"), "one-id", source="checker-1", sequence=sequence)
    use(log, used(4), 4)
    story.apply_all(log, projector)
    assert rows(database, "SELECT topic, partition, last FROM usage_sources WHERE source = 'checker-1' ORDER BY 1") == [
        {"topic": USAGE, "partition": 0, "last": 4},
        {"topic": EXTERNAL_USAGE, "partition": 3, "last": 3},
    ]
    assert rows(database, "SELECT * FROM usage_gaps") == []
    assert projector.counts["duplicates"] == 1
    assert uses_of(database, 1) == 8 + 3


def test_a_use_that_is_not_valid_moves_no_last_use_and_the_last_use_is_told_whole(
    log: MemoryLog, projector: Projector, database: str
) -> None:
    later = {"first_at": f"{DAY}12:32:00.000Z", "last_at": f"{DAY}12:32:00.000Z"}
    use_elsewhere(log, used(1, "EXPIRED", **later), "id-20")
    use_elsewhere(log, used(1, user_agent="curl/8", ip=None, **later), "id-21")
    use_elsewhere(log, used(1, user_agent="a newer one that came first", ip="192.0.2.1"), "id-22")
    story.apply_all(log, projector)
    columns = "last_used_at, last_used_ip, last_used_agent, last_used_source"
    [row] = rows(database, f"SELECT {columns} FROM org_keys WHERE key_id = %s", key_id(1))
    assert tuple(row.values()) == (later["last_at"], None, "curl/8", "their-service")


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_a_use_from_any_cloudevents_producer_is_counted_once(
    mode: str, log: MemoryLog, ledger: Ledger, projector: Projector, database: str, session: Writer
) -> None:
    for number in (4, LATE):
        event = {"specversion": "1.0", "type": "KeyUsed", "source": "any", "id": f"any-{number}"}
        event |= {"dataschema": "keyledger:KeyUsed:1", "time": f"{DAY}13:30:00+01:00", "theirs": "kept by nobody"}
        data = {"key_id": key_id(number), "org_id": ORG, "user_id": MEMBER, "outcome": "VALID", "count": 2}
        data |= dict.fromkeys(("first_at", "last_at"), f"{DAY}13:30:00.5+01:00")
        for _ in range(2):
            log.append(_as_sent(mode, event, data), 1)
    story.apply_all(log, projector)
    assert (uses_of(database, 4), held(database)) == (2, [("waiting", f"any-{LATE}")])
    ledger.write(created(LATE))
    story.apply_all(log, projector)
    assert (uses_of(database, LATE), held(database)) == (2, [])


def _as_sent(mode: str, event: dict[str, str], data: dict[str, Any]) -> Message:
    if mode == "structured":
        value = json.dumps(event | {"data": data, "datacontenttype": "application/json"}, indent=1).encode()
        return Message(EXTERNAL_USAGE, 5, b"k", value, (("content-type", b"application/cloudevents+json"),))
    headers = [("content-type", b"application/json"), *((f"ce_{name}", text.encode()) for name, text in event.items())]
    return Message(EXTERNAL_USAGE, 5, b"k", json.dumps(data).encode(), tuple(headers))


def test_many_foreign_records_are_one_line_in_the_log(
    log: MemoryLog, projector: Projector, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(50):
        log.append(Message(EXTERNAL_USAGE, 0, b"k", b"not an event"), 1)
    story.apply_all(log, projector)
    assert capsys.readouterr().out.count("foreign") == 1
    assert projector.counts["foreign"] == 50


def test_tables_of_an_earlier_version_are_brought_up_with_what_is_in_them(
    log: MemoryLog, projector: Projector, database: str, session: Writer
) -> None:
    use(log, used(1), 9)
    story.apply_all(log, projector)
    before = story.everything(database)
    for statement in (
        "DROP VIEW org_summary, user_summary, user_keys, org_keys",
        "ALTER TABLE key_usage DROP COLUMN last_used_agent, DROP COLUMN last_used_source",
        "DELETE FROM usage_sources WHERE topic <> 'key-usage'",
        "ALTER TABLE usage_sources DROP COLUMN topic, ADD PRIMARY KEY (source, partition)",
        "ALTER TABLE usage_gaps DROP COLUMN topic, ADD PRIMARY KEY (source, partition, first)",
        "DROP TABLE usage_quarantine",
    ):
        session.execute(statement)
    for _ in range(2):
        make_tables(session)
    for row in before["key_usage"]:
        row.update(last_used_agent="", last_used_source="")
    assert story.everything(database) == before
    use(log, used(1), 4)
    use_elsewhere(log, used(LATE), "id-30")
    story.apply_all(log, projector)
    assert (uses_of(database, 1), held(database)) == (10, [("waiting", "id-30")])
    assert TopicPartition(LIFECYCLE, 0) in story.PARTITIONS


def test_a_record_of_another_service_that_bears_a_checkers_source_is_foreign(
    log: MemoryLog, projector: Projector, database: str
) -> None:
    before = rows(database, "SELECT uses FROM key_usage ORDER BY key_id")
    use_elsewhere(log, used(1), "a", source="keyledger/auth-checker/0123")
    use_elsewhere(log, used(1), "b", source="keyledger/auth-checker/0123", sequence=1)
    story.apply_all(log, projector)
    assert projector.counts["foreign"] == 2
    assert rows(database, "SELECT uses FROM key_usage ORDER BY key_id") == before
