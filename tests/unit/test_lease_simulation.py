"""The rules of leases run through pauses, stale reads, copies, restarts and clocks that differ; and each of them is needed.

One seed is one world of tests/lease_actors.py. `KEYLEDGER_FULL=1` runs so many that it takes minutes.
"""

from collections import Counter
from itertools import count
from typing import Final

import pytest

from schemas.checker_status import Floor, Pulse, Said
from services.auth_checker.lease import Granted, Lessee, Moment
from services.command_api.effect import Hearing
from tests.fault.organisation import FULL
from tests.lease_actors import Rules, play

SEEDS: Final = 6000 if FULL else 200
MOST_SEEDS_FOR_A_FAULT: Final = 1000
MS: Final = [2_000, 15_000]


class LateT0(Rules):
    """The lease counts from when the pulse was read back."""

    def read(self, lessee: Lessee, said: Said, now: Moment) -> Granted | None:
        if isinstance(said, Pulse) and said.number in lessee._begun:
            lessee._begun[said.number] = now
        return super().read(lessee, said, now)


class NoReadBack(Rules):
    """A pulse counts when it was acknowledged, whatever stands before it in the topic."""

    def acknowledged(self, lessee: Lessee, pulse: Pulse) -> Granted | None:
        return lessee.read(pulse)


class NoFloors(Rules):
    """A pulse counts wherever its checker is."""

    def read(self, lessee: Lessee, said: Said, now: Moment) -> Granted | None:
        return None if isinstance(said, Floor) else super().read(lessee, said, now)


class Merging(Hearing):
    def __init__(self, api: str, max_staleness_ms: int, began_ns: int) -> None:
        super().__init__(api, max_staleness_ms, began_ns)
        self._numbers = count()

    def read(self, said: Said, now_ns: int) -> None:
        if isinstance(said, Pulse):
            said = Pulse(said.checker, said.checker, next(self._numbers), said.positions)
        super().read(said, now_ns)


class Merged(Rules):
    """What one incarnation reported is taken as said by every process under its checker id."""

    def hearing(self, api: str, m_ms: int, began_ns: int) -> Hearing:
        return Merging(api, m_ms, began_ns)


class NotReadingThrough(Hearing):
    def read_back(self, number: int) -> bool:
        return True


class NoReadThrough(Rules):
    """Effective as soon as all who were heard are past, even when the topic was not read up to the own floor."""

    def hearing(self, api: str, m_ms: int, began_ns: int) -> Hearing:
        return NotReadingThrough(api, m_ms, began_ns)


class NoFirstWait(Rules):
    """A command API trusts what it heard from its first moment on."""

    def hearing(self, api: str, m_ms: int, began_ns: int) -> Hearing:
        return Hearing(api, m_ms, -(10**18))


class NoSecondLook(Rules):
    """A lease is written though the tables were emptied since its pulse."""

    def may_write(self, granted: Granted, positions: list[int]) -> bool:
        return True


BROKEN: Final = [LateT0, NoReadBack, NoFloors, Merged, NoReadThrough, NoFirstWait, NoSecondLook]


@pytest.mark.parametrize("m_ms", MS)
def test_no_validation_that_began_after_an_effective_revoke_says_valid(m_ms: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        scene = play(seed, m_ms, Rules())
        assert not scene.violations, f"seed {seed} with M = {m_ms} ms"
        seen.update(
            seeds=1, validations=scene.validations, valid=scene.valid, revokes=scene.revokes, effective=scene.effective
        )
    print(f"M = {m_ms} ms: {', '.join(f'{number} {name}' for name, number in seen.items())}, 0 violations")
    # A world in which nothing is valid, or nothing ever effective, would prove nothing.
    assert seen["valid"] > seen["validations"] / 10
    assert seen["effective"] > seen["revokes"] * 0.7


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("m_ms", MS)
def test_without_one_of_the_rules_a_violation_is_found(broken: type[Rules], m_ms: int) -> None:
    found = next((seed for seed in range(MOST_SEEDS_FOR_A_FAULT) if play(seed, m_ms, broken()).violations), None)
    assert found is not None, f"no violation in {MOST_SEEDS_FOR_A_FAULT} seeds"
    print(f"M = {m_ms} ms, {broken.__name__}: violation with seed {found}")
