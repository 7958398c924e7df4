"""kill -9 of projector, checker and command API, at moments from a printed seed, while commands and validations run."""

import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import urllib3

from tests import oracle, rows
from tests.end_to_end.system import System, running
from tests.end_to_end.test_mission import new_org
from tests.fault.kill_load import Actor, Load, Place
from tests.fault.running import family
from tests.waiting import eventually

FULL = bool(os.environ.get("KEYLEDGER_FULL"))
KILLS, COMMANDS = (20, 2000) if FULL else (3, 250)
ORGS = ("kills-one", "kills-two")
FIRST_S = 3.0
"""A process that was just started is killed within so many seconds."""
UNSENT_S = 2.0
"""Uses counted longer ago than this were sent: windows are sent every 250 ms, here on a machine that is busy."""
_HTTP = urllib3.PoolManager(timeout=urllib3.Timeout(1.0), retries=False)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system of its own: two command APIs, so that one goes on while the other is away."""
    with running(tmp_path / "var", command_apis=2) as made:
        yield made


class Killer:
    """Kills and restarts processes, and remembers when, in which phase, and what the victim said of itself just before."""

    def __init__(self, system: System, load: Load, random: Random, steps: int) -> None:
        self._system, self._load, self._random, self._steps = system, load, random, steps
        self.kills: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self.moments: list[tuple[str, float]] = []

    def go(self, service: str, phase: str) -> None:
        """One or two kills of a process of this service, some load while it is away, and a restart."""
        name = service
        if service == "command_api":
            name = self._random.choice(("command_api", "command_api_2"))
        part = -(-self._steps // 3)
        if phase == "idle":
            self._load.wait_idle()
            self._kill(name, phase)
            self._load.grant(part)
        else:
            self._load.grant(part)
            self._load.wait_done(self._load.done + self._random.randint(1, part // 2))
            self._kill(name, "under commands")
        self._load.grant(part)
        self._load.wait_idle()  # All this is what the process finds when it comes back.
        self._system.spawn(name)
        self._load.grant(part)
        if phase == "just restarted":
            at = time.monotonic() + self._random.uniform(0, FIRST_S)
            eventually(lambda: time.monotonic() > at, FIRST_S + 1, "the moment of the kill")
            self._kill(name, phase)
            self._system.spawn(name)
        elif phase == "catching up":
            said = eventually(lambda: self._says(name), 60, f"{name} to answer")
            self._kill(name, phase if said != "ready" else "just caught up")
            self._system.spawn(name)
        self._system.wait_ready(name)

    def _kill(self, name: str, phase: str) -> None:
        said, under_way = self._says(name), self._load.under_way
        process = self._system.processes.pop(name)
        pids = family(process.pid)
        assert process.poll() is None, f"{name} had ended by itself: {self._system.log(name).read_text()[-2000:]}"
        for pid in pids:  # One by one: a worker has a process group of its own.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        eventually(lambda: not any(map(_is_alive, pids)), 10, f"{name} and its worker to be gone")
        service = name.removesuffix("_2")
        self.kills[service] += 1
        self.phases[f"{service}, {phase}"] += 1
        self.moments.append((service, time.monotonic()))
        print(
            f"  kill -9 {name:14} {phase:15} it said: {said or 'nothing'}; processes {len(pids)}; steps under way {under_way}"
        )

    def _says(self, name: str) -> str:
        try:
            answer = _HTTP.request("GET", f"{self._system.programs[name].url}/readyz")
        except urllib3.exceptions.HTTPError:
            return ""
        return "ready" if answer.status == 200 else str(answer.json().get("detail", answer.status))


def test_killed_again_and_again_every_process_goes_on_and_the_tables_equal_the_oracle(system: System) -> None:
    seed = os.environ.get("KEYLEDGER_SEED") or secrets.token_hex(4)
    print(f"\nseed {seed} (KEYLEDGER_SEED={seed} repeats it); {'full' if FULL else 'small'} form")
    random = Random(seed)
    set_up = {org: _set_up(system, org) for org in ORGS}
    actors = [Actor(system, org, role, seed) for org in ORGS for role in ("admin", "member")]
    assert all(actor.sign_in() for actor in actors)
    load = Load(actors)
    plan = _plan(random)
    killer = Killer(system, load, random, -(-COMMANDS // len(plan)))
    began = time.monotonic()
    for service, phase in plan:
        killer.go(service, phase)
    load.finish()
    seen = load.seen
    print(
        f"{load.done} commands, {len(seen.uses)} answered uses, {time.monotonic() - began:.0f} s; kills {killer.kills}"
    )
    print(f"phases {dict(killer.phases)}\nrepeated because of {dict(seen.repeats)}; validations {dict(seen.codes)}")
    assert load.done >= COMMANDS
    assert all(killer.kills[service] >= KILLS for service in ("projector", "auth_checker", "command_api"))
    assert seen.wrong == []
    expected = _tables_equal_the_oracle(system)
    _each_answer_is_in_the_log_and_nothing_else(expected, set_up, seen.answered)
    _only_unsent_uses_were_lost(expected, killer, load)


def _plan(random: Random) -> list[tuple[str, str]]:
    """Enough (service, phase) for KILLS kills of each service: the two phases after a restart are two kills each."""
    services = ("projector", "auth_checker", "command_api")
    each = ["idle", "catching up", "just restarted", "under commands"] * 4 if FULL else ["idle"]
    plan = [(service, phase) for service in services for phase in each]
    plan += [(service, random.choice(("catching up", "just restarted"))) for service in services]
    random.shuffle(plan)
    return plan


def _set_up(system: System, org: str) -> int:
    """Register an organisation with keys turned on; its revision then."""
    people = new_org(system, org)
    answer = system.call("command", "PUT", f"/v1/orgs/{org}/keys-enabled", {"enabled": True}, people["admin"])
    assert answer.status == 200, answer
    return int(answer.json["revision"])


def _tables_equal_the_oracle(system: System) -> dict[str, set[tuple]]:
    """Wait until the read models are what the log says, and give what the log says."""
    expected: dict[str, set[tuple]] = {}

    def differences() -> list[str]:
        expected.clear()
        expected.update(oracle.expected(system.broker.bootstrap, system.ledger_keys))
        return rows.difference(expected, rows.actual(system.database.url))

    eventually(lambda: differences() == [], 60, "the tables to equal the oracle's")
    print("rows equal to the oracle's:", {table: len(found) for table, found in sorted(expected.items())})
    return expected


def _each_answer_is_in_the_log_and_nothing_else(
    expected: dict[str, set[tuple]], set_up: dict[str, int], answered: set[Place]
) -> None:
    """Every answered (organisation, revision) is history, and no command made a second event."""
    applied = {(row[3], row[4]) for row in expected["ledger_records"] if row[1] == "applied"}
    caused = {(org, revision) for org, revision in applied if revision > set_up.get(org, 2**53)}
    void = sum(1 for row in expected["ledger_records"] if row[1] == "void")
    print(f"{len(answered)} answered revisions, {len(caused)} applied events, {void} void records")
    assert answered == caused


def _only_unsent_uses_were_lost(expected: dict[str, set[tuple]], killer: Killer, load: Load) -> None:
    """The tables have every use on the topic; missing there are at most those of the last moments before a kill."""
    stored = sum(row[2] for row in expected["key_usage"] if row[0] in ORGS)
    by_hour = sum(row[6] for row in expected["key_usage_hours"] if row[0] in ORGS)
    deaths = [at for service, at in killer.moments if service == "auth_checker"]
    unsent = sum(1 for use in load.seen.uses if any(at - UNSENT_S < use < at + 1 for at in deaths))
    lost = len(load.seen.uses) - stored
    print(f"uses answered {len(load.seen.uses)}, in the tables {stored}, lost {lost}, at most {unsent} could be")
    assert stored == by_hour
    # An answer may be lost on its way when its use is not: so many calls had none.
    assert -load.seen.codes["no answer"] <= lost <= unsent


def _is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
