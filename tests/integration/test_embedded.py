"""Kafka, PostgreSQL and the launcher of `make run`, as real processes on this machine."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient

from services.embedded.kafka import Broker
from services.embedded.ports import free_ports, is_taken
from services.embedded.postgres import Server
from services.embedded.progress import CannotStart
from tests.waiting import eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "postgres", free_ports()[0])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path / "kafka", _free_block())
    broker.start()
    yield broker
    broker.stop()


def test_postgres_keeps_its_data_its_port_and_its_password_through_a_crash(server: Server) -> None:
    url, first_pid = server.url, server.pid
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    server.kill()
    server.start()
    assert (server.url, server.pid == first_pid) == (url, False)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]


def test_postgres_lets_nobody_in_without_the_password(server: Server) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres:wrong@127.0.0.1:{server.port}/postgres")
    assert (server.folder / "password").stat().st_mode & 0o777 == 0o600


def test_kafka_keeps_its_records_and_its_port_through_a_crash(broker: Broker) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.create_topics({"kept": {"num_partitions": 1, "replication_factor": 1}})
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=False, acks="all")
    producer.send("kept", b"before the crash").get(10)
    for client in (producer, admin):
        client.close()
    broker.kill()
    broker.start()
    consumer = KafkaConsumer(
        "kept", bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    assert next(consumer).value == b"before the crash"
    consumer.close()


def test_a_port_in_use_is_refused_with_who_has_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for make in (Server, Broker):
            with pytest.raises(CannotStart, match=rf"port {port} is in use by pid {os.getpid()} "):
                make(tmp_path / "x", port).start()


Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts the launcher with stand-in services; Kafka and PostgreSQL count as given unless told otherwise."""
    started: list[subprocess.Popen[str]] = []

    def start(**more: str) -> "subprocess.Popen[str]":
        environment = {name: text for name, text in os.environ.items() if name not in ("CHECKERS", "COMMAND_APIS")}
        environment |= {"KEYLEDGER_VAR": str(tmp_path / "var"), "KEYLEDGER_BASE_PORT": str(_free_block())}
        environment |= {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "DATABASE_URL": "postgresql://given/x", **more}
        with (tmp_path / "out").open("w") as out:
            command = [sys.executable, "-m", "tests.integration.launch_stand_ins"]
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait(60)


def test_everything_starts_says_how_to_go_on_and_stops_in_order(launch: Launch, tmp_path: Path) -> None:
    base = _free_block()
    process = launch(KAFKA_BOOTSTRAP_SERVERS="", DATABASE_URL="", KEYLEDGER_BASE_PORT=str(base), CHECKERS="2")
    out = tmp_path / "out"
    eventually(lambda: "Ctrl-C stops everything" in out.read_text(), 90, "the launcher says that all is up")
    text = out.read_text()
    assert "All services are ready, " in text
    assert f"curl -s http://127.0.0.1:{base}/v1/sessions" in text
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    ends = [out.read_text().rfind(word) for word in ("stopped in order", "Kafka: stopping", "PostgreSQL: stopping")]
    assert -1 < ends[0] < ends[1] < ends[2]
    assert not any(is_taken(base + offset) for offset in (0, 1, 2, 3, 103, 32, 92, 93))
    for name in ("console", "command_api", "projector", "auth_checker", "auth_checker_2"):
        assert "stopped in order" in (tmp_path / "var" / "log" / f"{name}.log").read_text()


def test_a_service_that_ends_stops_everything_and_is_named_with_its_last_words(launch: Launch, tmp_path: Path) -> None:
    process = launch(STAND_IN_FAILS="projector")
    assert process.wait(60) == 1
    last = (tmp_path / "out").read_text().split("keyledger: ")[-1]
    assert "projector ended with exit code 1" in last
    assert "the stand-in was told to fail" in last


def test_a_killed_service_stops_everything(launch: Launch, tmp_path: Path) -> None:
    process = launch()
    out = tmp_path / "out"
    eventually(lambda: "Ctrl-C stops everything" in out.read_text(), 60, "the launcher says that all is up")
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    assert process.wait(60) == 1
    assert "ended with exit code -9" in out.read_text()


def test_a_launcher_that_was_killed_leaves_nobody_on_its_ports(launch: Launch, tmp_path: Path) -> None:
    base = _free_block()
    process = launch(DATABASE_URL="", KEYLEDGER_BASE_PORT=str(base))
    out = tmp_path / "out"
    eventually(lambda: "Ctrl-C stops everything" in out.read_text(), 60, "the launcher says that all is up")
    process.kill()
    ports = [base + offset for offset in (0, 1, 2, 3, 32)]
    assert eventually(lambda: not any(map(is_taken, ports)), 20, "the services and PostgreSQL are gone")


def test_a_port_in_use_is_named_before_anything_starts(launch: Launch, tmp_path: Path) -> None:
    base = _free_block()
    with socket.create_server(("127.0.0.1", base + 2)):
        process = launch(KEYLEDGER_BASE_PORT=str(base))
        assert process.wait(30) == 1
    text = (tmp_path / "out").read_text()
    assert f"port {base + 2} (projector) is in use by pid {os.getpid()} " in text
    assert "KEYLEDGER_BASE_PORT" in text


def _free_block() -> int:
    """A port from which the launcher's offsets are free too."""
    while True:
        base = free_ports()[0]
        if base < 60_000 and not any(is_taken(base + offset) for offset in (1, 2, 3, 32, 92, 93, 103)):
            return base
