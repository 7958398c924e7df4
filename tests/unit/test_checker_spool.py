"""The spool numbers densely whoever writes, keeps all through every kill, and its publisher sends in order."""

import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
from structlog.testing import capture_logs

from schemas import decoder, events
from schemas.topics import PARTITIONS, USAGE
from schemas.validation import Code
from services.auth_checker.publisher import Publisher
from services.auth_checker.spool import LIMIT_BYTES, Spool
from services.auth_checker.uses import EVERY_S, PACES, Uses
from services.auth_checker.windows import Width, Window
from services.ledger.log import Message, OutcomeUnknown
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from tests.unit.checker_story import NOW_MS, key_id
from tests.unit.test_checker_uses import used
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
SPAWN = multiprocessing.get_context("spawn")


def windows(*numbers: int) -> list[Window]:
    return [Window(key_id(number), "org", "ann", "VALID", None, None, 1, NOW_MS, NOW_MS) for number in numbers]


def waiting(spool: Spool) -> list[Message]:
    return [message for chunk in spool.oldest(10**6) for message in chunk.messages]


def numbers_of(values: list[tuple[int, bytes]]) -> dict[tuple[str, int], list[int | None]]:
    """The sequences of each source and partition, in the order given."""
    found: dict[tuple[str, int], list[int | None]] = {}
    for partition, value in values:
        envelope = decoder.decode_usage(value)
        found.setdefault((envelope.source, partition), []).append(envelope.sequence)
    return found


def are_dense(values: list[tuple[int, bytes]]) -> bool:
    """Whether there is one source, and each partition is numbered from 1 without a gap, in order."""
    numbers = numbers_of(values)
    assert len({source for source, _ in numbers}) == 1
    return all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def logged(log: MemoryLog) -> list[tuple[int, bytes]]:
    log.away = False
    records = log.reader({TopicPartition(USAGE, number): 0 for number in range(PARTITIONS)}).poll(0)
    return [(record.partition, record.value or b"") for record in records]


def used_keys(log: MemoryLog) -> list[events.KeyUsed]:
    return [decoder.decode_usage(value).event for _, value in logged(log)]


@pytest.fixture
def open_spool(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    """Opens the spool of this test, after closing the one that was open."""
    opened: list[Spool] = []

    def open_spool(limit_bytes: int = LIMIT_BYTES) -> Spool:
        while opened:
            opened.pop().close()
        opened.append(Spool(tmp_path / "spool", limit_bytes))
        return opened[-1]

    yield open_spool
    while opened:
        opened.pop().close()


def _fill(folder: Path, first: int, count: int) -> None:
    spool = Spool(folder)
    for at in range(first, first + count, 10):
        assert spool.put(windows(*range(at, at + 10)))
    spool.close()


def test_several_processes_number_their_windows_as_one(tmp_path, open_spool) -> None:
    writers = [SPAWN.Process(target=_fill, args=(tmp_path / "spool", at, 1000)) for at in (1, 1001, 2001)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    messages = waiting(open_spool())
    assert {message.key.decode() for message in messages} == {key_id(number) for number in range(1, 3001)}
    assert are_dense([(message.partition, message.value) for message in messages])


WRITER = """
import pathlib, sys
from services.auth_checker.spool import LIMIT_BYTES, Spool
from tests.unit.test_checker_spool import windows
spool, number = Spool(pathlib.Path(sys.argv[1])), int(sys.argv[2])
while True:
    spool.put(windows(*range(number, number + 50)))
    print(number, flush=True)
    number += 50
"""


def test_a_writer_killed_at_any_moment_stops_nobody_and_loses_nothing_it_put_in(tmp_path, open_spool) -> None:
    spool = open_spool()
    put: set[str] = set()
    for round_number in range(4):
        first = round_number * 1_000_000
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "spool"), str(first)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(10 + secrets.randbelow(20))]
            writer.kill()
            lines += list(writer.stdout)
        put |= {key_id(int(line) + number) for line in lines if line.endswith("\n") for number in range(50)}
        assert spool.put(windows(first - 1 if first else 999_999_999)), "the lock of the dead is free"
    messages = waiting(spool)
    assert put <= {message.key.decode() for message in messages}
    assert are_dense([(message.partition, message.value) for message in messages])


def test_a_machine_that_went_down_begins_a_new_source_and_an_orderly_start_does_not(tmp_path, open_spool) -> None:
    def source() -> str:
        (message,) = waiting(spool)
        return decoder.decode_usage(message.value).source

    spool = open_spool()
    spool.put(windows(1))
    first = source()
    spool = open_spool()
    assert source() == first
    (tmp_path / "spool" / "voucher").write_text("keyledger store 1, another boot")
    script = "import os, pathlib, sys; from services.auth_checker.spool import Spool; Spool(pathlib.Path(sys.argv[1])); os._exit(0)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "spool")], cwd=ROOT, check=True, timeout=60)
    spool = open_spool()
    assert waiting(spool) == []
    spool.put(windows(1))
    assert source() != first


def test_who_writes_after_another_closed_in_order_is_not_taken_for_closed(tmp_path, open_spool) -> None:
    spool = open_spool()
    voucher = tmp_path / "spool" / "voucher"
    other = SPAWN.Process(target=_fill, args=(tmp_path / "spool", 1, 10))
    other.start()
    other.join(60)
    assert voucher.read_text().endswith("closed in order")
    spool.put(windows(11))
    assert "closed" not in voucher.read_text()


def test_the_figures_tell_what_waits_and_for_how_long(tmp_path) -> None:
    now_ms = [NOW_MS]
    spool = Spool(tmp_path, limit_bytes=10_000, clock=lambda: now_ms[0])
    assert spool.figures() == {"records": 0, "bytes": 0, "room": 10_000, "fill": 0, "age_s": 0, "sent": 0}
    spool.put(windows(1, 2, 3))
    now_ms[0] += 2500
    spool.put(windows(4))
    figures = spool.figures()
    assert (figures["records"], figures["age_s"], figures["sent"]) == (4, 2.5, 0)
    assert figures["fill"] == figures["bytes"] / 10_000 > 0
    spool.remove(spool.oldest(1))
    assert (spool.figures()["records"], spool.figures()["age_s"], spool.figures()["sent"]) == (1, 0, 3)
    spool.remove(spool.oldest(1))
    assert spool.figures() == {"records": 0, "bytes": 0, "room": 10_000, "fill": 0, "age_s": 0, "sent": 4}
    spool.close()


class UnsureLog(MemoryLog):
    """Keeps what is appended, but does not say so the first times; `sent` is what it was given each time."""

    def __init__(self, unsure: int) -> None:
        super().__init__()
        self.unsure, self.sent = unsure, list[list[Message]]()

    def append_all(self, messages, timeout_s):
        self.sent.append(list(messages))
        offsets = super().append_all(messages, timeout_s)
        if len(self.sent) <= self.unsure:
            raise OutcomeUnknown("no answer")
        return offsets


def test_a_batch_without_an_answer_is_sent_again_byte_by_byte(open_spool) -> None:
    log, spool = UnsureLog(unsure=3), open_spool()
    spool.put(windows(*range(1, 40)))
    publisher = Publisher(log, spool)
    publisher.start()
    eventually(lambda: spool.figures()["records"] == 0, 10, "the batch is acknowledged")
    spool.put(windows(1))
    publisher.stop(5)
    assert log.sent[0] == log.sent[1] == log.sent[2] == log.sent[3]
    assert log.sent[4][0].value not in {message.value for message in log.sent[0]}
    assert are_dense(list(dict.fromkeys(logged(log)))), "without the copies"


def test_a_publisher_killed_before_it_forgot_a_batch_sends_the_same_bytes_after_its_restart(open_spool) -> None:
    log, spool = MemoryLog(), open_spool()
    spool.put(windows(*range(1, 40)))
    log.append_all(waiting(spool), 1)  # So far a publisher came, and no further.
    spool = open_spool()
    spool.put(windows(*range(40, 60)))
    publisher = Publisher(log, spool)
    publisher.start()
    publisher.stop(5)
    assert len(logged(log)) == 39 + 59
    assert are_dense(list(dict.fromkeys(logged(log)))), "without the copies"


def test_a_broker_that_is_away_when_all_stops_gets_everything_after_the_next_start(open_spool) -> None:
    log, spool = MemoryLog(), open_spool()
    log.away = True
    publisher, uses = Publisher(log, spool), Uses(spool)
    publisher.start()
    uses.start()
    for number in range(1, 301):
        uses.record(Code.VALID, used(number), None, None, NOW_MS)
    with capture_logs() as logs:
        uses.stop(5)
        publisher.stop(0.3)
    assert {"event": "uses_wait_in_spool", "log_level": "warning", "windows": 300} in logs
    log.away = False
    again = Publisher(log, open_spool())
    again.start()
    again.stop(5)
    assert {use.key_id for use in used_keys(log)} == {key_id(number) for number in range(1, 301)}
    assert are_dense(logged(log))


def test_while_the_broker_is_away_windows_widen_first_and_answers_are_refused_last(open_spool) -> None:
    log, spool = MemoryLog(), open_spool(limit_bytes=300_000)
    log.away = True
    publisher, uses = Publisher(log, spool), Uses(spool, most_windows=50)
    publisher.start()
    uses.start()
    counted, asked, fill_refused = 0, 0, list[float]()

    def refused() -> bool:
        nonlocal counted, asked
        for number in range(1, 80):
            asked += 1
            if uses.record(Code.VALID, used(number), f"192.0.2.{number}", None, NOW_MS + asked):
                counted += 1
            else:
                fill_refused.append(spool.figures()["fill"])
        return bool(fill_refused) and spool.figures()["fill"] > 0.75

    eventually(refused, 30, "spool and memory are full")
    assert uses._pace.width is not Width.SECOND
    assert spool.figures()["fill"] <= 1
    log.away = False
    eventually(lambda: uses.record(Code.VALID, used(1000), None, None, NOW_MS), 10, "answers are given again")
    uses.stop(10)
    publisher.stop(10)
    assert sum(use.count for use in used_keys(log)) == counted + 1
    assert are_dense(logged(log))


class SlowLog(MemoryLog):
    """Takes 200 records a second."""

    def append_all(self, messages, timeout_s):
        Event().wait(len(messages) / 200)
        return super().append_all(messages, timeout_s)


def test_uses_that_come_faster_than_they_can_be_sent_get_longer_windows_and_no_refusal(open_spool) -> None:
    log, spool = SlowLog(), open_spool(limit_bytes=200_000)
    publisher, uses = Publisher(log, spool), Uses(spool)
    publisher.start()
    uses.start()
    counted, fills = 0, list[float]()

    def sent() -> float:
        nonlocal counted
        for number in range(1, 101):  # 400 windows a second, where each lasts as long as it should.
            assert uses.record(Code.VALID, used(number), None, None, NOW_MS)
            counted += 1
        fills.append(spool.figures()["fill"])
        return spool.figures()["sent"]

    eventually(lambda: sent() > 1500, 30, "many times what is waiting was sent")
    assert uses._pace.hold_s > EVERY_S or min(fills[len(fills) // 2 :]) < PACES[0].below
    assert PACES[0].below < max(fills) < PACES[2].below
    uses.stop(5)
    publisher.stop(5)
    assert sum(use.count for use in used_keys(log)) == counted
    assert are_dense(logged(log))


def _count_and_die(folder: Path, count: int) -> None:
    spool = Spool(folder)
    uses = Uses(spool)
    uses.start()
    for number in range(count):
        uses.record(Code.VALID, used(number), None, None, NOW_MS)
    eventually(lambda: spool.figures()["records"] == count, 10, "all is in the spool")
    uses.record(Code.VALID, used(count), None, None, NOW_MS)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_loses_only_what_it_counted_since_the_last_move(tmp_path, open_spool) -> None:
    worker = SPAWN.Process(target=_count_and_die, args=(tmp_path / "spool", 700))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    keys = {message.key.decode() for message in waiting(open_spool())}
    assert {key_id(number) for number in range(700)} <= keys
