"""The whole system for tests: a broker, a database and every service as real processes that can be killed and restarted."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from services.embedded.config import Config
from services.embedded.kafka import Broker
from services.embedded.ports import is_taken
from services.embedded.postgres import Server
from services.embedded.processes import Program, addresses, environment, first_start_file, programs
from services.embedded.progress import dying_with_us
from tests.waiting import eventually

READY_S = 90.0
Settings = Callable[[int], Mapping[str, str]]
_HTTP = urllib3.PoolManager(maxsize=64, timeout=urllib3.Timeout(15.0), retries=False)


def _no_more(_kafka_port: int) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; `json` is None when the body is none."""

    status: int
    json: Any
    headers: Mapping[str, str]


class System:
    """Kafka, PostgreSQL and the services on free ports, all state under one folder."""

    def __init__(self, var: Path, checkers: int = 1, command_apis: int = 1, kafka: Settings = _no_more) -> None:
        """`kafka` gives further settings of the broker, by the port it will have."""
        self.config = Config(var, free_base_port(), checkers, command_apis, None, None)
        self.broker = Broker(var / "kafka", self.config.kafka_port, kafka(self.config.kafka_port))
        self.database = Server(var / "postgres", self.config.postgres_port)
        self.programs = {program.name: program for program in programs(self.config)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.issued: set[str] = set()  # Every key, password and token that went over the wire.
        self._parts = ExitStack()
        self._tokens: dict[str, tuple[str, float]] = {}
        self._signing_in = threading.Lock()

    @property
    def urls(self) -> dict[str, list[str]]:
        """Addresses by service: console, command, read, checker, kafka, postgres."""
        return addresses(self.config, self.broker.bootstrap, self.database.url)

    @property
    def ledger_keys(self) -> Path:
        """The ledger-keys file."""
        return self.config.var / "ledger-keys"

    def start(self) -> None:
        """Start everything and wait until it is ready and the first people exist."""
        self.config.var.mkdir(parents=True, exist_ok=True)
        self._parts.callback(self.database.stop)
        self.database.start()
        self.broker.launch()
        self._parts.callback(self.broker.stop)
        self.broker.wait_ready()
        for name in self.programs:
            self.spawn(name)
        for name in self.programs:
            self.wait_ready(name)
        eventually(first_start_file(self.config).exists, READY_S, "the console to make the first people")
        for person in self.people().values():
            self.issued.add(person["password"])

    def stop(self) -> None:
        """Stop everything in order."""
        for name in list(self.processes):
            self.end(name, signal.SIGTERM)
        self._parts.close()

    def spawn(self, name: str, **more: str) -> subprocess.Popen[bytes]:
        """Start one process; its output goes to log/<name>.log."""
        program = self.programs[name]
        (self.config.var / "log").mkdir(exist_ok=True)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                dying_with_us([sys.executable, "-m", f"services.{program.service}"]),
                env=environment(self.config, program, self.urls) | more,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def add(self, program: Program) -> None:
        """Make one more process known, to be spawned."""
        self.programs[program.name] = program

    def log(self, name: str) -> Path:
        """Where the output of a process is."""
        return self.config.var / "log" / f"{name}.log"

    def end(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End a process and its workers with a signal and wait for it; SIGKILL is `kill -9` of its whole group."""
        process = self.processes.pop(name)
        try:
            if how == signal.SIGKILL:
                os.killpg(process.pid, how)
            else:
                process.send_signal(how)
        except ProcessLookupError:
            assert process.poll() is not None, f"{name} is gone"
        process.wait(timeout=40)

    def wait_ready(self, name: str) -> None:
        """Wait until a process says that it is ready."""
        url = self.programs[name].url

        def ready() -> bool:
            process = self.processes[name]
            assert process.poll() is None, f"{name} ended: {self.log(name).read_text(errors='replace')[-2000:]}"
            try:
                return _HTTP.request("GET", f"{url}/readyz").status == 200
            except urllib3.exceptions.HTTPError:
                return False

        eventually(ready, READY_S, f"{name} to be ready")

    def call(
        self,
        service: str,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        at: int = 0,
        **headers: str,
    ) -> Answer:
        """One HTTP call to instance `at` of console, command, read or checker."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        response = _HTTP.request(method, self.urls[service][at] + path, json=body, headers=sent)
        text = response.data.decode()
        found = json.loads(text) if "json" in response.headers.get("Content-Type", "") else None
        for document, names in ((found, ("key", "temporary_password", "token")), (body, ("password", "old", "new"))):
            if isinstance(document, dict):
                self.issued.update(document[name] for name in names if isinstance(document.get(name), str))
        return Answer(response.status, found, response.headers)

    def people(self) -> dict[str, dict[str, str]]:
        """The first people: operator, admin, member, each with user_id, email, password."""
        facts = json.loads(first_start_file(self.config).read_text())
        return {"operator": facts["operator"], "admin": facts["demo"]["admin"], "member": facts["demo"]["member"]}

    def token(self, who: str) -> str:
        """A signed token of one of the first people."""
        person = self.people()[who]
        return self.signed_in(person["email"], person["password"])

    def signed_in(self, email: str, password: str) -> str:
        """A signed token, made anew when the last one is more than three minutes old."""
        # One sign-in at a time: eight threads that find an old token are eight tries at once, and five are the limit.
        with self._signing_in:
            token, made_at = self._tokens.get(email, ("", float("-inf")))
            if time.monotonic() - made_at > 200:
                token, made_at = self.sign_in(email, password), time.monotonic()
                self._tokens[email] = token, made_at
            return token

    def sign_in(self, email: str, password: str) -> str:
        """A signed token."""
        answer = self.call("console", "POST", "/v1/sessions", {"email": email, "password": password})
        assert answer.status == 201, answer
        return str(answer.json["token"])

    def validate(self, key: str, **more: Any) -> Any:
        """The checker's answer about a key."""
        return self.call("checker", "POST", "/v1/validations", {"key": key, **more}).json

    def validates_as(self, key: str, code: str) -> None:
        """Wait until the checker answers this code about a key."""
        eventually(lambda: self.validate(key)["code"] == code, 10, f"the key to be {code}")


@contextmanager
def running(var: Path, checkers: int = 1, command_apis: int = 1, kafka: Settings = _no_more) -> Iterator[System]:
    """A started System for the length of a `with`."""
    system = System(var, checkers, command_apis, kafka)
    try:
        system.start()
        yield system
    finally:
        system.stop()


def free_base_port() -> int:
    """A base port whose plan is free: services +0..+3 and +100·n, PostgreSQL +32, Kafka +92 to +95."""
    for base in range(20000 + os.getpid() % 97 * 100, 60000, 400):
        if not any(is_taken(base + offset) for offset in (*range(4), 32, 92, 93, 94, 95, 101, 103, 201, 203)):
            return base
    raise RuntimeError("no free ports")
