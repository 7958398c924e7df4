"""The projector as a process of its own, on a real Kafka and a real PostgreSQL."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3

from schemas import events
from schemas.topics import LIFECYCLE, partition_of
from services.ledger.kafka_log import KafkaLog
from services.ledger.preflight import prepare_patiently
from tests.integration import projector_story as story
from tests.integration.read_api import CALLERS
from tests.waiting import eventually

HTTP = urllib3.PoolManager(retries=False, timeout=5.0)


class _Checker(BaseHTTPRequestHandler):
    """Knows one caller, the operator."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(CALLERS["operator"]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def checker_url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Checker) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def environment(kafka_bootstrap: str, database: str, checker_url: str, tmp_path: Path) -> dict[str, str]:
    keys = {"current": story.KEYS.current, "keys": {kid: key.hex() for kid, key in story.KEYS.keys.items()}}
    (tmp_path / "ledger-keys").write_text(json.dumps(keys))
    return {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "DATABASE_URL": database,
        "CHECKER_URL": checker_url,
        "CHECKER_TOKEN": "sesame",
        "KEYLEDGER_LEDGER_KEYS": str(tmp_path / "ledger-keys"),
    }


@contextmanager
def _running(environment: dict[str, str], port: int, folder: Path) -> Iterator[subprocess.Popen[str]]:
    given = environment | {"KEYLEDGER_PORT": str(port), "KEYLEDGER_STATE_DIR": str(folder / f"state-{port}")}
    command = [sys.executable, "-m", "services.projector"]
    with (
        (folder / f"log-{port}").open("w") as log,
        subprocess.Popen(command, env=given, stderr=log, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _answer(port: int, path: str) -> tuple[int, Any]:
    try:
        answer = HTTP.request("GET", f"http://127.0.0.1:{port}{path}", headers={"Authorization": "Bearer operator"})
    except urllib3.exceptions.HTTPError as error:
        return 0, error
    return answer.status, answer.json() if "json" in answer.headers["Content-Type"] else answer.data.decode()


def _wait_ready(port: int) -> None:
    eventually(lambda: _answer(port, "/readyz")[0] == 200, 60, "the projector is ready")


@pytest.fixture
def ledger(kafka_bootstrap: str) -> Iterator[story.Ledger]:
    prepare_patiently(kafka_bootstrap)
    log = KafkaLog(kafka_bootstrap, "test")
    ledger = story.Ledger(log, f"org_{secrets.token_hex(8)}")
    # An operator reads through the organisation `platform`.
    ledger.write(events.OrgRegistered(name="Real"), events.UserAdded(story.MEMBER, "person", "member"))
    yield ledger
    log.close()


def test_a_process_projects_and_serves_and_a_second_one_exits_3(
    environment: dict[str, str], ledger: story.Ledger, free_port: Callable[[], int], tmp_path: Path
) -> None:
    port, second_port = free_port(), free_port()
    path = f"/v1/orgs/{ledger.org}"
    with _running(environment, port, tmp_path) as process:
        _wait_ready(port)
        assert _answer(port, path)[1]["name"] == "Real"
        ledger.write(events.OrgKeysEnabled(), story.created(1))
        assert _answer(port, f"{path}/keys?min_revision=4")[1]["items"][0]["key_id"] == story.key_id(1)
        eventually(lambda: f'topic="{LIFECYCLE}"' in _answer(port, "/metrics")[1], 10, "the lag is in the metrics")
        with _running(environment, second_port, tmp_path) as second:
            assert second.wait(30) == 3
        told = [json.loads(line) for line in (tmp_path / f"log-{second_port}").read_text().splitlines()]
        assert f":{process.pid}, from " in told[-1]["why"]
        assert _answer(port, path)[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert _answer(port, "/healthz")[0] == 0


def test_a_process_that_was_killed_leaves_no_orphan_and_the_next_goes_on(
    environment: dict[str, str], ledger: story.Ledger, database: str, free_port: Callable[[], int], tmp_path: Path
) -> None:
    port = free_port()
    with _running(environment, port, tmp_path) as process:
        _wait_ready(port)
        process.kill()
        process.wait(10)
        eventually(lambda: _answer(port, "/healthz")[0] == 0, 10, "nobody listens any more")
    ledger.write(events.OrgKeysEnabled())
    with _running(environment, port, tmp_path):
        _wait_ready(port)
        assert _answer(port, f"/v1/orgs/{ledger.org}?min_revision=3")[1]["keys_enabled"] is True
        # All sessions are ended, as by a restart of PostgreSQL: the locks are taken again, and all goes on.
        with story.open_session(database) as session:
            session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'keyledger%' AND pid <> pg_backend_pid() AND datname = current_database()"
            )
        ledger.write(events.OrgKeysDisabled())
        eventually(lambda: _answer(port, f"/v1/orgs/{ledger.org}?min_revision=4")[0] == 200, 20, "projecting goes on")
        held = "SELECT objid::int AS partition FROM pg_locks WHERE locktype = 'advisory' ORDER BY 1"
        assert [row["partition"] for row in story.rows(database, held)] == list(range(12))
    assert (
        story.rows(
            database,
            "SELECT outcome FROM ledger_records WHERE org_id = %s AND partition <> %s",
            ledger.org,
            partition_of(ledger.org),
        )
        == []
    )


def test_a_rebuild_beside_a_live_process_may_be_killed_and_done_again(
    environment: dict[str, str], ledger: story.Ledger, database: str, free_port: Callable[[], int], tmp_path: Path
) -> None:
    port, path = free_port(), f"/v1/orgs/{ledger.org}"
    given = environment | {"KEYLEDGER_STATE_DIR": str(tmp_path / "rebuild")}
    command = [sys.executable, "-m", "services.projector", "rebuild"]
    begun = "SELECT to_regclass('read_new.checkpoints') IS NOT NULL AS begun"
    with _running(environment, port, tmp_path) as process:
        _wait_ready(port)
        before = story.everything(database)
        with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as killed:
            eventually(lambda: story.rows(database, begun)[0]["begun"], 30, "the rebuild has begun")
            killed.kill()
        assert story.everything(database) == before
        done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (
            0,
            "switched to the rebuilt tables; 0 rows were not the same before",
        )
        assert story.everything(database) == before
        assert story.rows(database, begun) == [{"begun": False}]
        ledger.write(events.OrgKeysEnabled())
        assert _answer(port, f"{path}?min_revision=3")[1]["keys_enabled"] is True
        with story.open_session(database) as session:
            session.execute("UPDATE orgs SET name = 'planted' WHERE org_id = %s", [ledger.org])
        refused = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 1
        assert "--accept-differences" in refused.stderr.splitlines()[-1]
        assert process.poll() is None
    given["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    away = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)
    assert (away.returncode, away.stderr.splitlines()[-1][:12]) == (2, "Not rebuilt,")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL"),
        ({"KEYLEDGER_PARTITIONS": "0-12"}, "KEYLEDGER_PARTITIONS"),
        ({"KEYLEDGER_ADDRESS_DAYS": "0"}, "KEYLEDGER_ADDRESS_DAYS"),
        ({"KEYLEDGER_LEDGER_KEYS": os.devnull}, "ledger-keys"),
    ],
)
def test_a_bad_configuration_is_one_sentence_and_an_exit_code(
    changed: dict[str, str], why: str, tmp_path: Path
) -> None:
    given = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "CHECKER_URL": "http://127.0.0.1:1",
        "KEYLEDGER_LEDGER_KEYS": str(tmp_path / "ledger-keys"),
        "KEYLEDGER_STATE_DIR": str(tmp_path),
        **changed,
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.projector"], env=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert why in json.loads(line)["why"]
