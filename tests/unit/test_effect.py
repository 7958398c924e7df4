"""When a command API may say that a revoke is effective, rule by rule. Times are seconds; M is 2 s, the margin 0.1 s.

Unless told otherwise it began to read at 0 s, its floor was acknowledged at 10 s and read back then, and the event is
at offset 5 of partition 3.
"""

from collections.abc import Mapping
from typing import Final

import pytest

from schemas.checker_status import Floor, Pulse, Said, margin_ms
from services.auth_checker.lease import Lessee, Moment
from services.command_api.effect import Hearing, Target

M_MS: Final = 2_000
EVENT: Final = Target(3, 5)
NOT_PAST: Final = {3: 5}
PAST: Final = {3: 6}


class Heard:
    """A hearing, told and asked in seconds."""

    def __init__(self, began: float = 0, hearing: type[Hearing] = Hearing) -> None:
        self.hearing = hearing("api", M_MS, ns(began))

    def read(self, said: Said, now: float) -> "Heard":
        self.hearing.read(said, ns(now))
        return self

    def floor(self, number: int = 1, now: float = 10, api: str = "api") -> "Heard":
        return self.read(Floor(api, number, {3: 5}), now)

    def pulse(self, incarnation: str, positions: Mapping[int, int], now: float, number: int = 1) -> "Heard":
        return self.read(Pulse("checker", incarnation, number, positions), now)

    def slow_pulse(self, m_ms: int, now: float) -> "Heard":
        return self.read(Pulse("checker", "slow", 1, NOT_PAST, m_ms), now)

    def is_effective(self, now: float, number: int = 1, acknowledged: float = 10) -> bool:
        return self.hearing.is_effective(EVENT, number, ns(acknowledged), ns(now))


def ns(seconds: float) -> int:
    return round(seconds * 1e9)


@pytest.mark.parametrize(("m_ms", "margin"), [(500, 100), (2_000, 100), (3_400, 102), (15_000, 450)])
def test_the_margin_is_three_percent_and_a_tenth_of_a_second_at_least(m_ms: int, margin: int) -> None:
    assert margin_ms(m_ms) == margin


def test_effective_once_every_incarnation_reported_past_the_event() -> None:
    heard = Heard().pulse("a", NOT_PAST, 9.9).pulse("b", NOT_PAST, 9.9).floor()
    assert not heard.pulse("a", PAST, 10.01, number=2).is_effective(10.02)
    assert heard.pulse("b", PAST, 10.02, number=2).is_effective(10.03)


def test_effective_at_once_where_no_checker_was_ever_heard() -> None:
    assert Heard().floor().is_effective(10)


def test_an_incarnation_that_does_not_name_the_partition_is_not_past() -> None:
    assert not Heard().pulse("a", {0: 99}, 9.9).floor().is_effective(10.1)


@pytest.mark.parametrize(("now", "effective"), [(11.099, False), (11.1, True)])
def test_an_incarnation_unheard_for_m_and_margin_is_not_waited_for(now: float, effective: bool) -> None:
    assert Heard().pulse("gone", NOT_PAST, 9).floor().is_effective(now) is effective


def test_each_record_of_an_incarnation_is_waited_for_anew() -> None:
    """Its lease may count from that record on."""
    heard = Heard().pulse("a", NOT_PAST, 9).pulse("a", NOT_PAST, 9.5, number=2).floor()
    assert not heard.is_effective(11.1)
    assert heard.is_effective(11.6)


@pytest.mark.parametrize(("now", "effective"), [(12.099, False), (12.1, True)])
def test_effective_at_the_latest_m_and_margin_after_the_floor_was_acknowledged(now: float, effective: bool) -> None:
    """Though the incarnation is heard all the time, and though the floor was not read back."""
    assert Heard().pulse("a", NOT_PAST, now).floor().is_effective(now) is effective
    assert Heard().pulse("a", NOT_PAST, now).is_effective(now) is effective


def test_two_incarnations_under_one_checker_id_are_two() -> None:
    assert not Heard().pulse("a", NOT_PAST, 9.9).pulse("b", PAST, 9.95, number=7).floor().is_effective(10.1)


@pytest.mark.parametrize(("now", "effective"), [(2.099, False), (2.1, True)])
def test_in_its_first_m_and_margin_what_it_heard_is_not_enough(now: float, effective: bool) -> None:
    """Who pulsed just before it began to read may serve for M still, and it cannot know of that."""
    assert Heard(began=0).floor(now=1).is_effective(now, acknowledged=1) is effective


def test_in_its_first_m_and_margin_the_latest_bound_holds() -> None:
    """A floor acknowledged before it began anew to read, because records were lost, bounds the wait all the same."""
    assert Heard(began=11).is_effective(12.1, acknowledged=10)


@pytest.mark.parametrize(
    ("read", "asked", "read_back"), [(None, 1, False), (1, 1, True), (1, 2, False), (3, 2, True), (1, 0, False)]
)
def test_a_floor_is_read_back_by_its_number_or_a_later_one(read: int | None, asked: int, read_back: bool) -> None:
    heard = Heard().floor(read) if read else Heard()
    assert heard.hearing.read_back(asked) is read_back
    assert heard.is_effective(10.1, number=asked) is read_back


def test_the_floor_of_another_command_api_is_not_ones_own() -> None:
    assert not Heard().floor(api="other").is_effective(10.1)


def test_an_earlier_number_read_later_takes_nothing_back() -> None:
    assert Heard().floor(2).floor(1).hearing.read_back(2)


def test_a_copy_of_an_earlier_pulse_says_nothing_of_how_far_its_checker_is() -> None:
    """The checker emptied its tables after pulse 1: that it was past the event then is true no longer."""
    heard = Heard().pulse("a", PAST, 9, number=1).pulse("a", {3: 0}, 9.5, number=2).pulse("a", PAST, 9.6, number=1)
    assert not heard.floor().is_effective(10.1)


def test_an_incarnation_unheard_for_long_is_forgotten() -> None:
    heard = Heard()
    for second in range(100):
        heard.pulse(f"incarnation-{second}", PAST, second)
    assert len(heard.hearing._heard) < 12


def test_a_revoke_that_does_not_read_through_its_own_floor_is_wrong() -> None:
    """A checker pulses, the event and its floor are appended, and a deposed leader shows the API nothing of all that."""

    class NotReadingThrough(Hearing):
        def read_back(self, number: int) -> bool:
            return True

    lessee = Lessee("checker", "new", "boot", M_MS, {})
    pulse = lessee.begin(Moment(ns(9.9), 0), {3: 5})
    granted = lessee.read(pulse)
    assert granted is not None
    assert granted.lease.covers("boot", Moment(ns(10.1), 200)), "the checker, which lacks the event, is believed"
    assert Heard(hearing=NotReadingThrough).is_effective(10.1), "the broken rule says effective"
    # The real one waits until its own floor was read, and the pulse stands before it.
    assert not Heard().is_effective(10.1)
    assert not Heard().read(pulse, 10.1).floor(now=10.1).is_effective(10.1)


def test_began_must_be_after_the_answer_that_told_the_end() -> None:
    """A pulse may arrive between question and answer, and stand before the place where reading begins."""
    asked, pulsed, answered = 0, 5, 6
    lease_ends = pulsed + M_MS / 1000
    assert Heard(began=asked).floor(now=6.1).is_effective(6.2, acknowledged=6.1)
    correct = Heard(began=answered).floor(now=6.1)
    assert not any(correct.is_effective(now, acknowledged=6.1) for now in (6.2, lease_ends - 0.001))


def test_a_checker_with_a_larger_m_than_ours_is_waited_for_by_its_own() -> None:
    heard = Heard().slow_pulse(15_000, 9.9).floor()
    assert not heard.is_effective(10 + 2.1)
    assert not heard.is_effective(10 + 15.34)
    assert heard.is_effective(10 + 15.45)


def test_a_checker_with_a_smaller_m_than_ours_changes_nothing() -> None:
    heard = Heard().slow_pulse(500, 9.9).floor()
    assert not heard.is_effective(10 + 1.99)
    assert heard.is_effective(10 + 2.1)
