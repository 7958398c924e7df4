"""The checker as it is run: a process with its workers, a real Kafka, and whoever asks it over HTTP."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3

from schemas import decoder, events
from schemas.times import wall_clock_ms
from schemas.topics import PARTITIONS, USAGE
from services.embedded.ports import is_taken
from services.ledger.kafka_log import KafkaLog
from services.ledger.preflight import prepare
from services.ledger.records import TopicPartition
from services.ledger.seal import load_or_make
from tests.unit.checker_story import BEGINNING, Teller, created, key_id, key_of
from tests.waiting import eventually

HTTP = urllib3.PoolManager(retries=False, timeout=5)
USAGE_PARTITIONS = [TopicPartition(USAGE, number) for number in range(PARTITIONS)]


class Process:
    """A checker with a folder and a port of its own."""

    def __init__(self, folder: Path, port: int, kafka: str, **more: str) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self.stderr = folder / "stderr"
        self.environment = {
            **os.environ,
            "KEYLEDGER_PORT": str(port),
            "KEYLEDGER_STATE_DIR": str(folder / "state"),
            "KEYLEDGER_LEDGER_KEYS": str(folder / "ledger-keys"),
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "CONSOLE_URL": "http://127.0.0.1:9",
            **more,
        }
        self.start()

    def start(self) -> None:
        with self.stderr.open("ab") as stderr:
            command = [sys.executable, "-m", "services.auth_checker"]
            self.popen = subprocess.Popen(command, env=self.environment, stderr=stderr, start_new_session=True)

    def is_ready(self) -> bool:
        if self.popen.poll() is not None:
            raise RuntimeError(self.stderr.read_text())
        try:
            return HTTP.request("GET", f"{self.url}/readyz").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def pids(self, event: str) -> list[int]:
        """The processes that logged this, `following` or `worker_serves`, the newest last."""
        lines = [json.loads(line) for line in self.stderr.read_text().splitlines() if line.startswith("{")]
        return [line["pid"] for line in lines if line["event"] == event]

    def stop(self, number: int = signal.SIGTERM, *, whole_group: bool = False) -> int:
        if whole_group:
            os.killpg(self.popen.pid, number)
        else:
            self.popen.send_signal(number)
        return self.popen.wait(20)

    def ask(self, **asked: Any) -> dict[str, Any]:
        answer = HTTP.request("POST", f"{self.url}/v1/validations", json=asked)
        assert answer.status == 200, answer.data
        return answer.json()


@pytest.fixture
def checker(tmp_path: Path, kafka_bootstrap: str, free_port: Callable[[], int]) -> Iterator[Process]:
    process = Process(tmp_path, free_port(), kafka_bootstrap, KEYLEDGER_WORKERS="2")
    eventually(process.is_ready, 30, "the checker is ready")
    yield process
    if process.popen.poll() is None:
        process.stop(signal.SIGKILL)


@pytest.fixture
def teller(tmp_path: Path, kafka_bootstrap: str) -> Iterator[Teller]:
    prepare(kafka_bootstrap)
    log = KafkaLog(kafka_bootstrap, "test")
    yield Teller(log, load_or_make(tmp_path / "ledger-keys"))
    log.close()


@pytest.fixture
def used(teller: Teller) -> Callable[[], list[events.UsageEnvelope]]:
    """Reads what was added to `key-usage` since the test began."""
    reader = teller.log.reader(teller.log.end_offsets(USAGE_PARTITIONS, 10))
    seen: list[events.UsageEnvelope] = []

    def read() -> list[events.UsageEnvelope]:
        seen.extend(decoder.decode_usage(record.value or b"") for record in reader.poll(200))
        return seen

    return read


def counts(found: list[events.UsageEnvelope], org: str) -> dict[str, int]:
    added: dict[str, int] = {}
    for envelope in found:
        if envelope.event.org_id == org:
            added[envelope.event.outcome] = added.get(envelope.event.outcome, 0) + envelope.event.count
    return added


def test_a_key_is_valid_until_it_is_revoked_and_each_use_is_on_the_topic(checker, teller, used) -> None:
    org, now_ms = f"org_{secrets.token_hex(4)}", wall_clock_ms()
    teller.tell(org, *BEGINNING, created(), time_ms=now_ms)
    eventually(lambda: checker.ask(key=key_of())["code"] == "VALID", 10, "the key is known")
    answer = checker.ask(key=key_of(), ip="192.0.2.7", user_agent="curl/8", min_revision=f"{org}:4")
    assert (answer["valid"], answer["org_id"], answer["revision"]) == (True, org, 4)
    teller.tell(org, events.KeyRevoked(key_id=key_id(), reason="user_request"), time_ms=now_ms)
    assert checker.ask(key=key_of(), min_revision=f"{org}:5")["code"] == "REVOKED"
    assert checker.ask(key=key_of(2))["code"] == "NOT_FOUND"
    eventually(lambda: counts(used(), org).get("REVOKED") == 1, 10, "the refused use is on the topic")
    found = [envelope for envelope in used() if envelope.event.org_id == org]
    assert counts(found, org)["VALID"] >= 2
    assert any((use.event.ip, use.event.user_agent) == ("192.0.2.7", "curl/8") for use in found)
    assert {use.event.key_id for use in found} == {key_id()}
    by_source: dict[str, list[int | None]] = {}
    for use in found:
        by_source.setdefault(use.source, []).append(use.sequence)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_source.values())


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_an_orderly_stop_sends_what_waits_and_ends_with_0(checker, teller, used, number, whole_group) -> None:
    org = f"org_{secrets.token_hex(4)}"
    teller.tell(org, *BEGINNING, created(), time_ms=wall_clock_ms())
    eventually(lambda: checker.ask(key=key_of())["code"] == "VALID", 10, "the key is known")
    before = sum(counts(used(), org).values())
    for _ in range(50):
        checker.ask(key=key_of())
    assert checker.stop(number, whole_group=whole_group) == 0, checker.stderr.read_text()
    eventually(lambda: counts(used(), org).get("VALID", 0) >= before + 50, 10, "all uses are on the topic")
    assert not is_taken(checker.port)
    assert "uses_lost" not in checker.stderr.read_text()
    assert "Traceback" not in checker.stderr.read_text()


def test_a_killed_main_process_leaves_no_worker_and_a_restart_goes_on_from_its_store(checker, teller) -> None:
    org = f"org_{secrets.token_hex(4)}"
    teller.tell(org, *BEGINNING, created(), time_ms=wall_clock_ms())
    eventually(lambda: checker.ask(key=key_of())["code"] == "VALID", 10, "the key is known")
    checker.stop(signal.SIGKILL)
    eventually(lambda: not is_taken(checker.port), 5, "no orphan listens on the port")
    teller.tell(org, events.KeyRevoked(key_id=key_id(), reason="unused"), time_ms=wall_clock_ms())
    checker.start()
    eventually(checker.is_ready, 30, "the checker is ready again")
    assert checker.ask(key=key_of())["code"] == "REVOKED"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def known(checker: Process, teller: Teller) -> str:
    """An organisation whose key the checker knows."""
    org = f"org_{secrets.token_hex(4)}"
    teller.tell(org, *BEGINNING, created(), time_ms=wall_clock_ms())
    eventually(lambda: checker.ask(key=key_of())["code"] == "VALID", 10, "the key is known")
    return org


def test_a_killed_follower_is_started_again_and_knows_what_happened_meanwhile(checker, teller, known) -> None:
    (before,) = checker.pids("following")
    os.kill(before, signal.SIGKILL)
    teller.tell(known, events.KeyRevoked(key_id=key_id(), reason="unused"), time_ms=wall_clock_ms())
    eventually(lambda: checker.ask(key=key_of())["code"] == "REVOKED", 15, "a new follower folded the revocation")
    eventually(checker.is_ready, 15, "the checker is ready again")
    assert len(checker.pids("following")) == 2
    assert "follower_ended" in checker.stderr.read_text()


def test_a_stopped_follower_makes_everything_stale_within_m_and_valid_when_it_goes_on(checker, known) -> None:
    (follower,) = checker.pids("following")
    os.kill(follower, signal.SIGSTOP)
    stopped_at = time.monotonic()
    try:
        eventually(lambda: checker.ask(key=key_of())["code"] == "STALE", 5, "the lease ran out")
        assert time.monotonic() - stopped_at < 2.5
        answer = HTTP.request("GET", f"{checker.url}/readyz")
        assert (answer.status, "the lease ran out" in answer.json()["detail"]) == (503, True)
    finally:
        os.kill(follower, signal.SIGCONT)
    eventually(lambda: checker.ask(key=key_of())["code"] == "VALID", 10, "the lease is there again")
    assert checker.pids("following") == [follower]


def test_a_killed_worker_is_started_again_each_time(checker, known) -> None:
    for number in (3, 4, 5):
        os.kill(checker.pids("worker_serves")[-1], signal.SIGKILL)
        eventually(partial(_has_workers, checker, number), 20, "a further worker serves")
    eventually(checker.is_ready, 10, "the checker is ready")
    assert checker.popen.poll() is None


def _has_workers(checker: Process, number: int) -> bool:
    return len(checker.pids("worker_serves")) >= number


def test_nothing_outlives_a_killed_main_process(checker, known) -> None:
    pids = [*checker.pids("following"), *checker.pids("worker_serves")]
    assert len(pids) == 3
    checker.stop(signal.SIGKILL)
    eventually(lambda: not any(is_alive(pid) for pid in pids), 10, "all its processes are gone")


def test_figures_of_all_workers_are_added_up(checker, teller) -> None:
    for _ in range(40):
        checker.ask(key="no key")

    def all_counted() -> bool:
        text = HTTP.request("GET", f"{checker.url}/metrics").data.decode()
        return 'keyledger_validations_total{code="MALFORMED"} 40.0' in text and "keyledger_fresh 1.0" in text

    eventually(all_counted, 5, "forty answers are counted")


def test_wrong_configuration_is_one_sentence_and_exit_code_2(tmp_path, kafka_bootstrap, free_port) -> None:
    process = Process(tmp_path, free_port(), kafka_bootstrap, KEYLEDGER_HOST="0.0.0.0", CHECKER_TOKEN="")
    assert process.popen.wait(20) == 2
    lines = [json.loads(line) for line in process.stderr.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["cannot_start"]
    assert "CHECKER_TOKEN" in lines[0]["why"]


def test_a_port_in_use_is_one_sentence_and_exit_code_2(tmp_path, kafka_bootstrap) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = Process(tmp_path, taken.getsockname()[1], kafka_bootstrap)
        assert process.popen.wait(20) == 2
    last = json.loads(process.stderr.read_text().splitlines()[-1])
    assert f"port {process.port}" in last["why"]
