"""The command API as it is run: a process with its own store, a real Kafka, and whoever asks it over HTTP."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from services.embedded.ports import is_taken
from tests.waiting import eventually

HTTP = urllib3.PoolManager(retries=False, timeout=5)
COMMAND = [sys.executable, "-m", "services.command_api"]


class Process:
    """A command API with a folder and a port of its own."""

    def __init__(self, folder: Path, port: int, kafka: str) -> None:
        self.port, self.url, self.stderr = port, f"http://127.0.0.1:{port}", folder / "stderr"
        self.environment = {
            **os.environ,
            "KEYLEDGER_PORT": str(port),
            "KEYLEDGER_STATE_DIR": str(folder / "state"),
            "KEYLEDGER_LEDGER_KEYS": str(folder / "ledger-keys"),
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "CONSOLE_URL": "http://127.0.0.1:9",
            "CHECKER_URL": "http://127.0.0.1:9",
        }
        with self.stderr.open("ab") as stderr:
            self.popen = subprocess.Popen(COMMAND, env=self.environment, stderr=stderr, start_new_session=True)

    def status(self, path: str) -> int:
        """The status of GET; 0 when nobody answers."""
        assert self.popen.poll() is None, self.stderr.read_text()
        try:
            return HTTP.request("GET", f"{self.url}{path}").status
        except urllib3.exceptions.HTTPError:
            return 0


@pytest.fixture
def process(tmp_path: Path, kafka_bootstrap: str, free_port: Callable[[], int]) -> Iterator[Process]:
    started = Process(tmp_path, free_port(), kafka_bootstrap)
    yield started
    if started.popen.poll() is None:
        os.killpg(started.popen.pid, signal.SIGKILL)
        started.popen.wait(10)


def test_it_becomes_ready_refuses_a_forged_request_and_stops_in_order(process: Process, tmp_path: Path):
    eventually(lambda: process.status("/readyz") == 200, 60, "the command API is ready")
    assert [process.status(path) for path in ("/healthz", "/metrics", "/openapi.json")] == [200, 200, 200]
    nobody = HTTP.request("POST", f"{process.url}/v1/orgs", json={})
    assert (nobody.status, nobody.json()["code"]) == (401, "token_missing")
    too_large = HTTP.request("POST", f"{process.url}/v1/orgs", body=b"x" * (1024 * 1024 + 1))
    assert too_large.status in (401, 413)
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(20) == 0
    assert not is_taken(process.port)
    assert (tmp_path / "state/ledger/voucher").read_text().endswith("closed in order")
    assert (tmp_path / "ledger-keys").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_stops_it_in_order(process: Process, tmp_path: Path):
    eventually(lambda: process.status("/readyz") == 200, 60, "the command API is ready")
    os.killpg(process.popen.pid, signal.SIGINT)
    assert process.popen.wait(20) == 0
    assert (tmp_path / "state/ledger/voucher").read_text().endswith("closed in order")


def test_a_killed_parent_leaves_nobody_on_the_port(process: Process):
    eventually(lambda: process.status("/readyz") == 200, 60, "the command API is ready")
    process.popen.kill()
    process.popen.wait(10)
    assert eventually(lambda: not is_taken(process.port), 10, "the port is free")


def test_a_bad_configuration_ends_it_with_one_sentence(tmp_path: Path):
    environment = {**os.environ, "KEYLEDGER_STATE_DIR": str(tmp_path), "KAFKA_BOOTSTRAP_SERVERS": ""}
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert done.stderr == "command API: KAFKA_BOOTSTRAP_SERVERS must be set\n"


def test_a_taken_port_ends_it_with_one_sentence(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = {**os.environ, "KEYLEDGER_STATE_DIR": str(tmp_path / "state"), "KEYLEDGER_PORT": port}
        environment["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:9"
        done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith(f"command API: cannot listen on 127.0.0.1:{port}: Address already in use")
    assert done.stderr.count("\n") == 1
