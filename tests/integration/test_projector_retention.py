"""What is forgotten after a while: exact addresses, uses by hour, and the ids of external uses."""

import pytest

from schemas.times import to_ms
from services.ledger.memory_log import MemoryLog
from services.projector.retention import forget_old
from tests.integration import projector_story as story
from tests.integration.projector_story import DAY, ORG, rows, use, used

DAY_MS = 24 * 3600 * 1000
USED_MS = to_ms(f"{DAY}12:30:00.500Z")
HOURS = "SELECT ip, count, first_at, last_at FROM key_usage_hours ORDER BY ip"


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(lambda: USED_MS)


def _use_from(log: MemoryLog, *addresses: str | None) -> None:
    for number, address in enumerate(addresses, 1):
        use(log, used(1, ip=address, last_at=f"{DAY}12:30:00.{number:03}Z"), number)


def _forget(database: str, now_ms: int) -> None:
    with story.open_session(database) as session:
        forget_old(session, now_ms, 90, 400)


def test_old_addresses_become_networks_and_equal_rows_are_added_up(log: MemoryLog, database: str) -> None:
    addresses = (
        "192.0.2.7",
        "192.0.2.9",
        "198.51.100.1",
        "2001:db8:1:2::3",
        "2001:db8:1:ffff::",
        "fe80::1",
        "other",
    )
    _use_from(log, *addresses, None)
    story.projected(database, log).close()
    for _ in range(2):  # Again is nothing.
        _forget(database, USED_MS + 91 * DAY_MS)
        first = f"{DAY}12:30:00.000Z"
        assert [tuple(row.values()) for row in rows(database, HOURS)] == [
            ("", 1, first, f"{DAY}12:30:00.008Z"),
            ("192.0.2.0/24", 2, first, f"{DAY}12:30:00.002Z"),
            ("198.51.100.0/24", 1, first, f"{DAY}12:30:00.003Z"),
            ("2001:db8:1::/48", 2, first, f"{DAY}12:30:00.005Z"),
            ("fe80::/48", 1, first, f"{DAY}12:30:00.006Z"),
            ("other", 1, first, f"{DAY}12:30:00.007Z"),
        ]


def test_a_late_use_of_an_old_hour_is_added_to_its_network(log: MemoryLog, database: str) -> None:
    _use_from(log, "192.0.2.7")
    projector = story.projected(database, log)
    _forget(database, USED_MS + 91 * DAY_MS)
    use(log, used(1, ip="192.0.2.8", count=5), 2)
    story.apply_all(log, projector)
    projector.close()
    _forget(database, USED_MS + 92 * DAY_MS)
    assert [(row["ip"], row["count"]) for row in rows(database, HOURS)] == [("192.0.2.0/24", 6)]


def test_the_address_of_the_last_use_is_cut_together_with_that_of_its_hour(log: MemoryLog, database: str) -> None:
    _use_from(log, "192.0.2.7")
    story.projected(database, log).close()
    both = "SELECT last_used_ip, ip FROM key_usage JOIN key_usage_hours USING (org_id, key_id)"
    cut_at = to_ms(f"{DAY}13:00:00.000Z") + 90 * DAY_MS
    _forget(database, cut_at - 1)
    assert [tuple(row.values()) for row in rows(database, both)] == [("192.0.2.7", "192.0.2.7")]
    _forget(database, cut_at)
    assert [tuple(row.values()) for row in rows(database, both)] == [("192.0.2.0/24", "192.0.2.0/24")]
    assert rows(database, "SELECT uses, valid_uses FROM key_usage WHERE org_id = %s", ORG) == [
        {"uses": 1, "valid_uses": 1}
    ]


def test_the_id_of_an_external_use_goes_when_its_record_does(log: MemoryLog, database: str) -> None:
    story.use_elsewhere(log, used(1), "id-1")
    story.projected(database, log).close()
    _forget(database, USED_MS + 400 * DAY_MS)
    assert rows(database, "SELECT id FROM external_usage_ids") == [{"id": "id-1"}]
    _forget(database, USED_MS + 400 * DAY_MS + 1)
    assert rows(database, "SELECT id FROM external_usage_ids") == []


def test_hours_and_what_is_held_go_after_the_days_that_are_configured_and_totals_stay(
    log: MemoryLog, database: str
) -> None:
    _use_from(log, "192.0.2.7")
    story.use_elsewhere(log, used(7), "of-no-key")
    story.projected(database, log).close()
    gone_at = to_ms(f"{DAY}13:00:00.000Z") + 400 * DAY_MS
    counts = (
        "SELECT (SELECT count(*) FROM key_usage_hours) AS hours, (SELECT count(*) FROM usage_quarantine) AS held,"
        " (SELECT sum(uses)::bigint FROM key_usage) AS uses"
    )
    _forget(database, gone_at - 1)
    assert rows(database, counts) == [{"hours": 1, "held": 1, "uses": 1}]
    _forget(database, gone_at)
    assert rows(database, counts) == [{"hours": 0, "held": 0, "uses": 1}]
