"""Uses on their way to `key-usage`: counted in windows in memory, sent every 250 ms by a thread of its own.

Each worker process is a source of its own, with a random id, and numbers its records from 1 in each partition. A batch
is numbered and encoded once; the same bytes are sent again, in order, until they are acknowledged, so that whoever
reads them can tell a copy from a new use and sees every gap.

An orderly stop sends what waits. A process that is killed loses what was not acknowledged: while the broker answers
that is at most the windows of the last 250 ms and the batch under way; while it is away, everything since it went.
"""

import time
from collections import Counter
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Final
from uuid import UUID

import msgspec
import structlog

from schemas import wire
from schemas.codec import SEQUENCE_DIGITS
from schemas.times import Clock, to_text
from schemas.topics import USAGE, partition_of
from schemas.validation import Code
from services.auth_checker.check import Facts
from services.auth_checker.windows import Window, Windows
from services.ledger.log import Log, LogUnavailable, Message

EVERY_S: Final = 0.25
MOST_WINDOWS: Final = 100_000
_AT_ONCE: Final = 2000
_SEND_TIMEOUT_S: Final = 5.0
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_HEADERS: Final = (("ce_type", b"KeyUsed"),)
_log = structlog.get_logger("keyledger.auth_checker")


class Numbering:
    """Turns windows into records of one source: `sequence` is dense in each partition, from 1."""

    def __init__(self, source: str, clock: Clock, random_bits: Callable[[int], int]) -> None:
        self._source, self._clock, self._random_bits = f"keyledger/auth-checker/{source}", clock, random_bits
        self._last: Counter[int] = Counter()

    def message(self, window: Window) -> Message:
        """The record of a window, as it is sent for the first and for every further time."""
        partition = partition_of(window.key_id)
        self._last[partition] += 1
        value = self._value(window, self._last[partition])
        return Message(USAGE, partition, window.key_id.encode(), value, _HEADERS)

    def _value(self, window: Window, sequence: int) -> bytes:
        # `schemas.codec.encode_usage` gives the same bytes, as a test shows, and takes fifty times as long.
        now_ms = self._clock()
        data: dict[str, object] = {
            "key_id": window.key_id,
            "org_id": window.org_id,
            "user_id": window.user_id,
            "outcome": window.outcome,
            "count": window.count,
            "first_at": to_text(window.first_ms),
            "last_at": to_text(window.last_ms),
        }
        if window.ip is not None:
            data["ip"] = window.ip
        if window.user_agent is not None:
            data["user_agent"] = window.user_agent
        document = {
            "specversion": "1.0",
            "id": str(self._uuid7(now_ms)),
            "source": self._source,
            "subject": window.key_id,
            "time": to_text(now_ms),
            "type": "KeyUsed",
            "dataschema": wire.KEY_USED,
            "sequence": f"{sequence:0{SEQUENCE_DIGITS}d}",
            "data": data,
        }
        return msgspec.json.encode(document, order="sorted")

    def _uuid7(self, now_ms: int) -> UUID:
        return UUID(int=now_ms << 80 | 7 << 76 | self._random_bits(12) << 64 | 2 << 62 | self._random_bits(62))


class Uses:
    """Counts uses and answers, and sends the uses. `counts` are totals since the start, for metrics; thread-safe."""

    def __init__(self, log: Log, numbering: Numbering, most_windows: int = MOST_WINDOWS) -> None:
        self._log, self._numbering = log, numbering
        self._lock = Lock()
        self._windows = Windows(most_windows)
        self._in_hand = 0
        self._stopping = Event()
        self._give_up_s = float("inf")
        self._counts: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._thread = Thread(target=self._run, name="uses", daemon=True)

    def start(self) -> None:
        """Begin sending."""
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """Send what waits, for at most so many seconds, and wait for the thread; what is lost then is logged."""
        self._give_up_s = time.monotonic() + within_s
        self._stopping.set()
        self._thread.join()
        with self._lock:
            lost = len(self._windows) + self._in_hand
        if lost:
            _log.error("uses_lost", windows=lost)

    def record(self, code: Code, facts: Facts | None, ip: str | None, user_agent: str | None, now_ms: int) -> bool:
        """An answer: counted, and where the key's whole text matched, counted as a use of that key.

        False when too many windows wait: the answer must then not be given.
        """
        with self._lock:
            if facts is not None:
                if self._windows.is_full():
                    return False
                self._windows.add(facts, code, ip, user_agent, now_ms)
                self._counts["uses"] += 1
            self._codes[code.value] += 1
        return True

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Answers by code; and `uses` counted, `windows` sent, `resends` tried, windows `waiting`."""
        with self._lock:
            waiting = len(self._windows) + self._in_hand
            return dict(self._codes), {**self._counts, "waiting": waiting}

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            self._send_what_waits()
        self._send_what_waits()

    def _send_what_waits(self) -> None:
        with self._lock:
            windows = self._windows.take()
            self._in_hand = len(windows)
        for at in range(0, len(windows), _AT_ONCE):
            messages = [self._numbering.message(window) for window in windows[at : at + _AT_ONCE]]
            if not self._sent(messages):
                return
            with self._lock:
                self._counts["windows"] += len(messages)
                self._in_hand -= len(messages)

    def _sent(self, messages: list[Message]) -> bool:
        """Send the same bytes until they are acknowledged; False when told to stop and out of time."""
        failures = 0
        while (left_s := self._give_up_s - time.monotonic()) > 0:
            try:
                self._log.append_all(messages, min(_SEND_TIMEOUT_S, left_s))
                return True
            except LogUnavailable as error:
                _log.warning("uses_not_sent", error=str(error), windows=len(messages))
            with self._lock:
                self._counts["resends"] += 1
            self._pause(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures += 1
        return False

    def _pause(self, wait_s: float) -> None:
        if self._stopping.is_set():  # A second wait for that event would be none at all.
            time.sleep(min(wait_s, max(0.0, self._give_up_s - time.monotonic())))
        else:
            self._stopping.wait(wait_s)
