"""The projector's pure rules: numbers of senders, cursors, parameters, partitions, hours."""

import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.problems import Problem
from schemas.times import EARLIEST_MS, LATEST_MS, to_ms, to_text
from services.projector.config import BadConfig, Config, parse_partitions
from services.projector.key_uses import period
from services.projector.parameters import USAGE, from_cursor, parse, to_cursor
from services.projector.read_models.usage import hour_of
from services.projector.sequences import Sequence, first_seen

HOUR_MS = 3600 * 1000
NUMBERS = st.lists(st.integers(1, 40), max_size=80)


@given(NUMBERS)
def test_in_whatever_order_numbers_come_each_counts_once(numbers: list[int]) -> None:
    sequence = Sequence()
    counted = [number for number in numbers if sequence.take(number)]
    assert len(counted) == len(set(counted))
    assert set(counted) == set(numbers)


@given(NUMBERS)
def test_the_gaps_are_exactly_what_is_missing_below_the_last(numbers: list[int]) -> None:
    sequence = Sequence()
    for number in numbers:
        sequence.take(number)
    assert sequence.last == max(numbers, default=0)
    missing = [number for first, last in sequence.gaps for number in range(first, last + 1)]
    assert sorted(missing) == sorted(set(range(1, sequence.last)) - set(numbers))
    assert len(missing) == len(set(missing))


@given(st.integers(1, 1000))
def test_the_first_number_is_compared_with_zero_only_where_the_log_is_whole(number: int) -> None:
    whole, cut = first_seen(number, whole=True), first_seen(number, whole=False)
    assert whole.take(number)
    assert cut.take(number)
    assert whole.gaps == ([(1, number - 1)] if number > 1 else [])
    assert cut.gaps == []
    assert whole.last == cut.last == number


@given(st.integers(0, 2**63 - 1), st.from_regex(r"\A[a-z]{0,9}\Z"))
def test_a_cursor_comes_back_as_it_was(number: int, text: str) -> None:
    shapes = (int, re.compile("[a-z]{0,9}"))
    cursor = to_cursor([number, text])
    assert from_cursor(cursor, shapes) == [number, text]
    assert parse({"cursor": [cursor]}, ("cursor",)).cursor == cursor


@given(st.text("ABCabc019_-", min_size=1, max_size=40))
def test_any_text_is_refused_or_is_a_place_of_the_right_shape(text: str) -> None:
    place: list[Any] | None = None
    with suppress(Problem):
        place = from_cursor(text, (int,))
    assert place is None or (len(place) == 1 and 0 <= place[0] < 2**63)


def test_a_window_counts_in_the_hour_it_began_in() -> None:
    assert hour_of("2026-11-23T10:59:59.999Z") == "2026-11-23T10:00:00.000Z"


def _period(now_ms: int, **query: str) -> tuple[int, int]:
    given = {name.rstrip("_"): [text] for name, text in query.items()}
    asked = period(parse(given, USAGE), now_ms)
    return to_ms(asked.start), to_ms(asked.end)


@given(st.integers(EARLIEST_MS, LATEST_MS), st.sampled_from(["hour", "day"]))
def test_a_usual_period_begins_with_a_whole_step_and_ends_now(now_ms: int, step: str) -> None:
    start_ms, end_ms = _period(now_ms, step=step)
    length_ms, steps = (HOUR_MS, 48) if step == "hour" else (24 * HOUR_MS, 30)
    assert end_ms == now_ms
    assert start_ms % length_ms == 0
    assert start_ms == EARLIEST_MS or steps * length_ms <= end_ms - start_ms < (steps + 1) * length_ms


@given(st.integers(EARLIEST_MS, LATEST_MS), st.integers(EARLIEST_MS, LATEST_MS), st.sampled_from(["hour", "day"]))
def test_a_period_is_as_it_was_asked_for_or_refused(from_ms: int, to_ms: int, step: str) -> None:
    most_ms = (31 if step == "hour" else 400) * 24 * HOUR_MS
    asked: tuple[int, int] | None = None
    with suppress(Problem):
        asked = _period(LATEST_MS, from_=to_text(from_ms), to=to_text(to_ms), step=step)
    assert asked == ((from_ms, to_ms) if 0 <= to_ms - from_ms <= most_ms else None)


def test_partitions_are_numbers_and_ranges() -> None:
    assert parse_partitions("0-11") == tuple(range(12))
    assert parse_partitions("5, 0,3-4") == (0, 3, 4, 5)


@pytest.mark.parametrize("text", ["", "12", "x", "3-", "-3", "5-4", "0,,1", "٣"])
def test_other_partitions_are_refused(text: str) -> None:
    with pytest.raises(BadConfig, match="KEYLEDGER_PARTITIONS"):
        parse_partitions(text)


def test_a_configuration_without_a_database_is_refused_and_secrets_stay_unseen() -> None:
    env = {
        "KEYLEDGER_STATE_DIR": "state",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
        "DATABASE_URL": "postgresql://user:sesame@127.0.0.1/db",
        "CHECKER_URL": "http://127.0.0.1:8003/",
        "CHECKER_TOKEN": "sesame",
        "KEYLEDGER_LEDGER_KEYS": "ledger-keys",
    }
    config = Config.from_env(env)
    assert (config.port, config.partitions, config.checker_url) == (8002, tuple(range(12)), "http://127.0.0.1:8003")
    assert "sesame" not in repr(config)
    for name in env.keys() - {"CHECKER_TOKEN"}:
        with pytest.raises(BadConfig, match=name):
            Config.from_env({**env, name: ""})
    for name, bad in (("KEYLEDGER_PORT", "0"), ("CHECKER_URL", "ftp://x"), ("KEYLEDGER_PORT", "x")):
        with pytest.raises(BadConfig, match=name):
            Config.from_env({**env, name: bad})
