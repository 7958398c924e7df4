"""A use that another service publishes is in the log, once for each id, whoever sends it twice."""

import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from keyledger import cli
from keyledger.publish import Publisher
from schemas import key_text
from schemas.decoder import decode_usage
from schemas.events import KeyUsed
from schemas.topics import EXTERNAL_USAGE, TOPICS, partition_of
from services.ledger.kafka_log import KafkaLog
from services.ledger.preflight import prepare
from services.ledger.records import TopicPartition

ROOT = Path(__file__).parents[2]
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


def counted(bootstrap: str, key_id: str) -> Counter:
    """Uses of this key by outcome: each number or id of a source once, as readers count."""
    at, log = TopicPartition(EXTERNAL_USAGE, partition_of(key_id)), KafkaLog(bootstrap, "test-publish")
    uses: dict[tuple, KeyUsed] = {}
    try:
        end, reader = log.end_offsets([at], 10)[at], log.reader({at: 0})
        while reader.positions()[at] < end:
            for record in reader.poll(100):
                found = decode_usage(record.value or b"")
                if found.event.key_id == key_id:
                    uses.setdefault((found.source, found.sequence or found.id), found.event)
        reader.close()
    finally:
        log.close()
    total: Counter = Counter()
    for event in uses.values():
        total[event.outcome] += event.count
    return total


def test_a_use_is_counted_once_for_each_id(kafka_bootstrap: str, use: dict) -> None:
    with Publisher(kafka_bootstrap, "test-service") as publisher:
        use_id = publisher.used(**use, ip="192.0.2.7", count=3)
        publisher.used(**use, ip="192.0.2.7", count=3, use_id=use_id)
        publisher.used(**use | {"outcome": "REVOKED"})
    assert counted(kafka_bootstrap, use["key_id"]) == {"VALID": 3, "REVOKED": 1}


def test_numbered_uses_are_counted_over_restarts(kafka_bootstrap: str, tmp_path: Path, use: dict) -> None:
    for _ in range(3):
        with Publisher(kafka_bootstrap, "test-service", tmp_path / "uses") as publisher:
            for _ in range(1000):
                publisher.used(**use)
            publisher.flush()
            assert publisher.counts() == {"waiting": 0, "sent": 1000, "failures": 0}
    assert counted(kafka_bootstrap, use["key_id"]) == {"VALID": 3000}


KILLED = """
import sys
from pathlib import Path
from keyledger.publish import Publisher
bootstrap, state, key_id, org_id = sys.argv[1:]
publisher = Publisher(bootstrap, "killed", Path(state), max_waiting=500)
while True:
    publisher.used(key_id, org_id=org_id, user_id="u")
    print(publisher.counts()["sent"], flush=True)
"""


def test_after_a_kill_nothing_is_counted_twice_and_what_was_sent_is_there(
    kafka_bootstrap: str, tmp_path: Path, use: dict
) -> None:
    sent = taken = 0
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, kafka_bootstrap, str(tmp_path / "uses"), use["key_id"], use["org_id"]]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = [0]
            while said[-1] < 1000:
                said.append(int(process.stdout.readline()))
            process.kill()
            said += [int(line) for line in process.stdout if line.endswith("\n")]
        sent, taken = sent + said[-1], taken + len(said)
    with Publisher(kafka_bootstrap, "killed", tmp_path / "uses") as publisher:
        publisher.used(**use)
    assert sent < counted(kafka_bootstrap, use["key_id"])["VALID"] <= taken + 1


def test_a_broker_that_is_away_is_said(free_port: Callable[[], int]) -> None:
    # In a process of its own: kafka-python leaves a socket of a failed connection to the garbage collector.
    named = ["--key-id", "0" * 22, "--org-id", "o", "--user-id", "u", "--source", "cron"]
    command = [sys.executable, "-m", "keyledger.cli", "publish", "--bootstrap", f"127.0.0.1:{free_port()}", *named]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == cli.AWAY
    assert "keyledger: " in done.stderr.splitlines()[-1]


def test_the_command_line_publishes_and_prints_the_id(
    kafka_bootstrap: str, use: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--key-id", use["key_id"], "--org-id", use["org_id"], "--user-id", "u", "--at-ms", str(AT_MS)]
    assert cli.main(["publish", "--bootstrap", kafka_bootstrap, "--source", "cron", *named]) == cli.GOOD
    assert UUID(capsys.readouterr().out.strip()).version == 4
    assert counted(kafka_bootstrap, use["key_id"]) == {"VALID": 1}
