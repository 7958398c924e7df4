"""What README.md promises: one command starts it all, the quickstart lines work as printed, Ctrl-C ends it, data stays."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
import urllib3

from services.embedded.ports import is_taken
from tests.end_to_end.system import free_base_port
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
OFFSETS = (0, 1, 2, 3, 32, 92, 93)
"""Console, command API, reads, checker, PostgreSQL, Kafka and its controller, from the base port on."""
START_S = 180.0
_HTTP = urllib3.PoolManager(timeout=urllib3.Timeout(10.0), retries=False)


class Checkout:
    """A copy of what git has or would take, with data and ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.base_port = folder, free_base_port()
        self.var = folder / "var"
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    @contextmanager
    def running(self) -> Iterator[float]:
        """What `make run` runs; gives the moment of the start, and ends with one Ctrl-C, exit code 0 and nothing left."""
        began = time.monotonic()
        output = (self.folder / "run.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "services.embedded"],
            cwd=self.folder,
            env=os.environ | {"KEYLEDGER_BASE_PORT": str(self.base_port)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            eventually(lambda: self._is_up(process), START_S, "the services to be ready")
            yield began
            os.killpg(process.pid, signal.SIGINT)  # As a terminal does: to all of the group at once.
            assert process.wait(60) == 0, self.said()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
            output.close()
        assert [offset for offset in OFFSETS if is_taken(self.base_port + offset)] == []
        assert self._processes() == []

    def said(self) -> str:
        """The last of what it printed."""
        return (self.folder / "run.log").read_text(errors="replace")[-3000:]

    def shell(self, lines: str) -> list[str]:
        """Lines of the README in a shell, in this folder, with this system's ports for the usual ones; what they print."""
        shifted = re.sub(
            r"(127\.0\.0\.1:)800([0-3])", lambda found: f"{found[1]}{self.base_port + int(found[2])}", lines
        )
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", shifted],
            check=False,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [line for line in done.stdout.splitlines() if line]

    def call(self, service: int, method: str, path: str, body: Any = None, token: str = "") -> Any:
        """The JSON that a service (0 console, 1 command API, 2 reads, 3 checker) answers."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"http://127.0.0.1:{self.base_port + service}{path}"
        return _HTTP.request(method, url, json=body, headers=headers).json()

    def _is_up(self, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"it ended: {self.said()}")
        return "Ctrl-C stops everything" in self.said()

    def _processes(self) -> list[str]:
        """The command lines of all processes that were started in this folder."""
        found = []
        for cwd in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):  # It ended meanwhile, or is another user's.
                if cwd.resolve(strict=True).is_relative_to(self.folder):
                    found.append((cwd.parent / "cmdline").read_text())
        return found


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A fresh copy."""
    return Checkout(tmp_path.resolve() / "keyledger")


def quickstart() -> str:
    """The shell lines of README.md, as they stand there."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def test_the_quickstart_works_as_printed_and_a_restart_keeps_the_data(checkout: Checkout) -> None:
    with checkout.running() as began:
        started_s = time.monotonic() - began
        _first_steps(checkout)
        print(f"\nready {started_s:.1f} s, first VALID {time.monotonic() - began:.1f} s after the start")
        printed = checkout.shell(quickstart() + '\necho "$KEY"\n')
        answers, key = [json.loads(line) for line in printed[:-1]], printed[-1]
        assert "Ctrl-C stops everything" in checkout.said()
    _story_is_told(*answers)
    with checkout.running():
        assert checkout.call(3, "POST", "/v1/validations", {"key": key})["code"] == "REVOKED"
        admin = json.loads((checkout.var / "first-start.json").read_text())["demo"]["admin"]
        signed_in = checkout.call(0, "POST", "/v1/sessions", {name: admin[name] for name in ("email", "password")})
        found = checkout.call(2, "GET", f"/v1/orgs/demo/keys/{answers[0]['key_id']}", token=signed_in["token"])
        assert found["revoked_at"] == answers[2]["revoked_at"]
        _pages_show_the_demo(checkout, admin)


def _pages_show_the_demo(checkout: Checkout, admin: Any) -> None:
    """The demo's admin signs in as people do, and sees keys in use and, among the past keys of a user, one revoked."""
    visit = _browser(checkout)
    csrf = re.search(r'name="csrf" value="(\w+)"', visit("/sign-in"))
    assert csrf is not None
    home = visit("/sign-in", csrf=csrf[1], email=admin["email"], password=admin["password"])
    assert "Show API Keys" in home
    row = _row(visit("/orgs/demo/keys"), "Sequencer import, production")
    assert re.search(r'data-label="Last used"><time [^>]*>[^<]+ ago</time>', row), row
    assert "from 192.0.2.1" in row
    ada = re.search(r'href="(/orgs/demo/users/\w+)">Ada Example<', visit("/orgs/demo/users?search=ada"))
    assert ada is not None
    past = _row(visit(ada[1] + "?keys=past"), "Export for the contractor")
    assert re.search(r'data-label="Ended">Revoked <time', past), past


def _browser(checkout: Checkout) -> Callable[..., str]:
    """A browser that keeps its cookie; called with the address of a page, and the fields of a form to send there."""
    opener = build_opener(HTTPCookieProcessor())

    def visit(path: str, **form: str) -> str:
        url = f"http://127.0.0.1:{checkout.base_port}{path}"
        with opener.open(url, urlencode(form).encode() if form else None, timeout=10) as page:
            return str(page.read().decode())

    return visit


def _row(html: str, name: str) -> str:
    """The row of a table in which this name stands."""
    (row,) = [part for part in html.split("<tr") if f">{name}<" in part]
    return row


def _first_steps(checkout: Checkout) -> None:
    """The three lines that are printed at the start work as printed: VALID."""
    lines = [line for line in checkout.said().splitlines() if line.startswith(("TOKEN=", "KEY=", "curl "))]
    assert len(lines) == 3, checkout.said()
    assert json.loads(checkout.shell("\n".join(lines))[-1])["code"] == "VALID"


def _story_is_told(valid: Any, listed: Any, revoked: Any, refused: Any, history: Any) -> None:
    """What the lines of the README answer, in their order."""
    assert (valid["valid"], valid["code"], valid["name"]) == (True, "VALID", "nightly import")
    (row,) = [item for item in listed["items"] if item["key_id"] == valid["key_id"]]
    assert (row["name"], row["owner_name"]) == ("nightly import", "Demo Member")
    assert row["last_used_at"] >= row["created_at"]
    assert revoked["revoked_at"] >= row["last_used_at"]
    assert (refused["valid"], refused["code"]) == (False, "REVOKED")
    told = [(item["type"], item["data"].get("outcome"), item["data"].get("count")) for item in history["items"]]
    assert told == [
        ("KeyCreated", None, None),
        ("KeyUsed", "VALID", 1),
        ("KeyRevoked", None, None),
        ("KeyUsed", "REVOKED", 1),
    ]
