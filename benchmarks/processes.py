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
from collections.abc import Callable
from contextlib import ExitStack
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


class System:
    """What one benchmark runs on; what it does not ask for is not started. Use it in a `with`."""

    def __init__(self) -> None:
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

    def start(self, service: str, **more: str) -> int:
        """Launch a service and wait until it is ready; gives its port."""
        port = self.launch(service, **more)
        wait_until(lambda: self.is_ready(port), f"{service} is ready")
        return port

    def launch(self, service: str, **more: str) -> int:
        """Start `python -m services.<service>`; gives its port, a free one unless it is given."""
        port = int(more.get("KEYLEDGER_PORT") or free_ports()[0])
        state = self.folder / f"{service}-{port}"
        state.mkdir()
        environment = {
            **os.environ,
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
        with (state / "stderr").open("wb") as stderr:
            command = dying_with_us([sys.executable, "-m", f"services.{service}"])
            process = subprocess.Popen(command, env=environment, stderr=stderr, start_new_session=True)
        self._processes[port] = process
        self._stack.callback(self.stop, port)
        return port

    def is_ready(self, port: int) -> bool:
        """Whether the service on this port says so. Raises RuntimeError with its last lines when it has ended."""
        ended = self._processes[port].poll()
        if ended is not None:
            [said] = self.folder.glob(f"*-{port}/stderr")
            raise RuntimeError(f"it ended with {ended}:\n{said.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self, port: int) -> None:
        """Stop the service on this port in order; again is nothing."""
        end(self._processes[port], f"the service on port {port}", SIGTERM, 15)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for it, at most READY_S seconds. Raises TimeoutError."""
    deadline = time.monotonic() + READY_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not after {READY_S:.0f} s: {what}")
        time.sleep(0.05)


def _two_free_ports() -> int:
    while True:
        port = free_ports()[0]
        if not is_taken(port + 1):
            return port
