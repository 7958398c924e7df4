"""Kafka lost the whole of `key-lifecycle`: one command brings it back from PostgreSQL, and everything is as it was."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from kafka.admin import KafkaAdminClient

from schemas.topics import LIFECYCLE, TOPICS
from services.ledger.preflight import prepare
from tests.end_to_end.system import System, running
from tests.fault.forger import VOID, Forger
from tests.fault.organisation import Org
from tests.fault.readers import all_agree, lifecycle_records
from tests.waiting import eventually

READERS = ("command_api", "auth_checker", "projector")
TABLES = ("heads", "ledger_records", "orgs", "users", "keys", "key_usage", "usage_sources", "usage_gaps")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system of this module's own: its log is deleted."""
    with running(tmp_path_factory.mktemp("restore")) as made:
        yield made


def test_a_deleted_topic_is_restored_from_the_archive_and_everything_is_as_it_was(system: System) -> None:
    orgs = [Org(system, f"restored-{number}") for number in range(3)]
    good = [org.create("admin", "good")["key"] for org in orgs]
    revoked = [org.create("admin", "to be revoked") for org in orgs]
    for org, key in zip(orgs, revoked, strict=True):
        org.made("admin", "DELETE", f"{org.path}/keys/{key['key_id']}")
    _all_answer(system, good, revoked)
    forger = Forger(system, random.Random(1))
    for kind in VOID:
        forger.inject(kind, orgs[0].id, revoked[0]["key_id"])
    forger.close()
    before = all_agree(system)
    assert _keyledger(system, "audit", "checkpoint").returncode == 0
    told = _verify(system)
    assert (told.returncode, told.stdout.splitlines()[-1]) == (0, "VERIFIED"), told
    _stop(system)
    tables, records = _tables(system), _log(system)

    _delete_topic(system)
    assert _log(system) == []
    refused = system.spawn("projector")
    assert refused.wait(timeout=60) == 2
    assert "was deleted and made again" in system.log("projector").read_text()
    system.processes.pop("projector")
    told = _verify(system)
    assert (told.returncode, told.stdout.splitlines()[-1]) == (1, "NOT VERIFIED"), told
    assert f"truncated: {orgs[0].id} ends at revision 0" in told.stdout
    assert "gap in the log: key-lifecycle/" in told.stdout
    unsigned = _keyledger(system, "audit", "checkpoint")
    assert (unsigned.returncode, unsigned.stdout[:10]) == (1, "NOT SIGNED"), unsigned
    told = _restore(system)
    assert (told.returncode, told.stderr) == (0, ""), told
    assert f"appended {len(records)} records of {len(before['log'])} organisations from the archive" in told.stdout
    assert "the projector's tables were emptied" in told.stdout
    assert _log(system) == records
    again = _restore(system)
    assert (again.returncode, _log(system)) == (0, records), again
    _forget_as_told(told.stdout)

    for name in READERS:
        system.spawn(name)
    for name in READERS:
        system.wait_ready(name)
    assert all_agree(system) == before
    assert eventually(lambda: _tables(system) == tables, 15, "the tables to be as they were")
    _all_answer(system, good, revoked)
    assert orgs[0].create("admin", "life goes on")["revision"] == before["log"][orgs[0].id][0] + 1


def _verify(system: System) -> "subprocess.CompletedProcess[str]":
    return _keyledger(system, "audit", "verify", "--live", f"--key={system.config.var / 'notary' / 'notary.pub'}")


def _restore(system: System) -> "subprocess.CompletedProcess[str]":
    states = [f"--state={system.config.var / name}" for name in READERS[:2]]
    return _keyledger(system, "ledger", "restore", "--from", "archive", *states)


def _keyledger(system: System, *typed: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "keyledger.cli", *typed],
        env={
            **os.environ,
            "DATABASE_URL": system.database.url,
            "KAFKA_BOOTSTRAP_SERVERS": system.broker.bootstrap,
            "KEYLEDGER_LEDGER_KEYS": str(system.ledger_keys),
            "KEYLEDGER_STATE_DIR": str(system.config.var / "notary"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _forget_as_told(text: str) -> None:
    """Remove what the command names, as an operator would paste it."""
    lines = [line.split() for line in text.splitlines() if line.startswith("  rm -r ")]
    assert len(lines) == 3
    for _, _, path in lines:
        subprocess.run(["rm", "-r", path], check=True)


def _stop(system: System) -> None:
    for name in READERS:
        system.end(name, signal.SIGTERM)


def _delete_topic(system: System) -> None:
    admin = KafkaAdminClient(bootstrap_servers=system.broker.bootstrap)
    try:
        admin.delete_topics([LIFECYCLE])
        eventually(lambda: LIFECYCLE not in admin.list_topics(), 30, "the topic to be gone")
    finally:
        admin.close()
    prepare(system.broker.bootstrap, TOPICS)


def _all_answer(system: System, good: list[str], revoked: list[Any]) -> None:
    for key in good:
        system.validates_as(key, "VALID")
    for made in revoked:
        system.validates_as(made["key"], "REVOKED")


def _log(system: System) -> list[tuple[Any, ...]]:
    """Every record with its place and headers."""
    found = lifecycle_records(system)
    return sorted((one.partition, one.offset, one.key, one.value, tuple(one.headers)) for one in found)


def _tables(system: System) -> dict[str, list[tuple[Any, ...]]]:
    with psycopg.connect(system.database.url, options="-c search_path=read") as connection:
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in TABLES}
