"""Runs processes side by side: their lines shown with their names and kept in files, their ends noticed."""

import contextlib
import os
import queue
import shlex
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from honcho.printer import Printer
from honcho.process import Process

from services.embedded.progress import dying_with_us, say

_LAST_LINES = 20
_STOP_S = 15.0


@dataclass
class _Child:
    log: IO[bytes]
    pid: int | None = None
    exit_code: int | None = None
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))


class Supervisor:
    """Starts processes and hears of them through honcho; `pump` must be called often, from one thread."""

    def __init__(self, logs: Path, names: Sequence[str], output: IO[str] | None = None) -> None:
        self._logs = logs
        self._logs.mkdir(parents=True, exist_ok=True)
        self._events: queue.Queue[Any] = queue.Queue()
        self._printer = Printer(output or sys.stdout, width=max(map(len, names)))
        self._children: dict[str, _Child] = {}

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts one process; its output goes to the screen under its name, and to `<name>.log`."""
        self._children[name] = _Child(log=(self._logs / f"{name}.log").open("ab"))
        # honcho runs a shell: exec makes the shell become the program, so that signals reach the program.
        process = Process("exec " + shlex.join(dying_with_us(list(command))), name=name, env=dict(environment))
        threading.Thread(target=process.run, args=(self._events,), name=f"output of {name}", daemon=True).start()

    def pump(self, timeout_s: float) -> None:
        """Handles what the processes said and did, waiting up to `timeout_s` seconds for the first event."""
        with contextlib.suppress(queue.Empty):
            self._handle(self._events.get(timeout=timeout_s))
            while True:
                self._handle(self._events.get_nowait())

    def pid(self, name: str) -> int | None:
        """The process id of a process once its start was heard of."""
        return self._children[name].pid

    def first_ended(self) -> str | None:
        """A sentence about a process that ended, with its last lines; None while all run."""
        for name, child in self._children.items():
            if child.exit_code is not None:
                lines = "".join(f"\n    {line}" for line in child.last_lines)
                return f"{name} ended with exit code {child.exit_code}; its last lines:{lines}"
        return None

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL after 15 s to who is still there; returns when all have ended."""
        self._signal_all(signal.SIGTERM)
        if not self._drained(_STOP_S):
            say(f"not stopped after {_STOP_S:.0f} s, killed: {', '.join(self._still_running())}")
            self._signal_all(signal.SIGKILL)
            self._drained(_STOP_S)
        for child in self._children.values():
            child.log.close()

    def _handle(self, event: Any) -> None:
        child = self._children[event.name]
        if event.type == "start":
            child.pid = event.data["pid"]
        elif event.type == "stop":
            child.exit_code = event.data["returncode"]
        else:
            child.log.write(event.data)
            child.log.flush()
            child.last_lines.append(event.data.decode(errors="replace").rstrip())
            self._printer.write(event)

    def _still_running(self) -> list[str]:
        return [name for name, child in self._children.items() if child.exit_code is None]

    def _signal_all(self, number: int) -> None:
        self.pump(0.0)
        while any(child.pid is None for child in self._children.values()):
            self.pump(0.1)  # A process that was just asked for has no pid for a moment, and must not be missed.
        for name in self._still_running():
            pid = self._children[name].pid
            # The whole group, since a service has worker processes: each was started as a session of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid or 0, number) if number == signal.SIGKILL else os.kill(pid or 0, number)

    def _drained(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while self._still_running() and time.monotonic() < deadline:
            self.pump(0.1)
        return not self._still_running()
