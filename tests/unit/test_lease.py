"""When a checker's tables may be believed, rule by rule. Times are seconds; M is 2 s."""

from typing import Final

import pytest

from schemas.checker_status import Floor, Pulse
from services.auth_checker.lease import Granted, Lease, Lessee, Moment

M_MS: Final = 2_000
WALL_S: Final = 1_800_000_000


def at(boot_s: float, wall_s: float | None = None) -> Moment:
    """Both clocks; the wall clock goes with the other one unless told."""
    wall_s = boot_s if wall_s is None else wall_s
    return Moment(round(boot_s * 1e9), round((WALL_S + wall_s) * 1000))


def a_lessee(floors: dict[int, int] | None = None, incarnation: str = "one") -> Lessee:
    return Lessee("checker", incarnation, "boot", M_MS, floors or {})


def floor(offsets: dict[int, int], api: str = "api") -> Floor:
    return Floor(api, 1, offsets)


def granted(lessee: Lessee, pulse: Pulse) -> Granted:
    found = lessee.read(pulse)
    assert found is not None
    return found


def a_lease(begun_s: float = 10) -> Lease:
    lessee = a_lessee()
    return granted(lessee, lessee.begin(at(begun_s), {0: 5})).lease


def test_a_pulse_read_back_gives_a_lease_of_m_from_when_it_began() -> None:
    lessee = a_lessee()
    lease, positions = granted(lessee, lessee.begin(at(10), {0: 5, 1: 7}))
    assert (lease.boot_id, lease.incarnation, positions) == ("boot", "one", {0: 5, 1: 7})
    assert (lease.begun_boot_ns, lease.begun_wall_ms) == at(10)
    assert (lease.until_boot_ns, lease.until_wall_ms) == at(12)


@pytest.mark.parametrize(
    ("now", "covered"),
    [
        (at(10), True),
        (at(11.999), True),
        (at(12), False),
        (at(9.999), False),
        (at(11, wall_s=11.999), True),
        (at(11, wall_s=12), False),
        (at(11, wall_s=5000), False),
        (at(11, wall_s=-5000), True),
        (at(12, wall_s=-5000), False),
    ],
)
def test_a_lease_covers_what_lies_within_both_clocks(now: Moment, covered: bool) -> None:
    """A wall clock set forward ends it early; one set back lengthens nothing, because the other clock ends it too."""
    assert a_lease().covers("boot", now) is covered


def test_a_lease_of_another_boot_covers_nothing() -> None:
    assert not a_lease().covers("boot again", at(11))


def test_a_worker_that_compares_the_clock_first_and_keeps_the_verdict_believes_too_long() -> None:
    """Compared at 11 s, used by a validation that begins at 13 s: long after the last validation it may answer."""
    lease = a_lease()
    kept = lease.covers("boot", at(11))
    assert kept
    assert not lease.covers("boot", at(13)), "compared after the look-up the same lease gives STALE"


def test_a_pulse_counts_only_when_read_back() -> None:
    """Whatever was sent and acknowledged, floors read meanwhile decide."""
    lessee = a_lessee()
    pulse = lessee.begin(at(10), {0: 5})
    assert lessee.read(floor({0: 5})) is None
    assert lessee.read(pulse) is None


@pytest.mark.parametrize(("position", "counts"), [(4, False), (5, False), (6, True)])
def test_positions_are_past_a_floor_when_its_event_is_before_them(position: int, counts: bool) -> None:
    lessee = a_lessee()
    lessee.read(floor({0: 5}))
    assert (lessee.read(lessee.begin(at(10), {0: position, 1: 0})) is not None) is counts


def test_a_floor_of_a_partition_that_the_pulse_does_not_name_is_not_passed() -> None:
    lessee = a_lessee()
    lessee.read(floor({1: 0}))
    assert lessee.read(lessee.begin(at(10), {0: 99})) is None


def test_a_floor_behind_a_pulse_does_not_take_its_lease() -> None:
    """Whoever wrote that floor waits until the lease is over; only the next pulse must be past it."""
    lessee = a_lessee()
    pulse, late = lessee.begin(at(10), {0: 5}), lessee.begin(at(10.25), {0: 5})
    assert lessee.read(pulse)
    lessee.read(floor({0: 5}))
    assert lessee.read(late) is None


def test_floors_of_all_command_apis_add_up_and_never_sink() -> None:
    lessee = a_lessee({0: 3, 2: 9})
    for offsets in ({0: 5, 1: 1}, {0: 4}, {1: 0, 3: 0}):
        lessee.read(floor(offsets, api=f"api-{offsets[min(offsets)]}"))
    assert lessee.floors == {0: 5, 1: 1, 2: 9, 3: 0}


def test_stored_floors_count_as_if_just_read() -> None:
    lessee = a_lessee({0: 5})
    assert lessee.read(lessee.begin(at(10), {0: 5})) is None
    assert lessee.read(lessee.begin(at(10), {0: 6}))


def test_a_copy_of_a_pulse_gives_nothing() -> None:
    lessee = a_lessee()
    pulse = lessee.begin(at(10), {0: 5})
    assert lessee.read(pulse)
    assert lessee.read(pulse) is None


def test_a_pulse_that_arrives_after_a_later_one_shortens_nothing() -> None:
    lessee = a_lessee()
    early, late = lessee.begin(at(10), {0: 5}), lessee.begin(at(10.25), {0: 5})
    assert granted(lessee, late).lease.until_boot_ns == at(12.25).boot_ns
    assert lessee.read(early) is None


def test_a_pulse_of_another_incarnation_of_the_same_checker_gives_nothing() -> None:
    lessee, other = a_lessee(), a_lessee(incarnation="two")
    lessee.begin(at(10), {0: 5})
    assert lessee.read(other.begin(at(10), {0: 5})) is None


def test_a_pulse_that_was_never_sent_gives_nothing() -> None:
    assert a_lessee().read(Pulse("checker", "one", 1, {0: 5})) is None


def test_a_pulse_older_than_m_is_forgotten_and_gives_nothing() -> None:
    lessee = a_lessee()
    old, young = lessee.begin(at(10), {0: 5}), lessee.begin(at(10.001), {0: 5})
    lessee.begin(at(12), {0: 5})
    assert lessee.read(old) is None
    assert lessee.read(young)


def test_a_pulse_read_back_too_late_gives_a_lease_that_is_over() -> None:
    lessee = a_lessee()
    lease = granted(lessee, lessee.begin(at(10), {0: 5})).lease
    assert not lease.covers("boot", at(30))


def test_a_lease_follows_a_wall_clock_that_was_set_back() -> None:
    """The old lease would end in an hour by the wall clock; the new one ends within M by both."""
    lessee = a_lessee()
    granted(lessee, lessee.begin(at(10), {0: 5}))
    lease = granted(lessee, lessee.begin(at(10.25, wall_s=-3600), {0: 5})).lease
    assert lease.covers("boot", at(11, wall_s=-3599))
    assert not lease.covers("boot", at(11, wall_s=11))


def test_pulses_are_numbered_from_one_and_keep_the_positions_they_were_made_with() -> None:
    lessee, positions = a_lessee(), {0: 5}
    first, second = lessee.begin(at(10), positions), lessee.begin(at(10.25), positions)
    positions[0] = 99
    assert (first.number, second.number, second.positions) == (1, 2, {0: 5})
