"""Processes of a running system: what they consist of, `kill -9` of all of it, and a new start with other settings."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from services.embedded.ports import is_taken
from tests.end_to_end.system import System
from tests.waiting import eventually


def family(pid: int) -> list[int]:
    """The process and its children, and theirs."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [member for child in task.read_text().split() for member in family(int(child))]
    return found


def pids(system: System) -> dict[str, list[int]]:
    """The process ids of every service, workers included."""
    return {name: family(process.pid) for name, process in system.processes.items()}


def follower_of(system: System, name: str) -> int:
    """The process of a checker that writes its index."""
    [pid] = _with_index(system, name, writing=True)
    return pid


def workers_of(system: System, name: str) -> list[int]:
    """The processes of a checker that answer: they have its index open to read."""
    found = _with_index(system, name, writing=False)
    assert found, f"{name} has no worker"
    return found


def _with_index(system: System, name: str, *, writing: bool) -> list[int]:
    index = system.config.var / name / "index" / "data.mdb"
    found = []
    for pid in family(system.processes[name].pid):
        open_as = {_access(file) for file in Path(f"/proc/{pid}/fd").iterdir() if _target(file) == str(index)}
        if open_as and (os.O_RDWR in open_as) == writing:
            found.append(pid)
    return found


def _target(file: Path) -> str:
    try:
        return str(file.readlink())
    except FileNotFoundError:
        return ""  # It was closed meanwhile.


def _access(file: Path) -> int:
    flags = (file.parent.parent / "fdinfo" / file.name).read_text().split("flags:")[1].split()[0]
    return int(flags, 8) & os.O_ACCMODE


def signal_all(pids: Iterable[int], how: signal.Signals) -> None:
    """Send a signal to each of these processes."""
    for pid in pids:
        os.kill(pid, how)


def kill_all(system: System, name: str) -> None:
    """`kill -9` of a service and its workers at once, and wait until its port is free."""
    workers = family(system.processes[name].pid)[1:]
    system.end(name)
    for worker in workers:
        try:
            os.kill(worker, signal.SIGKILL)
        except ProcessLookupError:
            continue  # It saw that its parent was gone.
    _wait_for_port(system, name)


def restart(system: System, *names: str, **settings: str) -> None:
    """Stop services in order and start them again, with more settings in their environment."""
    for name in names:
        system.end(name, signal.SIGTERM)
        _wait_for_port(system, name)
        system.spawn(name, **settings)
    for name in names:
        system.wait_ready(name)


def _wait_for_port(system: System, name: str) -> None:
    eventually(lambda: not is_taken(system.programs[name].port), 10, f"the port of {name} to be free")
