"""The oracle can fail: planted faults in rows and in the log are found."""

from pathlib import Path

import pytest

from schemas import events, examples
from schemas.codec import encode_usage
from schemas.times import to_ms
from schemas.topics import USAGE, partition_of
from services.ledger.chain import ROOT
from services.ledger.records import Record
from tests import ledger_story as story
from tests import oracle
from tests.rows import QUERIES, difference

ORG = "org_oracle"
ADDED = events.UserAdded(user_id=examples.USER, kind="person", role="member")
CREATED = next(event for event in examples.LEDGER_EVENTS if isinstance(event, events.KeyCreated))
REVOKED = events.KeyRevoked(key_id=examples.KEY, reason="superseded")


def values(*written: events.LedgerEvent) -> list[bytes]:
    made: list[bytes] = []
    for revision, event in enumerate(written, 1):
        made.append(story.value_of(ORG, revision, story.hash_of(made[-1]) if made else ROOT, event))
    return made


def folded(*records: bytes | Record) -> dict[str, set[tuple]]:
    made = [story.record(ORG, one, at) if isinstance(one, bytes) else one for at, one in enumerate(records)]
    return oracle.fold(made, story.KEYS.keys)


def usage(number: int, partition: int = 0) -> Record:
    value = encode_usage(examples.usage(number))
    return Record(USAGE, partition, number, examples.KEY.encode(), value, time_ms=to_ms(examples.KEY_USED.last_at))


HISTORY = values(events.OrgRegistered(name="Ours"), ADDED, CREATED, REVOKED)


def test_a_history_becomes_one_row_for_each_thing_it_is_about() -> None:
    tables = folded(*HISTORY)
    assert tables["heads"] == {(ORG, 4, story.hash_of(HISTORY[-1]), "2026-11-23T10:00:00.000Z", False)}
    assert {row[3:5] for row in tables["keys"]} == {(CREATED.name, CREATED.last4)}
    assert {row[9:] for row in tables["keys"]} == {("2026-11-23T10:00:00.000Z", 4)}
    assert {row[1] for row in tables["ledger_records"]} == {"applied"}


@pytest.mark.parametrize("table", ["heads", "orgs", "users", "keys", "ledger_records"])
def test_one_changed_value_in_any_column_of_any_table_is_a_difference(table: str) -> None:
    right = folded(*HISTORY)
    row = next(iter(right[table]))
    for column in range(len(row)):
        wrong = {**right, table: right[table] - {row} | {(*row[:column], "planted", *row[column + 1 :])}}
        assert len(difference(right, wrong)) == 2
    assert difference(right, right) == []


def test_a_missing_a_doubled_and_an_unknown_row_are_named() -> None:
    right = folded(*HISTORY)
    assert difference(right, right | {"users": set()})[0].startswith("users: ('org_oracle'")
    assert "should not be there" in difference(right, right | {"key_usage": {("planted",)}})[0]
    assert "no such table" in difference(right, right | {"planted": {("row",)}})[0]
    assert set(right) <= set(QUERIES)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_event_halts_the_organisation(lost: int) -> None:
    tables = folded(*HISTORY[:lost], *HISTORY[lost + 1 :])
    assert {row[1::3] for row in tables["heads"]} == {(lost, True)}
    assert difference(folded(*HISTORY), tables)


def test_one_changed_byte_is_foreign_and_everything_after_it_halts() -> None:
    sealed = story.record(ORG, HISTORY[1], 1)
    tables = folded(HISTORY[0], sealed._replace(value=HISTORY[1].replace(b"member", b"admin!")), *HISTORY[2:])
    assert [row[1] for row in sorted(tables["ledger_records"], key=lambda row: row[2])] == [
        "applied",
        "halting",
        "halting",
    ]


@pytest.mark.parametrize(
    "foreign",
    [
        story.record(ORG, HISTORY[1])._replace(headers=()),
        story.record(ORG, HISTORY[1])._replace(partition=(partition_of(ORG) + 1) % 12),
        story.record(ORG, HISTORY[1])._replace(key=b"another"),
        story.record(ORG, HISTORY[1].replace(b'"data":', b'"data" :')),
        story.record(ORG, b"[" * 20_000),
        story.record(ORG, None),
        story.record(ORG, b'{"org":1.5}'),
        story.record(ORG, HISTORY[1].replace(b'"revision":2', b'"revision":9007199254740992')),
    ],
    ids=["unsealed", "partition", "key", "spaces", "brackets", "empty", "float", "large"],
)
def test_a_record_that_is_no_envelope_of_ours_changes_nothing(foreign: Record) -> None:
    assert folded(HISTORY[0], foreign._replace(offset=9)) == folded(HISTORY[0])


def test_a_copy_is_void_and_a_late_piece_ends_the_halt() -> None:
    tables = folded(HISTORY[0], HISTORY[2], HISTORY[3], HISTORY[1], HISTORY[2])
    assert {row[1::3] for row in tables["heads"]} == {(4, False)}
    assert sorted(row[1] for row in tables["ledger_records"]) == ["applied"] * 4 + ["void"]
    assert tables["keys"] == folded(*HISTORY)["keys"]


def test_an_event_that_the_state_forbids_or_of_an_unknown_type_halts_but_the_head_moves() -> None:
    twice = values(events.OrgRegistered(), ADDED, ADDED, events.OrgKeysEnabled())
    assert {row[1::3] for row in folded(*twice)["heads"]} == {(4, True)}
    assert {row[2] for row in folded(*twice)["orgs"]} == {False}
    unknown = HISTORY[1].replace(b"keyledger:UserAdded:1", b"keyledger:UserAdded:2")
    assert {row[1::3] for row in folded(HISTORY[0], unknown)["heads"]} == {(2, True)}


def test_a_use_counts_once_and_missing_numbers_are_a_gap_until_they_come() -> None:
    tables = folded(usage(1), usage(1), usage(5), usage(3))
    assert {row[2:4] for row in tables["key_usage"]} == {(9, 9)}
    assert {row[2:4] for row in tables["usage_gaps"]} == {(2, 2), (4, 4)}
    assert "usage_gaps" not in folded(usage(1), usage(3), usage(2))


def test_a_log_without_its_beginning_has_no_gap_before_what_is_left() -> None:
    tables = oracle.fold([usage(7), usage(3), usage(8)], story.KEYS.keys, {(USAGE, 0)})
    assert "usage_gaps" not in tables
    assert {row[2] for row in tables["key_usage"]} == {6}


def test_the_oracle_stays_small_and_imports_nothing_of_ours() -> None:
    lines = Path(oracle.__file__).read_text().splitlines()
    assert len(lines) <= 180
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported == {"hmac", "json", "re", "collections", "datetime", "hashlib", "itertools", "kafka"}
