"""The real processes of a benchmark: Kafka, PostgreSQL and our services, all new, in a folder that is gone afterwards.

Never given ones: what others wrote to a log or a database would be measured too.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from signal import SIGTERM
from typing import Self

from services.embedded.kafka import running_kafka
from services.embedded.ports import free_ports, is_taken
from services.embedded.postgres import running_postgres
from services.embedded.progress import dying_with_us, end
from services.ledger.seal import LedgerKeys, load_or_make

READY_S = 180.0
SAY_EVERY_S = 5.0


class System:
    """What one benchmark runs on; what it does not ask for is not started. Use it in a `with`."""

    def __init__(self, server_core: int | None = None) -> None:
        """`server_core` is the core on which what is measured runs, the system's choice when None."""
        self._server_core = server_core
        self._stack = ExitStack()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.console_url = "http://127.0.0.1:9"

    def __enter__(self) -> Self:
        """Make the folder."""
        self.folder = Path(tempfile.mkdtemp(prefix="keyledger-bench-"))
        self.folder.chmod(0o755)
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything, the last started first."""
        self._stack.close()

    @cached_property
    def kafka(self) -> str:
        """The address of a broker."""
        return self._stack.enter_context(running_kafka(self.folder / "kafka", _two_free_ports()))

    @cached_property
    def database_url(self) -> str:
        """The URL of a database."""
        return self._stack.enter_context(running_postgres(self.folder / "postgres", free_ports()[0]))

    @cached_property
    def ledger_keys(self) -> LedgerKeys:
        """The keys that seal what this benchmark writes."""
        return load_or_make(self.folder / "ledger-keys")

    def start(self, service: str, module: str = "", **more: str) -> int:
        """Launch a service and wait until it is ready; gives its port."""
        port = self.launch(service, module, **more)
        try:
            wait_until(lambda: self.is_ready(port), f"{service} is ready")
        except TimeoutError as error:
            self.stop(port)
            raise TimeoutError(f"{error}:\n{self.last_words(port)}") from error
        return port

    def launch(self, service: str, module: str = "", **more: str) -> int:
        """Start `python -m services.<service>`, or this module in its place; gives its port, a free one unless it is given.

        With the port of one that was stopped it goes on with that one's state.
        """
        port = int(more.get("KEYLEDGER_PORT") or free_ports()[0])
        state = self.state_dir(service, port)
        environment = {
            "KEYLEDGER_HOST": "127.0.0.1",
            "KEYLEDGER_PORT": str(port),
            "KEYLEDGER_STATE_DIR": str(state),
            "KEYLEDGER_LEDGER_KEYS": str(self.folder / "ledger-keys"),
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "DATABASE_URL": self.database_url if service == "projector" else "",
            "CONSOLE_URL": self.console_url,
            "COMMAND_URL": "http://127.0.0.1:9",
            "READ_URL": "http://127.0.0.1:9",
            "CHECKER_URL": "http://127.0.0.1:9",
            "CHECKER_TOKEN": "benchmark",
            **more,
        }
        self.launch_other(service, [sys.executable, "-m", module or f"services.{service}"], port, environment)
        return port

    def launch_other(self, name: str, command: Sequence[str], port: int, environment: Mapping[str, str]) -> None:
        """Start a program that is to listen on this port; `environment` is added to ours."""
        folder = self.state_dir(name, port)
        folder.mkdir(exist_ok=True)
        with (folder / "stderr").open("ab") as said:
            self._processes[port] = subprocess.Popen(
                dying_with_us(self.pinned(command)),
                env={**os.environ, **environment},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self._stack.callback(self.stop, port)

    @contextmanager
    def serving(self, name: str, command: Sequence[str], port: int, environment: Mapping[str, str]) -> Iterator[int]:
        """Somebody else's server: it listens on this port when the block begins, and is stopped after it."""
        self.launch_other(name, command, port, environment)

        def listens() -> bool:
            self.check(port)
            return is_taken(port)

        try:
            wait_until(listens, f"{name} listens")
            yield port
        finally:
            self.stop(port)

    def pinned(self, command: Sequence[str]) -> list[str]:
        """The command, on the core of the servers."""
        return [*command] if self._server_core is None else ["taskset", "-c", str(self._server_core), *command]

    def state_dir(self, name: str, port: int) -> Path:
        """The folder of the program on this port."""
        return self.folder / f"{name}-{port}"

    def is_ready(self, port: int) -> bool:
        """Whether the service on this port says so. Raises RuntimeError with its last lines when it has ended."""
        self.check(port)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def check(self, port: int) -> None:
        """Raises RuntimeError with its last lines when the program of this port has ended."""
        ended = self._processes[port].poll()
        if ended is not None:
            raise RuntimeError(f"it ended with {ended}:\n{self.last_words(port)}")

    def last_words(self, port: int) -> str:
        """The end of what the program of this port has said."""
        [said] = self.folder.glob(f"*-{port}/stderr")
        return said.read_text()[-3000:]

    def stop(self, port: int) -> None:
        """Stop the service on this port in order; again is nothing."""
        end(self._processes[port], f"the service on port {port}", SIGTERM, 15)


@contextmanager
def split_cores() -> Iterator[int | None]:
    """Keep this process and what it starts itself (client, Kafka, PostgreSQL) on one core; gives one for the servers.

    None, and everything where the system puts it, on a machine with one core or without `taskset`.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2 or shutil.which("taskset") is None:
        yield None
        return
    os.sched_setaffinity(0, {usable[1]})
    try:
        yield usable[0]
    finally:
        os.sched_setaffinity(0, usable)


def pinning(server_core: int | None) -> str:
    """Where everything ran, in one sentence."""
    if server_core is None:
        return "nothing was pinned to a core"
    [own] = os.sched_getaffinity(0)
    return f"each server with all its processes on core {server_core}; client, Kafka and PostgreSQL on core {own}"


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for it, at most READY_S seconds, with a line every five. Raises TimeoutError."""
    began = said = time.monotonic()
    while not condition():
        now = time.monotonic()
        if now - began > READY_S:
            raise TimeoutError(f"not after {READY_S:.0f} s: {what}")
        if now - said >= SAY_EVERY_S:
            print(f"  waiting for {now - began:.0f} s: {what}", flush=True)
            said = now
        time.sleep(0.02)


def _two_free_ports() -> int:
    while True:
        port = free_ports()[0]
        if not is_taken(port + 1):
            return port
