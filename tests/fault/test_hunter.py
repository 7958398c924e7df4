"""The hunter finds what is wrong: real checkers with one function replaced, against the real command API.

Without these a hunt that finds nothing would say nothing.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.embedded.ports import free_ports
from services.embedded.processes import Program
from tests.end_to_end.system import System
from tests.fault import planted
from tests.fault.asking import Said
from tests.fault.field import Field
from tests.fault.hunter import Hunt, Record
from tests.fault.running import follower_of, signal_all
from tests.waiting import eventually

NAME = "planted_checker"
ROOT = Path(__file__).parents[2]


@contextmanager
def _planted(system: System, flaws: str) -> Iterator[int]:
    """One more checker, flawed, for a while; its port."""
    program = Program(NAME, "auth_checker", free_ports()[0])
    system.add(program)
    try:
        path = os.pathsep.join((str(Path(planted.__file__).parent), str(ROOT)))
        system.spawn(NAME, PYTHONPATH=path, KEYLEDGER_PLANTED=flaws)
        system.wait_ready(NAME)
        yield program.port
    finally:
        system.end(NAME)
        del system.programs[NAME]


@contextmanager
def _hunting(system: System, flaws: str) -> Iterator[Hunt]:
    """A hunt over a flawed checker; what it found is not judged here."""
    field = Field(system, 5)
    with _planted(system, flaws) as port:
        hunt = Hunt(field, f"planted: {flaws}", {NAME: port}, seed=flaws)
        hunt.start()
        try:
            yield hunt
        finally:
            hunt.stop()
            print(f"\n{hunt.report()}")


def _revoke_and_go_on(hunt: Hunt) -> None:
    """Revoke a key and ask until the flaw is over."""
    prey = hunt.field.take(1)[0]
    hunt.aim(prey)
    hunt.revoke(prey)
    over = time.monotonic() + planted.SLOW_S
    eventually(lambda: time.monotonic() > over, planted.SLOW_S + 5, "the flaw to be over")


@pytest.mark.parametrize("flaws", ["slow,ahead", "slow,uncounted"])
def test_the_hunter_fails_a_checker_that_says_more_than_it_knows(system: System, flaws: str) -> None:
    """One reports positions that it has not applied; for the other a pulse counts without being read back."""
    with _hunting(system, flaws) as hunt:
        _revoke_and_go_on(hunt)
    assert hunt.record.violations()
    with pytest.raises(AssertionError, match="VALID"):
        hunt.judge()


def test_the_hunter_fails_a_worker_that_compares_the_clock_before_the_look_up_and_holds_the_verdict(
    system: System,
) -> None:
    with _hunting(system, "held") as hunt:
        follower = follower_of(system, NAME)
        signal_all([follower], signal.SIGSTOP)
        try:
            _revoke_and_go_on(hunt)
        finally:
            signal_all([follower], signal.SIGCONT)
    assert hunt.record.violations()
    with pytest.raises(AssertionError, match="VALID"):
        hunt.judge()


def test_the_same_slowness_without_a_flaw_is_no_violation(system: System) -> None:
    with _hunting(system, "slow") as hunt:
        _revoke_and_go_on(hunt)
    hunt.judge()
    codes = hunt.codes(NAME, 0)
    assert codes["VALID"], "it served before"
    assert codes["STALE"], "the hunt did not see it standing still"


def test_a_violation_is_a_valid_that_began_after_the_answer_and_before_the_rights_came_back() -> None:
    record = Record()
    record.said = [Said("one", "key", began, began + 2, "VALID") for began in (1.0, 3.0, 5.0, 7.0)]
    record.touch("key")
    record.forbid("key", 2.0)
    record.permit("key", 6.0)
    assert [(said.began, late_s) for said, late_s in record.violations()] == [(3.0, 1.0)]


def test_a_refusal_of_a_key_that_nobody_touched_is_found() -> None:
    record = Record()
    record.said = [Said("one", "key", 1.0, 2.0, code) for code in ("VALID", "STALE", "REVOKED")]
    assert [said.code for said in record.false_refusals()] == ["REVOKED"]
