"""What the pages about keys work out without asking anybody: the file, the chart, the story, the id in a text."""

import csv
import io
from typing import Any

import pytest

from schemas import key_text, wire
from schemas.times import to_ms
from services.console import chart, key_list_csv, key_story
from services.console.pages.keys import key_id_in

KEY = {
    "key_id": "0000000000000000000001",
    "user_id": "u1",
    "name": "nightly import",
    "scopes": None,
    "cidrs": None,
    "created_at": "2026-11-20T10:00:00.000Z",
    "expires_at": None,
    "last_used_at": None,
    "last_used_ip": None,
    "owner_name": "Ada",
}
NOW = to_ms("2026-11-23T18:00:00.000Z")
TEXT = key_text.compose("0" * 21 + "7", bytes(32))


def rows(*keys: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(key_list_csv.text(keys), newline="")))


def use(day: str, outcome: str, count: int) -> dict[str, Any]:
    return {"start": f"2026-11-{day}T00:00:00.000Z", "outcome": outcome, "count": count}


def event(kind: str, time: str, **data: Any) -> dict[str, Any]:
    actor = {"user_id": "u1", "type": "user"}
    return {"type": kind, "time": time, "data": data, "actor": actor, "revision": 1, "hash": "h", "parent": "p"}


def test_a_key_is_a_row_under_its_header() -> None:
    scoped = KEY | {"scopes": ["a:read", "b:read"], "cidrs": [], "expires_at": "2030-01-01T00:00:00.000Z"}
    plain, limited = rows(KEY, scoped)
    assert (plain["name"], plain["owner"], plain["owner_id"], plain["last_used_at"]) == (
        "nightly import",
        "Ada",
        "u1",
        "",
    )
    assert (plain["scopes"], limited["scopes"], limited["cidrs"]) == ("", "a:read b:read", "(none)")


def test_without_keys_the_file_is_its_header() -> None:
    assert key_list_csv.text([]).count("\r\n") == 1


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", "＠SUM(A1)"])
def test_no_name_is_a_formula(name: str) -> None:
    assert rows(KEY | {"name": name, "owner_name": name})[0]["owner"] == f"'{name}"
    assert rows(KEY | {"name": name})[0]["name"] == f"'{name}"


def test_a_semicolon_begins_no_cell_of_its_own() -> None:
    assert '"x;=1+1"' in key_list_csv.text([KEY | {"name": "x;=1+1"}])


def test_commas_quotes_and_letters_of_all_languages_survive() -> None:
    name = 'Ölmühle, "nachts" 東京'
    assert rows(KEY | {"name": name})[0]["name"] == name


def test_uses_are_summed_by_day_and_a_day_without_any_is_there() -> None:
    counts = [use("21", "VALID", 5), use("23", "VALID", 2), use("23", "REVOKED", 3), use("23", "EXPIRED", 1)]
    days = chart.by_day([use("01", "VALID", 9), *counts], NOW, 3)
    assert [(day.start[:10], day.accepted, day.refused) for day in days] == [
        ("2026-11-21", 5, 0),
        ("2026-11-22", 0, 0),
        ("2026-11-23", 2, 4),
    ]


def test_refused_uses_stand_on_accepted_ones_and_the_highest_column_fills_the_picture() -> None:
    accepted, refused = chart.bars(chart.by_day([use("23", "VALID", 58), use("23", "REVOKED", 58)], NOW, 2))
    assert (accepted.is_refused, refused.is_refused) == (False, True)
    assert accepted.y + accepted.height == chart.HEIGHT
    assert refused.y + refused.height == accepted.y
    assert (accepted.x, accepted.height, refused.height) == (chart.WIDTH / 2, 58, 58)
    assert refused.label == "23 Nov 2026: 58 accepted, 58 refused"


def test_every_bar_is_within_the_picture_and_to_be_seen() -> None:
    counts = [use(f"{day:02}", outcome, 10**day) for day in range(1, 10) for outcome in ("VALID", "REVOKED")]
    for bar in chart.bars(chart.by_day(counts, NOW, 30)):
        assert bar.height >= 2
        assert bar.y >= 0
        assert 0 <= bar.x <= bar.x + bar.width <= chart.WIDTH


def test_a_key_that_nobody_used_has_no_bars() -> None:
    assert chart.bars(chart.by_day([], NOW, 30)) == []


def test_uses_stand_between_the_events_even_on_their_day() -> None:
    events = [
        event("KeyCreated", "2026-11-20T10:00:00.000Z", name="n"),
        event("KeyRevoked", "2026-11-22T10:00:00.000Z", reason="key_compromise", comment="seen in a chat"),
    ]
    counts = [use("20", "VALID", 1), use("22", "VALID", 1000), use("22", "REVOKED", 3), use("23", "REVOKED", 4)]
    told = key_story.story(events, counts, lambda actor: actor["user_id"])
    assert [entry.what for entry in told] == ["Created as “n”", "Used 1,001 times", "Revoked", "Refused 7 times"]
    assert (told[2].by, told[2].why) == ("u1", "it may have leaked: seen in a chat")
    assert [entry.revision for entry in told] == [1, None, 1, None]


def test_an_event_of_a_newer_version_is_told_by_its_name() -> None:
    (entry,) = key_story.story([event("KeyMoved", "2026-11-20T10:00:00.000Z")], [], lambda _actor: "x")
    assert entry.what == "KeyMoved"


def test_every_reason_has_words_and_people_choose_from_those_that_say_something() -> None:
    assert set(key_story.REASONS) == set(wire.REASONS)
    assert [code for code, _ in key_story.CHOICES] == [
        "",
        "key_compromise",
        "superseded",
        "owner_left",
        "unused",
        "other",
    ]


@pytest.mark.parametrize(
    "pasted",
    [
        TEXT,
        f"Authorization: Bearer {TEXT}\n",
        f'{{"token": "aaaaaaaaaaaaaaaaaaaaaa", "key": "{TEXT}"}}',
        TEXT[:-1] + "x",
        "kl_0000000000000000000007",
        "  0000000000000000000007 ",
    ],
)
def test_the_id_is_found_in_a_key_and_in_what_is_around_it(pasted: str) -> None:
    assert key_id_in(pasted) == "0000000000000000000007"


@pytest.mark.parametrize("pasted", ["", "hello", "0" * 21, "0" * 23, "kl_short_x", "<script>"])
def test_a_text_without_an_id_has_none(pasted: str) -> None:
    assert key_id_in(pasted) is None
