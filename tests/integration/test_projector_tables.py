"""What stands in the tables after a story, however it was brought."""

import pytest

from schemas import events
from schemas.topics import LIFECYCLE, USAGE, partition_of
from services.ledger.log import Message
from services.ledger.memory_log import MemoryLog
from tests.integration import projector_story as story
from tests.integration.projector_story import DAY, MEMBER, ORG, ROBOT, Ledger, created, key_id, rows, use, used


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def test_every_read_model_tells_the_story(log: MemoryLog, database: str) -> None:
    ledger, _ = story.tell_story(log)
    story.projected(database, log).close()
    by_id = {row["key_id"]: row for row in rows(database, "SELECT * FROM org_keys WHERE org_id = %s", ORG)}
    assert by_id == {row["key_id"]: row for row in rows(database, "SELECT * FROM user_keys WHERE org_id = %s", ORG)}
    assert by_id[key_id(1)] == {
        "org_id": ORG,
        "key_id": key_id(1),
        "user_id": MEMBER,
        "name": "renamed",
        "last4": "0001",
        "scopes": ["keys:read"],
        "cidrs": ["192.0.2.0/24"],
        "created_at": f"{DAY}10:07:00.000Z",
        "expires_at": None,
        "revoked_at": None,
        "revision": 11,
        "last_used_at": f"{DAY}12:30:00.900Z",
        "last_used_ip": "192.0.2.9",
        "uses": 8,
        "valid_uses": 8,
        "state": "active",
        "last_used_agent": "",
        "last_used_source": "checker-1",
    }
    assert [by_id[key_id(number)]["state"] for number in (2, 3, 4)] == ["expired", "revoked", "active"]
    # Only a VALID use is a use that a person asks for.
    assert (by_id[key_id(3)]["last_used_at"], by_id[key_id(3)]["uses"], by_id[key_id(3)]["valid_uses"]) == (None, 1, 0)
    [summary] = rows(database, "SELECT * FROM org_summary WHERE org_id = %s", ORG)
    assert (summary["name"], summary["keys_enabled"], summary["revision"], summary["halt_why"]) == (
        "Example",
        True,
        12,
        None,
    )
    assert (summary["active_keys"], summary["users"], summary["never_used"]) == (2, 4, 1)
    assert summary["last_activity_at"] == f"{DAY}12:30:00.900Z"
    [member] = rows(database, "SELECT * FROM user_summary WHERE user_id = %s", MEMBER)
    assert (member["active_keys"], member["never_used"], member["role"], member["status"]) == (1, 0, "member", "active")
    archived = rows(database, "SELECT * FROM ledger_records WHERE org_id = %s ORDER BY revision", ORG)
    assert [row["value"] for row in archived] == ledger.values
    assert {row["outcome"] for row in archived} == {"applied"}
    assert archived[-1]["hash"] == ledger.parent
    hours = rows(database, "SELECT * FROM key_usage_hours ORDER BY key_id, ip")
    assert [(row["ip"], row["count"], row["outcome"]) for row in hours] == [
        ("", 5, "VALID"),
        ("192.0.2.7", 2, "VALID"),
        ("192.0.2.9", 1, "VALID"),
        ("192.0.2.7", 1, "REVOKED"),
    ]
    assert {row["hour"] for row in hours} == {f"{DAY}12:00:00.000Z"}


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_the_size_of_batches_changes_nothing(log: MemoryLog, database: str, at_once: int) -> None:
    ledger, _ = story.tell_story(log)
    ledger.append(ledger.values[4])
    use(log, used(4), 9)
    projector = story.new_projector(database)
    story.apply_all(log, projector, at_once)
    projector.close()
    in_parts = story.everything(database)
    with story.open_session(database) as session:
        session.execute("DROP SCHEMA read CASCADE")
    story.projected(database, log).close()
    assert in_parts == story.everything(database)


def test_a_projector_that_starts_again_goes_on_where_it_was(log: MemoryLog, database: str) -> None:
    ledger, _ = story.tell_story(log)
    story.projected(database, log).close()
    ledger.write(events.UserDisabled(MEMBER), events.OrgKeysDisabled())
    use(log, used(1, count=10), 4)
    projector = story.projected(database, log)
    projector.close()
    assert projector.counts["applied"] == 2
    assert rows(database, "SELECT status FROM users WHERE user_id = %s", MEMBER) == [{"status": "disabled"}]
    assert rows(database, "SELECT uses FROM key_usage WHERE key_id = %s", key_id(1)) == [{"uses": 18}]


def test_a_use_may_come_before_its_key(log: MemoryLog, database: str) -> None:
    ledger = Ledger(log, ORG)
    use(log, used(1), 1)
    projector = story.projected(database, log)
    ledger.write(events.OrgRegistered(), events.UserAdded(MEMBER, "person", "member"), created(1))
    story.apply_all(log, projector)
    projector.close()
    assert rows(database, "SELECT last_used_at FROM org_keys") == [{"last_used_at": f"{DAY}12:30:00.500Z"}]


def test_a_use_that_names_another_organisation_shows_at_no_key(log: MemoryLog, database: str) -> None:
    story.tell_story(log)
    use(log, used(4, org_id=story.OTHER), 4)
    story.projected(database, log).close()
    assert rows(database, "SELECT uses FROM org_keys WHERE key_id = %s", key_id(4)) == [{"uses": 0}]


def test_what_does_not_belong_is_counted_and_changes_nothing(log: MemoryLog, database: str) -> None:
    ledger, _ = story.tell_story(log)
    projector = story.projected(database, log)
    before = story.everything(database)
    at = partition_of(ORG)
    unsealed = ledger.value(events.OrgKeysDisabled())
    for value in (b"", b"\xff", b"{}", b"[" * 20_000, b'{"org":"org_a","data":{"key_id":"\\u0000"}}', unsealed):
        log.append(Message(LIFECYCLE, at, ORG.encode(), value), 1)
    log.append(Message(LIFECYCLE, at, b"\0\xff", unsealed), 1)
    ledger.append(unsealed, partition=(at + 1) % 12)
    for value in (b"", b"nonsense", b'{"specversion":"1.0"}'):
        log.append(Message(USAGE, 0, b"k", value), 1)
    use(log, used(1), 0)
    use(log, used(1), 10**19)
    use(log, used(1), 1)
    story.apply_all(log, projector)
    assert projector.counts["foreign"] == 8 + 5
    assert projector.counts["duplicates"] == 1
    after = story.everything(database)
    assert {**before, "checkpoints": []} == {**after, "checkpoints": []}
    projector.close()


def test_a_lost_race_and_a_copy_are_archived_as_void(log: MemoryLog, database: str) -> None:
    ledger, _ = story.tell_story(log)
    race = ledger.value(events.UserDisabled(ROBOT))
    ledger.write(events.UserEnabled(ROBOT))
    ledger.append(race)
    ledger.append(ledger.values[0])
    projector = story.projected(database, log)
    projector.close()
    assert projector.counts["void"] == 2
    found = rows(database, "SELECT value FROM ledger_records WHERE outcome = 'void' ORDER BY \"offset\"")
    assert [row["value"] for row in found] == [race, ledger.values[0]]
    assert rows(database, "SELECT status FROM users WHERE user_id = %s", ROBOT) == [{"status": "active"}]


def test_an_external_use_counts_once_by_source_and_id(log: MemoryLog, database: str) -> None:
    story.tell_story(log)
    for source, id_ in (("their-service", "id-1"), ("their-service", "id-2"), ("other-service", "id-1")):
        for _ in range(2):
            story.use_elsewhere(log, used(4), id_, source)
    projector = story.projected(database, log)
    projector.close()
    assert projector.counts["duplicates"] == 4
    assert rows(database, "SELECT uses FROM key_usage WHERE key_id = %s", key_id(4)) == [{"uses": 2}]


def test_a_missing_number_is_a_gap_until_it_comes(log: MemoryLog, database: str) -> None:
    for number in (2, 6):
        use(log, used(1), number)
    projector = story.projected(database, log)
    gaps = "SELECT first, last FROM usage_gaps ORDER BY 1"
    assert rows(database, gaps) == [{"first": 1, "last": 1}, {"first": 3, "last": 5}]
    for number in (4, 1, 4):
        use(log, used(1), number)
    story.apply_all(log, projector)
    projector.close()
    assert rows(database, gaps) == [{"first": 3, "last": 3}, {"first": 5, "last": 5}]
    assert rows(database, "SELECT uses FROM key_usage") == [{"uses": 4}]
    assert projector.counts["gaps"] == 2


def test_what_expired_before_it_was_read_is_recorded_and_is_no_gap(log: MemoryLog, database: str) -> None:
    projector = story.projected(database, log)
    at = story.PARTITIONS[12]
    for number in range(1, 4):
        use(log, used(1), number, at.partition)
    projector.lost(at, 0, 2)
    projector.lost(at, 0, 2)
    [*_, last] = story.new_records(log, projector)
    projector.apply(story.batch_of([last]))
    assert rows(database, "SELECT * FROM usage_gaps") == []
    assert rows(database, "SELECT first_offset - next_offset AS lost FROM usage_losses") == [{"lost": 2}]
    projector.close()
