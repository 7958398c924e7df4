"""Uses are counted in windows, and every window becomes one record that is sent until it is acknowledged."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas import codec, decoder
from schemas.times import to_ms
from schemas.topics import PARTITIONS, USAGE, partition_of
from schemas.validation import Code
from services.auth_checker.check import Facts
from services.auth_checker.key_index import Key, Org, User
from services.auth_checker.uses import Numbering, Uses
from services.auth_checker.windows import MOST_ADDRESSES, OTHER, Window, Windows
from services.ledger.chain import Head
from services.ledger.log import Message, OutcomeUnknown
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from tests.unit.checker_story import NOW_MS, key_id
from tests.waiting import eventually

HOUR_MS = 3_600_000


def facts(number: int = 1) -> Facts:
    key = Key(bytes(32), "ann", "name", None, None, None)
    return Facts(key_id(number), "org", key, User("person", "admin"), Org(keys_enabled=True), Head())


USE = st.tuples(
    st.integers(1, 3),
    st.sampled_from([Code.VALID, Code.REVOKED, Code.STALE]),
    st.none() | st.integers(0, 40).map(lambda n: f"192.0.2.{n}") | st.sampled_from(["nonsense", "2001:db8::1", ""]),
    st.none() | st.text(max_size=250),
    st.integers(NOW_MS - 2 * HOUR_MS, NOW_MS + 2 * HOUR_MS) | st.integers(NOW_MS, NOW_MS + 3000),
)


def folded(uses: list, most: int) -> list[Window]:
    windows = Windows(most)
    taken: list[Window] = []
    for number, code, ip, user_agent, now_ms in uses:
        if windows.is_full():
            taken += windows.take()
        windows.add(facts(number), code, ip, user_agent, now_ms)
    return taken + windows.take()


@given(st.lists(USE, max_size=200), st.integers(1, 40))
def test_windows_conserve_counts_and_never_cross_a_full_hour(uses: list, most: int) -> None:
    windows = folded(uses, most)
    added: Counter = Counter()
    for window in windows:
        assert window.first_ms // HOUR_MS == window.last_ms // HOUR_MS
        added[window.key_id, window.outcome, window.first_ms // HOUR_MS] += window.count
    asked = Counter((key_id(number), code.value, now_ms // HOUR_MS) for number, code, _, _, now_ms in uses)
    assert added == asked


@given(st.lists(USE, max_size=200))
def test_windows_that_need_not_be_merged_are_a_second_long_with_few_addresses(uses: list) -> None:
    addresses: dict = {}
    for window in folded(uses, 10_000):
        assert window.last_ms - window.first_ms < 1000
        if window.ip not in {None, OTHER}:
            addresses.setdefault((window.key_id, window.first_ms // 1000), set()).add(window.ip)
    assert all(len(found) <= MOST_ADDRESSES for found in addresses.values())


@given(st.lists(USE, min_size=1, max_size=30))
def test_every_window_is_encoded_as_the_contract_encodes_it(uses: list) -> None:
    numbering = Numbering("7c9e6679", lambda: NOW_MS, lambda bits: (1 << bits) - 1)
    for window in folded(uses, 10_000):
        message = numbering.message(window)
        envelope = decoder.decode_usage(message.value)
        assert codec.encode_usage(envelope) == message.value
        assert (envelope.event.count, to_ms(envelope.event.first_at)) == (window.count, window.first_ms)
        assert (message.topic, message.partition) == (USAGE, partition_of(window.key_id))
        assert message.key == window.key_id.encode()


def test_the_seventeenth_address_of_a_second_is_other() -> None:
    windows = Windows(1000)
    for number in range(20):
        windows.add(facts(), Code.VALID, f"192.0.2.{number}", None, NOW_MS)
        windows.add(facts(), Code.VALID, f"192.0.2.{number}", None, NOW_MS)
    taken = {window.ip: window.count for window in windows.take()}
    assert len(taken) == MOST_ADDRESSES + 1
    assert taken[OTHER] == 8


def test_a_crowd_of_windows_is_merged_before_any_is_refused() -> None:
    windows = Windows(10)
    for second in range(8):
        for number in range(4):
            windows.add(facts(), Code.VALID, f"192.0.2.{number}", None, NOW_MS + second * 1000)
    assert not windows.is_full()
    assert len(windows) <= 10
    for number in range(2, 11):
        windows.add(facts(number), Code.VALID, "192.0.2.1", None, NOW_MS)
    assert windows.is_full()
    assert sum(window.count for window in windows.take()) == 8 * 4 + 9
    assert not windows.is_full()


class UnsureLog(MemoryLog):
    """Keeps what is appended, but does not always say so; `sent` is what it was given each time."""

    def __init__(self, unsure: int) -> None:
        super().__init__()
        self.unsure, self.sent = unsure, list[list[Message]]()

    def append_all(self, messages, timeout_s):
        self.sent.append(list(messages))
        offsets = super().append_all(messages, timeout_s)
        if len(self.sent) <= self.unsure:
            raise OutcomeUnknown("no answer")
        return offsets


def uses_on(log: MemoryLog, most_windows: int = 1000) -> Uses:
    numbers = itertools.count(1)
    return Uses(log, Numbering("source", lambda: NOW_MS, lambda bits: next(numbers) % (1 << bits)), most_windows)


def read(log: MemoryLog) -> list:
    records = log.reader({TopicPartition(USAGE, number): 0 for number in range(PARTITIONS)}).poll(0)
    return [(record.partition, decoder.decode_usage(record.value or b"")) for record in records]


def test_a_batch_without_an_answer_is_sent_again_byte_by_byte_and_counted_once() -> None:
    log = UnsureLog(unsure=3)
    uses = uses_on(log)
    for number in range(1, 40):
        uses.record(Code.VALID, facts(number), None, None, NOW_MS)
    uses.start()
    eventually(lambda: len(log.sent) == 4, 10, "the batch is acknowledged")
    uses.record(Code.VALID, facts(1), None, None, NOW_MS)
    uses.stop(5)
    assert log.sent[0] == log.sent[1] == log.sent[2] == log.sent[3]
    numbers: dict[int, list[int]] = {}
    for partition, use in read(log):
        assert use.source == "keyledger/auth-checker/source"
        if use.sequence not in numbers.setdefault(partition, []):
            numbers[partition].append(use.sequence)
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
    assert sum(map(len, numbers.values())) == 40
    assert uses.counts()[1] == {"uses": 40, "windows": 40, "resends": 3, "waiting": 0}


def test_an_orderly_stop_while_the_broker_is_away_ends_in_time_and_says_what_is_lost() -> None:
    log = MemoryLog()
    log.away = True
    uses = uses_on(log)
    uses.start()
    uses.record(Code.VALID, facts(), None, None, NOW_MS)
    with capture_logs() as logs:
        uses.stop(0.3)
    assert {"event": "uses_lost", "log_level": "error", "windows": 1} in logs
    assert uses.counts()[1]["waiting"] == 1
    assert read_back(log) == []


def read_back(log: MemoryLog) -> list:
    log.away = False
    return read(log)


def test_an_answer_is_refused_only_when_merging_does_not_help_any_more() -> None:
    uses = uses_on(MemoryLog(), most_windows=3)
    answers = [uses.record(Code.VALID, facts(number), None, None, NOW_MS) for number in range(1, 9)]
    assert answers.count(False) >= 3
    assert uses.record(Code.NOT_FOUND, None, None, None, NOW_MS), "nothing is counted as a use, nothing is refused"
    assert uses.counts()[1]["uses"] == answers.count(True)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("curl/8.5.0", "curl/8.5.0"), ("a\x00b\nc", "abc"), ("\u202e\u2066", None), ("", None), ("x" * 300, "x" * 200)],
)
def test_a_user_agent_is_kept_as_two_hundred_plain_characters(sent: str, kept: str | None) -> None:
    windows = Windows(10)
    windows.add(facts(), Code.VALID, None, sent, NOW_MS)
    assert [window.user_agent for window in windows.take()] == [kept]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", None),
        ("192.0.2.7, 10.0.0.1", None),
        ("1" * 10_000, None),
    ],
)
def test_only_an_address_is_kept_as_an_address(sent: str, kept: str | None) -> None:
    windows = Windows(10)
    windows.add(facts(), Code.VALID, sent, None, NOW_MS)
    assert [window.ip for window in windows.take()] == [kept]
