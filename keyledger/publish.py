"""Publish that keys were used, from any service that sees it: KeyUsed on the topic `key-usage-external`.

    with Publisher("kafka:9092", "invoices", state=Path("/var/lib/invoices/uses")) as publisher:
        publisher.used(key_id, org_id=…, user_id=…)

Needs marshmallow, kafka-python and structlog, none of the servers' packages. See docs/publishing.md.
"""

import atexit
import os
from collections import deque
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Condition, Lock, Thread
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

import structlog

from keyledger.publish_numbers import Numbers
from schemas import times, topics
from schemas.codec import encode_usage
from schemas.events import KeyUsed, UsageEnvelope
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import Log, LogUnavailable, Message

_AT_ONCE: Final = 2000
_GATHER_S: Final = 0.02
_SEND_TIMEOUT_S: Final = 5.0
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_HEADERS: Final = (("ce_type", b"KeyUsed"),)
_log = structlog.get_logger("keyledger.publish")
_partition_of = lru_cache(65_536)(topics.partition_of)


class TooManyWaiting(LogUnavailable):
    """As many uses wait as may, and the log took none in time. This use was not taken; the others wait on."""


class NotSent(LogUnavailable):
    """The log did not acknowledge all uses in time."""


class Publisher:
    """Sends uses to the log of `bootstrap` (`host:port,…`), in the order given. One per process, made after forking.

    `source` names the service that saw the uses. Given `state`, a file that this process alone opens, uses are numbered
    and so counted exactly, however often the service restarts, and what a crash loses of a batch that was being
    sent is reported as a gap; without, a use is counted once for its id. At most `max_waiting` uses wait in memory for the log: beyond, `used` waits
    for `wait_s` seconds at most. `log` is taken instead of Kafka, for tests. Thread-safe.

    Raises ValueError: the file is in use, damaged or another service's; OSError: it cannot be opened.
    """

    def __init__(
        self,
        bootstrap: str,
        source: str,
        state: Path | None = None,
        *,
        max_waiting: int = 10_000,
        wait_s: float = 5.0,
        log: Log | None = None,
    ) -> None:
        self._numbers = None if state is None else Numbers(state, source)
        self._source = source if self._numbers is None else self._numbers.source
        self._log: Log = KafkaLog(bootstrap, "keyledger-publish") if log is None else log
        self._max_waiting, self._wait_s = max_waiting, wait_s
        self._waiting = deque[Message]()
        self._taken = self._sent = self._failures = 0
        self._why = "there was no time to send"
        self._lock = Lock()
        self._came, self._went = Condition(self._lock), Condition(self._lock)
        self._closing = False
        self._process = os.getpid()
        self._thread = Thread(target=self._run, name="publish-uses", daemon=True)
        self._thread.start()
        # Whoever forgets to close has not said that the last uses may be lost.
        atexit.register(self.close)

    def used(
        self,
        key_id: str,
        *,
        org_id: str,
        user_id: str,
        outcome: str = "VALID",
        at_ms: int | None = None,
        ip: str | None = None,
        user_agent: str | None = None,
        count: int = 1,
        use_id: str | None = None,
    ) -> str:
        """Take a use, to be sent soon; gives the id of its record.

        `user_id` is the key's owner, `outcome` a code of `schemas.validation.Code`, `at_ms` the time of the use in
        milliseconds since 1970 (now), `count` how many uses of that moment are meant. Without `state` a use is counted
        once for each `use_id` of its source: whoever passes one may repeat the call, after a restart too. Raises ValueError
        (a field breaks its rule) and TooManyWaiting; the use was not taken then.
        """
        if os.getpid() != self._process:
            raise RuntimeError("this publisher was made before the process forked: make one in each process")
        now = times.to_text(times.wall_clock_ms())
        at = now if at_ms is None else times.to_text(at_ms)
        event = KeyUsed(key_id, org_id, user_id, outcome, count, first_at=at, last_at=at, ip=ip, user_agent=user_agent)
        envelope = UsageEnvelope(str(uuid4()) if use_id is None else use_id, self._source, key_id, now, event)
        if self._numbers is not None and use_id is not None:
            raise ValueError("a numbered use is counted for its number: give `state` or `use_id`, not both")
        with self._lock:
            self._wait_for_room()
            self._take(envelope)
        return envelope.id

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until the log has all that was taken before. Raises NotSent; what waits goes on waiting."""
        with self._lock:
            taken = self._taken
            self._went.wait_for(lambda: self._sent >= taken or self._closing, timeout_s)
            if self._sent < taken:
                raise NotSent(f"{taken - self._sent} uses are not in the log: {self._why}")

    def close(self, timeout_s: float = 10.0) -> None:
        """`flush`, then let go of everything; also done when the interpreter ends. Raises NotSent: those uses are lost."""
        if self._closing or os.getpid() != self._process:
            return
        try:
            self.flush(timeout_s)
        finally:
            atexit.unregister(self.close)
            with self._lock:
                self._closing = True
                self._came.notify_all()
                self._went.notify_all()
            self._log.close()
            self._thread.join()
            if self._numbers is not None:
                self._numbers.save(self._numbers.taken())  # What is lost is a gap that readers can see.
                self._numbers.close()

    def counts(self) -> dict[str, int]:
        """How many uses wait (`waiting`), are in the log (`sent`), and how often sending failed (`failures`)."""
        with self._lock:
            return {"waiting": len(self._waiting), "sent": self._sent, "failures": self._failures}

    def __enter__(self) -> Self:
        """Publish in a `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _wait_for_room(self) -> None:
        has_room = self._went.wait_for(lambda: self._closing or len(self._waiting) < self._max_waiting, self._wait_s)
        if self._closing:
            raise RuntimeError("this publisher is closed")
        if not has_room:
            raise TooManyWaiting(f"{len(self._waiting)} uses wait for the log already: {self._why}")

    def _take(self, envelope: UsageEnvelope) -> None:
        """Encode, once: a copy that is sent again is the same. Raises InvalidEvent; nothing changed then."""
        key_id = envelope.event.key_id
        partition = _partition_of(key_id)
        if self._numbers is not None:
            envelope = replace(envelope, sequence=self._numbers.next(partition))
        value = encode_usage(envelope)
        if self._numbers is not None:
            self._numbers.take(partition)
        self._waiting.append(Message(topics.EXTERNAL_USAGE, partition, key_id.encode(), value, _HEADERS))
        self._taken += 1
        self._came.notify()

    def _run(self) -> None:
        while batch := self._next():
            failed = 0
            while not self._send(*batch) and not self._closing:
                with self._lock:
                    self._went.wait_for(lambda: self._closing, _BACKOFF_S[min(failed, len(_BACKOFF_S) - 1)])
                failed += 1

    def _next(self) -> tuple[list[Message], list[int]] | None:
        """The uses that wait longest, and the numbers taken so far; None at the end."""
        with self._lock:
            self._came.wait_for(lambda: self._waiting or self._closing)
            # Those that come in the next moments go along: one file written and one answer awaited for all.
            self._went.wait_for(lambda: self._closing, _GATHER_S)
            if self._closing:
                return None
            return list(islice(self._waiting, _AT_ONCE)), [] if self._numbers is None else self._numbers.taken()

    def _send(self, messages: list[Message], taken: list[int]) -> bool:
        """Whether the log has them all; if not, all of them will be sent again, and readers drop the copies."""
        try:
            if self._numbers is not None:
                self._numbers.save(taken)
            self._log.append_all(messages, _SEND_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - a thread that ended would let everything wait for ever.
            _log.warning("uses_not_sent", error=str(error), uses=len(messages))
            with self._lock:
                self._failures, self._why = self._failures + 1, str(error)
            return False
        with self._lock:
            for _ in messages:
                self._waiting.popleft()
            self._sent += len(messages)
            self._went.notify_all()
        return True
