"""Kafka and PostgreSQL for tests: addresses given → those; else a Docker engine with the images; else embedded ones."""

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import psycopg
import pytest
from psycopg import sql

from services.embedded.kafka import answers, running_kafka
from services.embedded.kafka_jars import IMAGE as KAFKA_IMAGE
from services.embedded.kafka_jars import docker_answers
from services.embedded.ports import free_ports, is_taken
from services.embedded.postgres import running_postgres
from tests.waiting import eventually

POSTGRES_IMAGE = "postgres:17"


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives a port of 127.0.0.1 that nobody listens on."""
    return lambda: free_ports()[0]


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Kafka broker, shared by the whole run: name your topics and organisations uniquely."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield given
    elif _engine_has(KAFKA_IMAGE):
        with _kafka_container(free_ports()[0]) as bootstrap:
            yield bootstrap
    else:
        with running_kafka(tmp_path_factory.mktemp("kafka"), _two_free_ports()) as bootstrap:
            yield bootstrap


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL, as a user who may create databases, shared by the whole run."""
    given = os.environ.get("DATABASE_URL")
    if given:
        yield given
    elif _engine_has(POSTGRES_IMAGE):
        with _postgres_container() as url:
            yield url
    else:
        with running_postgres(tmp_path_factory.mktemp("postgres"), free_ports()[0]) as url:
            yield url


@pytest.fixture(scope="session")
def database_template() -> str:
    """The database that `database` copies: an empty one. A folder of tests may override this with one of its own."""
    return "template0"


@pytest.fixture
def database(database_url: str, database_template: str) -> Iterator[str]:
    """The URL of a database of this test's own, copied from the template and dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(copy.format(sql.Identifier(name), sql.Identifier(database_template)))
    yield database_url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skipped test is a failure: what is not run there is run nowhere."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and exitstatus == 0 and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@cache
def _engine_has(image: str) -> bool:
    """Whether a Docker engine answers and has the image, or can pull it."""
    return docker_answers() and any(
        subprocess.run(["docker", *words, image], capture_output=True, check=False, timeout=600).returncode == 0
        for words in (["image", "inspect"], ["pull", "-q"])
    )


def _two_free_ports() -> int:
    """A free port whose next one is free too: the broker's and its controller's."""
    while True:
        port = free_ports()[0]
        if not is_taken(port + 1):
            return port


@contextmanager
def _kafka_container(port: int) -> Iterator[str]:
    # The fixtures end their containers themselves; the reaper would be one more image to pull.
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    from testcontainers.core.container import DockerContainer

    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": "1@127.0.0.1:9093",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://127.0.0.1:9093",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
    }
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    for name, value in settings.items():
        container = container.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)
    with container:
        eventually(lambda: answers(port), 120, f"the broker of {KAFKA_IMAGE} answers")
        yield f"127.0.0.1:{port}"


@contextmanager
def _postgres_container() -> Iterator[str]:
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer(POSTGRES_IMAGE, driver=None) as container:
        yield container.get_connection_url(host="127.0.0.1")
