"""Uses are counted in windows, and windows wait for the spool; only when nothing else helps is an answer refused."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas import codec, decoder
from schemas.times import to_ms
from schemas.topics import partition_of
from schemas.validation import Code
from services.auth_checker import key_used
from services.auth_checker.spool import Spool
from services.auth_checker.uses import PACES, Uses
from services.auth_checker.windows import MOST_ADDRESSES, OTHER, Width, Window, Windows
from services.ledger.fold import StoreFailure
from tests.unit.checker_story import NOW_MS, key_id
from tests.waiting import eventually

HOUR_MS = 3_600_000


class Used(NamedTuple):
    key_id: str
    org_id: str
    user_id: str


def used(number: int = 1) -> Used:
    return Used(key_id(number), "org", "ann")


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
        if not windows.add(used(number), code, ip, user_agent, now_ms):
            taken += windows.take()
            assert windows.add(used(number), code, ip, user_agent, now_ms)
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


@given(st.lists(USE, min_size=1, max_size=30), st.integers(0, 2**128 - 1))
def test_every_window_is_encoded_as_the_contract_encodes_it(uses: list, random: int) -> None:
    for sequence, window in enumerate(folded(uses, 10_000), 1):
        value = key_used.encode(window, "keyledger/auth-checker/7c9e6679", sequence, NOW_MS, random)
        envelope = decoder.decode_usage(value)
        assert codec.encode_usage(envelope) == value
        assert (envelope.event.count, to_ms(envelope.event.first_at)) == (window.count, window.first_ms)
        assert (envelope.sequence, to_ms(envelope.time)) == (sequence, NOW_MS)
        assert key_used.partition(window) == partition_of(window.key_id)


def test_the_seventeenth_address_of_a_second_is_other() -> None:
    windows = Windows(1000)
    for number in range(20):
        windows.add(used(), Code.VALID, f"192.0.2.{number}", None, NOW_MS)
        windows.add(used(), Code.VALID, f"192.0.2.{number}", None, NOW_MS)
    taken = {window.ip: window.count for window in windows.take()}
    assert len(taken) == MOST_ADDRESSES + 1
    assert taken[OTHER] == 8


def test_a_crowd_of_windows_is_merged_before_any_is_refused() -> None:
    windows = Windows(10)
    for second in range(8):
        for number in range(4):
            assert windows.add(used(), Code.VALID, f"192.0.2.{number}", None, NOW_MS + second * 1000)
    assert len(windows) <= 10
    added = [windows.add(used(number), Code.VALID, "192.0.2.1", None, NOW_MS) for number in range(2, 14)]
    assert added == [True] * 9 + [False] * 3, "one window a key is left, and ten keys fit"
    assert windows.add(used(2), Code.VALID, "192.0.2.9", None, NOW_MS), (
        "a window that is there takes any number of uses"
    )
    assert sum(window.count for window in windows.take()) == 8 * 4 + 9 + 1
    assert windows.add(used(13), Code.VALID, "192.0.2.1", None, NOW_MS)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("curl/8.5.0", "curl/8.5.0"), ("a\x00b\nc", "abc"), ("\u202e\u2066", None), ("", None), ("x" * 300, "x" * 200)],
)
def test_a_user_agent_is_kept_as_two_hundred_plain_characters(sent: str, kept: str | None) -> None:
    windows = Windows(10)
    windows.add(used(), Code.VALID, None, sent, NOW_MS)
    windows.add(used(), Code.VALID, None, sent, NOW_MS)
    (window,) = windows.take()
    assert decoder.decode_usage(key_used.encode(window, "a/source", 1, NOW_MS, 0)).event.user_agent == kept


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
    windows.add(used(), Code.VALID, sent, None, NOW_MS)
    assert [window.ip for window in windows.take()] == [kept]


def test_the_fuller_the_spool_the_longer_windows_are_held() -> None:
    assert [pace.below for pace in PACES] == sorted(pace.below for pace in PACES)
    assert [pace.hold_s for pace in PACES] == sorted(pace.hold_s for pace in PACES)
    assert all(pace.width is Width.SECOND for pace in PACES if pace.hold_s <= 1)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


def spooled(spool: Spool) -> int:
    """How many uses the records in the spool tell of."""
    messages = [message for chunk in spool.oldest(10**6) for message in chunk.messages]
    return sum(decoder.decode_usage(message.value).event.count for message in messages)


def test_uses_are_in_the_spool_soon_after_they_were_counted(spool: Spool) -> None:
    uses = Uses(spool)
    uses.start()
    for number in range(1, 1001):
        for _ in range(3):
            uses.record(Code.VALID, used(number), "192.0.2.7", "curl/8", NOW_MS)
    eventually(lambda: spooled(spool) == 3000, 10, "all uses are in the spool")
    assert uses.counts() == ({"VALID": 3000}, {"uses": 3000, "waiting": 0})
    uses.stop(5)


def test_an_orderly_stop_leaves_nothing_in_memory(spool: Spool) -> None:
    uses = Uses(spool)
    uses.start()
    for number in range(1, 600):
        uses.record(Code.VALID, used(number), None, None, NOW_MS)
    with capture_logs() as logs:
        uses.stop(5)
    assert logs == []
    assert spooled(spool) == 599


def test_a_stop_while_the_spool_is_full_ends_in_time_and_says_what_is_lost(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=10)
    uses = Uses(spool)
    uses.start()
    uses.record(Code.VALID, used(), None, None, NOW_MS)
    with capture_logs() as logs:
        uses.stop(0.2)
    spool.close()
    assert {"event": "uses_lost", "log_level": "error", "windows": 1} in logs


def test_an_answer_is_refused_only_when_merging_does_not_help_any_more(spool: Spool) -> None:
    uses = Uses(spool, most_windows=3)
    answers = [uses.record(Code.VALID, used(number), None, None, NOW_MS) for number in range(1, 9)]
    assert answers == [True] * 3 + [False] * 5
    assert uses.record(Code.NOT_FOUND, None, None, None, NOW_MS), "nothing is counted as a use, nothing is refused"
    assert uses.counts() == ({"VALID": 3, "NOT_FOUND": 1}, {"uses": 3, "waiting": 3})


def test_what_a_failing_disk_did_not_take_is_put_in_when_it_works_again(spool: Spool, monkeypatch) -> None:
    uses = Uses(spool)

    def full(windows: object) -> bool:
        raise StoreFailure("no space left")

    with monkeypatch.context() as failing, capture_logs() as logs:
        failing.setattr(spool, "put", full)
        uses.start()
        uses.record(Code.VALID, used(), None, None, NOW_MS)
        eventually(lambda: any(log["event"] == "spool_failed" for log in logs), 10, "the disk failed")
        assert uses.counts()[1]["waiting"] == 1
    eventually(lambda: spooled(spool) == 1, 10, "the use is in the spool")
    uses.stop(5)
