"""`keyledger audit history, as-of, blast-radius, replay`: what they print, and their exit codes, from a real PostgreSQL."""

import csv
import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
import structlog
from kafka.admin import KafkaAdminClient, NewTopic

from keyledger import cli
from schemas import events
from services.auditor.sorting import records_of
from services.ledger.kafka_log import KafkaLog
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from tests.integration import projector_story as story
from tests.integration.projector_story import DAY, MEMBER, ORG, Ledger, created, key_id


@dataclass
class Desk:
    """An auditor's terminal beside the story."""

    log: MemoryLog
    ledger: Ledger
    database: str
    out: Callable[[], tuple[str, str]]

    def run(self, *typed: str) -> tuple[int, list[str]]:
        """The exit code and the lines of standard output of `keyledger audit`."""
        code = cli.main(["audit", *typed])
        return code, self.out()[0].splitlines()

    def complaint(self, *typed: str) -> tuple[int, str]:
        """The exit code and what stands on standard error."""
        code = cli.main(["audit", *typed])
        return code, self.out()[1]


@pytest.fixture
def desk(database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    log = MemoryLog()
    ledger, _ = story.tell_story(log)
    ledger.write(created(5, name="=cmd()"), events.KeyRenamed(key_id(5), "=other()"))
    story.projected(database, log).close()
    monkeypatch.setenv("DATABASE_URL", database)
    yield Desk(log, ledger, database, lambda: tuple(capsys.readouterr()))  # type: ignore[arg-type,return-value]
    structlog.reset_defaults()  # The command line sends log lines elsewhere, for good.


def test_a_history_in_each_format_has_every_event(desk: Desk) -> None:
    code, table = desk.run("history", ORG)
    assert (code, len(table)) == (0, 14)
    assert "KeyRevoked" in table[11]
    entries = [json.loads(line) for line in desk.run("history", ORG, "--format", "jsonl")[1]]
    assert [entry["revision"] for entry in entries] == list(range(1, 15))
    assert not [entry for entry in entries if "digest" in entry["data"]]
    stored = desk.run("history", ORG, "--format", "cloudevents")[1]
    assert [line.encode() for line in stored] == desk.ledger.values


def test_a_csv_has_a_heading_and_no_formula(desk: Desk) -> None:
    rows = list(csv.DictReader(desk.run("history", ORG, "--format", "csv")[1]))
    assert [int(row["revision"]) for row in rows] == list(range(1, 15))
    assert [row["type"] for row in rows][:2] == ["OrgRegistered", "UserAdded"]
    assert not [cell for row in rows for cell in row.values() if cell.startswith(tuple("=+-@"))]


def test_filters_and_uses(desk: Desk) -> None:
    code, lines = desk.run("history", ORG, "--key", key_id(1), "--format", "jsonl", "--uses")
    kinds = [json.loads(line)["type"] for line in lines]
    assert (code, kinds[:2], set(kinds[2:])) == (0, ["KeyCreated", "KeyRenamed"], {"KeyUsed"})
    _, lines = desk.run("history", ORG, "--user", MEMBER, "--type", "KeyRevoked", "--format", "jsonl")
    assert [json.loads(line)["data"]["key_id"] for line in lines] == [key_id(3)]


def test_the_keys_as_of_a_moment(desk: Desk) -> None:
    code, lines = desk.run("as-of", ORG, f"{DAY}10:09:00Z")
    assert (code, lines[-1]) == (0, f"3 keys at {DAY}10:09:00.000Z, 3 of them good")
    found = json.loads(desk.run("as-of", ORG, f"{DAY}10:12:00Z", "--json")[1][0])
    assert {key["key_id"]: key["code"] for key in found["items"]}[key_id(3)] == "REVOKED"


def test_the_blast_radius_is_one_document(desk: Desk) -> None:
    code, lines = desk.run("blast-radius", ORG, key_id(1))
    found = json.loads("\n".join(lines))
    assert (code, found["key"]["name"], len(found["siblings"])) == (0, "renamed", 3)


def test_a_replay_goes_on_where_it_is_told_to(desk: Desk) -> None:
    assert [line.encode() for line in desk.run("replay", ORG)[1]] == desk.ledger.values
    assert [line.encode() for line in desk.run("replay", ORG, "--after-revision", "12")[1]] == desk.ledger.values[12:]
    assert desk.run("replay", ORG, "--since", f"{DAY}23:59:00Z") == (0, [])


def test_a_replay_into_a_topic_of_the_auditors_is_byte_for_byte(desk: Desk, kafka_bootstrap: str) -> None:
    topic = f"auditors-{secrets.token_hex(4)}"
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    admin.create_topics([NewTopic(topic, 1, 1)])
    admin.close()
    assert desk.run("replay", ORG, "--to-topic", topic, "--bootstrap", kafka_bootstrap) == (0, [])
    with closing(KafkaLog(kafka_bootstrap, "test")) as log:
        end = log.end_offsets([TopicPartition(topic, 0)], 10)[TopicPartition(topic, 0)]
        found = list(records_of(log, TopicPartition(topic, 0), end))
    assert [record.value for record in found] == desk.ledger.values
    assert {record.key for record in found} == {ORG.encode()}


def test_a_replay_goes_on_with_what_comes(desk: Desk) -> None:
    command = [sys.executable, "-m", "keyledger.cli", "audit", "replay", ORG, "--after-revision", "13", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert following.stdout.readline().rstrip() == desk.ledger.values[13]
        desk.ledger.write(events.OrgKeysDisabled())
        story.projected(desk.database, desk.log).close()
        assert following.stdout.readline().rstrip() == desk.ledger.values[14]
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 0


@pytest.mark.parametrize(
    ("typed", "code", "why"),
    [
        (("history", "org_nowhere"), 1, "org_nowhere"),
        (("blast-radius", ORG, key_id(9)), 1, "nothing at this address"),
        (("history", ORG, "--since", "yesterday"), 2, "since"),
        (("history", ORG, "--format", "cloudevents", "--uses"), 2, "uses"),
        (("as-of", ORG, "noon"), 2, "at "),
        (("replay", ORG, "--to-topic", "key-lifecycle"), 2, "of Keyledger's own"),
    ],
)
def test_a_bad_question_is_told_in_one_line(desk: Desk, typed: tuple[str, ...], code: int, why: str) -> None:
    found, told = desk.complaint(*typed)
    assert (found, told.count("\n")) == (code, 1)
    assert why in told


def test_an_edited_archive_ends_every_reading(desk: Desk) -> None:
    with story.open_session(desk.database) as session:
        session.execute(
            "UPDATE ledger_records SET value = replace(convert_from(value, 'UTF8'), 'Example', 'Exbmple')::bytea"
            " WHERE revision = 1 AND org_id = %s",
            [ORG],
        )
    for typed in (("history", ORG), ("as-of", ORG, f"{DAY}10:09:00Z"), ("blast-radius", ORG, key_id(1))):
        code, told = desk.complaint(*typed)
        assert (code, "edited" in told) == (1, True), typed


def test_no_database_is_another_exit_code(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nothing")
    code, told = desk.complaint("history", ORG)
    assert (code, "PostgreSQL" in told) == (3, True)
