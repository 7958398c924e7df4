"""A use that another service publishes is in the log, once for each id, whoever sends it twice."""

import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from keyledger import cli
from keyledger.publish import Publisher
from schemas import key_text
from schemas.codec import InvalidEvent
from schemas.topics import TOPICS
from services.ledger.preflight import prepare
from services.ledger.seal import load_or_make
from tests import oracle

AT_MS = 1_795_000_000_123


@pytest.fixture
def use(kafka_bootstrap: str) -> dict:
    """The fields of a use of a key of this test's own."""
    prepare(kafka_bootstrap, TOPICS)
    key_id = key_text.base62(secrets.randbits(120), key_text.ID_LENGTH)
    return {
        "key_id": key_id,
        "org_id": f"org_{secrets.token_hex(6)}",
        "user_id": "u",
        "outcome": "VALID",
        "at_ms": AT_MS,
    }


def counted(bootstrap: str, keys_file: Path, org: str) -> set[tuple]:
    load_or_make(keys_file)
    return {row for row in oracle.expected(bootstrap, keys_file)["key_usage"] if row[0] == org}


def test_a_use_is_counted_once_for_each_id(kafka_bootstrap: str, tmp_path: Path, use: dict) -> None:
    with Publisher(kafka_bootstrap, "test-service") as publisher:
        use_id = publisher.publish(**use, ip="192.0.2.7", count=3)
        publisher.publish(**use, ip="192.0.2.7", count=3, use_id=use_id)
        publisher.publish(**use | {"outcome": "REVOKED"})
    found = counted(kafka_bootstrap, tmp_path / "keys", use["org_id"])
    assert found == {(use["org_id"], use["key_id"], 4, 3, "2026-11-18T11:06:40.123Z", "192.0.2.7")}


def test_nothing_is_sent_of_a_use_that_breaks_a_rule(kafka_bootstrap: str, tmp_path: Path, use: dict) -> None:
    with Publisher(kafka_bootstrap, "test-service") as publisher, pytest.raises(InvalidEvent):
        publisher.publish(**use | {"key_id": "too short"})
    assert counted(kafka_bootstrap, tmp_path / "keys", use["org_id"]) == set()


def test_a_broker_that_is_away_is_said(free_port: Callable[[], int]) -> None:
    # In a process of its own: kafka-python leaves a socket of a failed connection to the garbage collector.
    named = ["--key-id", "0" * 22, "--org-id", "o", "--user-id", "u", "--source", "cron"]
    command = [sys.executable, "-m", "keyledger.cli", "publish", "--bootstrap", f"127.0.0.1:{free_port()}", *named]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == cli.AWAY
    assert "keyledger: " in done.stderr.splitlines()[-1]


def test_the_command_line_publishes_and_prints_the_id(
    kafka_bootstrap: str, tmp_path: Path, use: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--key-id", use["key_id"], "--org-id", use["org_id"], "--user-id", "u", "--at-ms", str(AT_MS)]
    assert cli.main(["publish", "--bootstrap", kafka_bootstrap, "--source", "cron", *named]) == cli.GOOD
    assert UUID(capsys.readouterr().out.strip()).version == 4
    assert {row[2] for row in counted(kafka_bootstrap, tmp_path / "keys", use["org_id"])} == {1}
