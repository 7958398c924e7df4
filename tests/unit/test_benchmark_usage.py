"""The benchmark of key use: rates and lags are what was seen, and what shows a use on a page is that use."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from benchmarks import usage
from benchmarks.corpus import MadeKey
from benchmarks.measure import NotMeasured, Row
from benchmarks.usage_lag import Seen, lags_s
from benchmarks.usage_latency import OpenPage
from benchmarks.usage_rates import Look, rate
from schemas import times

USED_MS = 1_790_000_000_000
PAGE = OpenPage(
    MadeKey("org", "user", "key", "text", False), "/part?seen=1", 1.0, 0.0, 0.0, range(USED_MS, USED_MS + 3)
)
SHOWN = '<div hx-get="/part?part=1&amp;seen=%d" hx-trigger="every 1s"><time datetime="%s">just now</time></div>'


def test_a_rate_begins_with_the_first_batch_and_not_with_the_start_of_a_process() -> None:
    assert (
        rate([Look(0, (0,)), Look(9, (5000,)), Look(10, (45_000,)), Look(11, (85_000,)), Look(12, (85_000,))]) == 40_000
    )


def test_the_rate_of_two_processes_is_that_of_the_time_in_which_both_work() -> None:
    looks = [Look(1, (1000, 0)), Look(2, (2000, 500)), Look(3, (12_000, 10_500)), Look(4, (12_000, 12_000))]
    assert rate(looks) == 20_000


def test_who_does_not_come_to_an_end_is_measured_as_far_as_it_came() -> None:
    assert rate([Look(0, (0,)), Look(1, (10,)), Look(2, (1010,)), Look(3, (2010,))]) == 1000


@pytest.mark.parametrize("looks", [[Look(0, (0,))], [Look(0, (0,)), Look(1, (50,)), Look(2, (50,))]])
def test_what_was_all_there_at_once_has_no_rate(looks: Sequence[Look]) -> None:
    with pytest.raises(NotMeasured):
        rate(looks)


def test_a_lag_is_the_age_of_the_oldest_record_that_is_missing() -> None:
    sent = [Seen(1.0, {0: 10, 1: 10}), Seen(2.0, {0: 20, 1: 20}), Seen(3.0, {0: 30, 1: 30})]
    looks = [
        Seen(1.5, {0: 10}),
        Seen(2.5, {0: 20, 1: 19}),
        Seen(2.75, {0: 20, 1: 20}),
        Seen(3.25, {0: 20, 1: 25}),
        Seen(3.5, {0: 30, 1: 30}),
    ]
    assert lags_s(sent, looks) == [0.5, 0.5, 0.0, 0.25, 0.0]


def test_a_page_shows_a_use_when_its_time_is_that_of_the_validation() -> None:
    page = replace(PAGE)
    assert not page.take(SHOWN % (2, times.to_text(USED_MS - 1)))
    assert page.take(SHOWN % (3, times.to_text(USED_MS + 2)))
    assert page.part == "/part?part=1&seen=3"


def test_a_part_that_did_not_change_shows_nothing_new() -> None:
    page = replace(PAGE)
    assert not page.take("")
    assert page.part == PAGE.part


def test_a_part_of_the_benchmark_that_cannot_run_says_so_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(scale: float) -> list[Row]:
        raise NotMeasured("wrk is not\nhere")

    def gives(*names: str) -> Callable[[float], list[Row]]:
        return lambda scale: [Row(name, scale, "events/s") for name in names]

    monkeypatch.setattr(usage, "_projection", gives("ours", "batched_floor"))
    monkeypatch.setattr("benchmarks.usage_latency.run", gives("validation_to_last_used"))
    monkeypatch.setattr("benchmarks.counting.run", fails)
    rows = usage.run(2.0)
    assert [row.value for row in rows] == [2.0, 2.0, 2.0, None]
    assert (rows[-1].name, rows[-1].note) == ("counting", "wrk is not here")
