"""Processes of a running system: their workers, `kill -9` of all of them, and a new start with other settings."""

import os
import signal
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
