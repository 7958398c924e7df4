"""A rebuild makes the same rows of uses that were held, and of uses whose hours are forgotten already."""

import functools
from collections.abc import Callable
from contextlib import closing

import pytest

from schemas.times import to_ms
from schemas.topics import EXTERNAL_USAGE, USAGE
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from services.projector.database import Writer, connect
from services.projector.judge import Judge
from services.projector.progress import Progress
from services.projector.projector import PROJECTED, TOLERANCE_MS
from services.projector.rebuild import Rebuild, RowsDiffer
from services.projector.retention import forget_old
from tests.integration import projector_story as story
from tests.integration.projector_story import DAY, OTHER, created, key_id, rows, use, use_elsewhere, used

NOW_MS = to_ms("2026-11-23T16:00:00.000Z")
LONG_AGO = "2025-06-01T"
HELD = 'SELECT reason, id FROM usage_quarantine ORDER BY topic, partition, "offset"'


class Clock:
    """The broker's."""

    text = f"{DAY}12:31:00.000Z"

    def __call__(self) -> int:
        return to_ms(self.text)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> MemoryLog:
    return MemoryLog(clock)


def forget(session: Writer) -> None:
    forget_old(session, NOW_MS, 90, 400)


@pytest.fixture
def rebuild(log: MemoryLog, database: str) -> Callable[[], None]:
    """Runs a rebuild."""

    def run() -> None:
        open_session = functools.partial(connect, database, "keyledger-rebuild")
        topic_ids = dict.fromkeys(PROJECTED, "topic-id")
        with Progress(print) as progress:
            Rebuild(open_session, log, story.KEYS, topic_ids, forget, progress).run(accept_differences=False)

    return run


def test_what_is_held_is_held_again_for_the_same_reason(
    log: MemoryLog, database: str, rebuild: Callable[[], None]
) -> None:
    ledger, _ = story.tell_story(log)
    late = f"{DAY}12:40:00.000Z"
    use_elsewhere(log, used(1, last_at=late), "future")
    use_elsewhere(log, used(1, first_at=f"{DAY}09:00:00.000Z", last_at=f"{DAY}09:00:00.000Z"), "before")
    use_elsewhere(log, used(7), "unknown")
    use_elsewhere(log, used(1, org_id=OTHER), "elsewhere")
    use_elsewhere(log, used(8), "early")
    with closing(story.projected(database, log)) as projector:
        with closing(story.open_session(database)) as session:
            Judge(lambda: session, log, range(12), TOLERANCE_MS).look(session)
        ledger.write(created(8))
        use_elsewhere(log, used(9), "waiting")
        story.apply_all(log, projector)
    before = story.everything(database)
    reasons = ["future", "before_creation", "unknown_key", "wrong_org", "waiting"]
    assert [row["reason"] for row in rows(database, HELD)] == reasons
    rebuild()
    assert story.everything(database) == before
    log.expire(TopicPartition(EXTERNAL_USAGE, 3), 4)
    rebuild()
    assert story.everything(database) == before


def test_the_totals_of_a_key_stay_when_its_hours_are_forgotten_and_the_log_has_lost_them(
    log: MemoryLog, database: str, rebuild: Callable[[], None], clock: Clock
) -> None:
    times = (f"{LONG_AGO}10:10:00.000Z", f"{LONG_AGO}12:10:00.000Z", f"{DAY}10:10:00.000Z", f"{DAY}12:10:00.000Z")
    for number, at in enumerate(times, 1):
        clock.text = at
        use(log, used(1, first_at=at, last_at=at, user_agent=f"agent {number}"), number)
        if number < 3:
            use(log, used(2, first_at=at, last_at=at, user_agent=f"agent {number}"), number, partition=1)
    story.projected(database, log).close()
    with closing(story.open_session(database)) as session:
        forget(session)
    rebuild()
    before = story.everything(database)
    assert [row["hour"][:13] for row in rows(database, "SELECT hour FROM key_usage_hours ORDER BY 1")] == [
        f"{DAY}10",
        f"{DAY}12",
    ]
    totals = "SELECT key_id, uses, last_used_at, last_used_agent FROM key_usage ORDER BY key_id"
    assert [tuple(row.values()) for row in rows(database, totals)] == [
        (key_id(1), 4, times[3], "agent 4"),
        (key_id(2), 2, times[1], "agent 2"),
    ]
    log.expire(TopicPartition(USAGE, 0), 1)
    log.expire(TopicPartition(USAGE, 1), 2)
    rebuild()
    assert story.everything(database) == before
    log.expire(TopicPartition(USAGE, 0), 3)
    rebuild()
    assert story.everything(database) == before


def test_a_total_below_its_hours_is_found_though_the_log_has_lost_its_beginning(
    log: MemoryLog, database: str, rebuild: Callable[[], None], clock: Clock
) -> None:
    for number, hour in enumerate((10, 11, 12), 1):
        clock.text = at = f"{DAY}{hour}:10:00.000Z"
        use(log, used(1, first_at=at, last_at=at), number)
    story.projected(database, log).close()
    log.expire(TopicPartition(USAGE, 0), 1)
    with closing(story.open_session(database)) as session:
        session.execute("UPDATE key_usage SET uses = 1, last_used_ip = 'planted'")
    with pytest.raises(RowsDiffer):
        rebuild()
