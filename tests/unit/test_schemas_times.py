"""Times in events: one fixed-width form, so that comparing texts compares times."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.times import EARLIEST_MS, LATEST_MS, parse_any_offset, to_ms, to_text, wall_clock_ms

moments = st.integers(EARLIEST_MS, LATEST_MS)
patient = settings(deadline=None)


@patient
@given(moments, moments)
def test_texts_compare_as_the_times_do_and_are_24_characters_wide(one: int, other: int) -> None:
    assert (to_text(one) < to_text(other)) == (one < other)
    assert len(to_text(one)) == 24


@patient
@given(moments)
def test_a_time_is_read_as_it_was_written(moment: int) -> None:
    assert to_ms(to_text(moment)) == moment
    assert parse_any_offset(to_text(moment)) == moment


@pytest.mark.parametrize("moment", [EARLIEST_MS - 1, LATEST_MS + 1, -1, 0])
def test_years_before_2000_and_after_9999_have_no_text(moment: int) -> None:
    with pytest.raises(ValueError, match="2000-9999"):
        to_text(moment)


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30T00:00:00.000Z",
        "2026-13-01T00:00:00.000Z",
        "2026-01-01T24:00:00.000Z",
        "2026-01-01T00:60:00.000Z",
        "2026-01-01T00:00:60.000Z",
        "2026-01-01T00:00:00Z",
        "2026-01-01",
        "2026-01-01T00:00:00.000+00:00",
        "2026-01-01T00:00:00.000Z\n",
        "\u0662026-01-01T00:00:00.000Z",
        "1999-12-31T23:59:59.999Z",
        "",
    ],
)
def test_a_time_that_does_not_exist_or_has_another_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        to_ms(text)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00.000Z"),
        ("2030-01-31t12:00:00z", "2030-01-31T12:00:00.000Z"),
        ("2030-01-31T12:00:00+13:45", "2030-01-30T22:15:00.000Z"),
        ("2030-01-31T12:00:00.5-00:30", "2030-01-31T12:30:00.500Z"),
        ("2030-01-31T12:00:00.123456789Z", "2030-01-31T12:00:00.123Z"),
        ("2000-01-01T13:00:00+13:00", "2000-01-01T00:00:00.000Z"),
    ],
)
def test_people_may_send_any_offset(text: str, utc: str) -> None:
    assert to_text(parse_any_offset(text)) == utc


@pytest.mark.parametrize(
    "text",
    [
        "2030-01-31",
        "2030-01-31T12:00:00",
        "2030-01-31 12:00:00Z",
        "2030-01-31T12:00:00+1345",
        "2030-01-31T12:00:00+25:00",
        "2030-01-31T12:00:00.1234567890Z",
        "2030-02-30T12:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "1999-12-31T23:59:59Z",
        "2030-01-31T12:00:00Z\n",
        "\u0662030-01-31T12:00:00Z",
        "20300131T120000Z",
    ],
)
def test_what_is_no_time_with_an_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_any_offset(text)


def test_the_wall_clock_is_in_milliseconds() -> None:
    assert abs(wall_clock_ms() - time.time() * 1000) < 60_000
