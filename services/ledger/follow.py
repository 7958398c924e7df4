"""Follow the log: a thread that brings records to a handler, which stores what they say and its places together.

Manual assignment, no consumer group: where to go on is in the handler's own store. On resume, and when a
partition's leader epoch changes, the last record is read again; another hash means that the log was cut.
"""

import random
import time
from collections.abc import Mapping, Sequence
from threading import Event, Lock, Thread
from typing import Final, Protocol

import structlog

from schemas.topics import CHECKPOINTS, LIFECYCLE
from services.ledger.ends import Ends
from services.ledger.log import Log, LogUnavailable, LogWasCut, Reader
from services.ledger.records import Batch, Place, Places, Record, TopicPartition, value_hash

KEPT_FOR_EVER: Final = (LIFECYCLE, CHECKPOINTS)
_POLL_MS: Final = 100
_BOUNDS_TIMEOUT_S: Final = 5.0
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0)
_log = structlog.get_logger("keyledger.ledger")


class Handler(Protocol):
    """What a reader does with the log."""

    def resume_from(self) -> Places:
        """The stored places; a partition that is missing begins at its first record."""

    def apply(self, batch: Batch) -> None:
        """Store what the records say, and the places, in one transaction. When it raises, nothing was stored."""

    def log_was_cut(self, why: str) -> None:
        """The log is not the one that was read: begin anew (return), or stop for good (raise LogWasCut)."""

    def lost(self, at: TopicPartition, next_offset: int, first_offset: int) -> None:
        """Records of a topic with finite retention expired before they were read."""


class Follower:
    """Follows some partitions in a thread of its own; goes on by itself after every error but LogWasCut."""

    def __init__(self, log: Log, partitions: Sequence[TopicPartition], handler: Handler, name: str) -> None:
        self._log, self._partitions, self._handler = log, tuple(partitions), handler
        self._ends = Ends(log, partitions)
        self._stopping = Event()
        self._lock = Lock()
        self._next: dict[TopicPartition, int] = {}
        self._waiters: dict[TopicPartition, list[tuple[int, Event]]] = {at: [] for at in partitions}
        self._start_ends: dict[TopicPartition, int] | None = None
        self._failures = 0
        self._polled_at = self._level_at = self._came_round_at = time.monotonic()
        self._thread = Thread(target=self._run, name=f"follow-{name}", daemon=True)
        self.failure: Exception | None = None

    def start(self) -> None:
        """Begin following."""
        self._ends.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop after the batch under way, and wait for the thread."""
        self._stopping.set()
        self._ends.stop()
        self._thread.join()

    def wait_for(self, at: TopicPartition, offset: int, timeout_s: float) -> bool:
        """Wait until every record before `offset` was handled. False when that took longer."""
        reached = Event()
        with self._lock:
            if self._next.get(at, 0) >= offset:
                return True
            self._waiters[at].append((offset, reached))
        if reached.wait(timeout_s):
            return True
        with self._lock:
            self._waiters[at] = [waiter for waiter in self._waiters[at] if waiter[1] is not reached]
        return reached.is_set()

    def reach_end(self, at: TopicPartition, timeout_s: float) -> None:
        """The barrier: ask for the partition's end, and wait until all before it was handled. Raises LogUnavailable."""
        deadline = time.monotonic() + timeout_s
        end = self._ends.ask(timeout_s)[at]
        if not self.wait_for(at, end, deadline - time.monotonic()):
            raise LogUnavailable("the end of the log was not reached in time")

    def next_offsets(self) -> dict[TopicPartition, int]:
        """The offset of the next record, by partition."""
        with self._lock:
            return dict(self._next)

    def caught_up(self) -> bool:
        """Whether the ends asked for at the start were reached."""
        ends, reached = self._start_ends, self.next_offsets()
        return ends is not None and all(reached.get(at, -1) >= end for at, end in ends.items())

    def lag(self) -> dict[TopicPartition, int]:
        """Records behind the newest known end, by partition."""
        reached = self.next_offsets()
        return {at: max(0, end - reached.get(at, 0)) for at, end in self._ends.known().items()}

    def lag_s(self) -> float:
        """Seconds since nothing was left to handle; 0 when nothing is."""
        return time.monotonic() - self._level_at if any(self.lag().values()) else 0.0

    def idle_s(self) -> float:
        """Seconds since the log last told its ends, or since the last poll if that is longer ago."""
        return max(self._ends.age_s(), time.monotonic() - self._polled_at)

    def stuck_s(self) -> float:
        """Seconds since the thread last came round. The log may be away: long is only what hangs in a call."""
        return time.monotonic() - self._came_round_at

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._came_round_at = time.monotonic()
            try:
                self._follow()
            except LogWasCut as error:
                _log.critical("log_was_cut", error=str(error))
                self.failure = error
                return
            except Exception as error:  # noqa: BLE001  # A store or a broker that is away: what was not stored is read again.
                known = isinstance(error, LogUnavailable)
                _log.warning("follow_again", error=repr(error), exc_info=not known)
            wait_s = _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
            self._failures += 1
            self._stopping.wait(wait_s * random.uniform(0.5, 1.0))  # noqa: S311  # No secret hangs on it.

    def _follow(self) -> None:
        places = self._handler.resume_from()
        starts = self._starts(places)
        if starts is None:
            return
        expected = {at: places[at] for at, start in starts.items() if start < places.get(at, Place()).next_offset}
        reader = self._log.reader(starts)
        session = _Session(reader, expected)
        self._moved({at: max(start, places.get(at, Place()).next_offset) for at, start in starts.items()})
        try:
            while not self._stopping.is_set():
                batch = session.next_batch()
                self._polled_at = self._came_round_at = time.monotonic()
                if not any(self.lag().values()):
                    self._level_at = self._polled_at
                if batch is not None:
                    self._handler.apply(batch)
                    self._moved({at: place.next_offset for at, place in batch.places.items()})
                    self._failures = 0
                # Only now: a position counts when all records before it were handled.
                self._moved({at: to for at, to in session.positions().items() if to > self._next[at]})
        except _Cut as cut:
            self._cut(str(cut))
        finally:
            reader.close()

    def _starts(self, places: Places) -> dict[TopicPartition, int] | None:
        """Where to begin reading: at the last record already handled, to look at it again. None after a cut."""
        first = self._log.first_offsets(self._partitions, _BOUNDS_TIMEOUT_S)
        ends = self._log.end_offsets(self._partitions, _BOUNDS_TIMEOUT_S)
        starts = {}
        for at in self._partitions:
            next_offset = places.get(at, Place()).next_offset
            if next_offset > ends[at] or (at.topic in KEPT_FOR_EVER and first[at] > 0):
                self._cut(
                    f"{at.topic}/{at.partition} holds offsets {first[at]} to {ends[at]}, the next one here is {next_offset}"
                )
                return None
            if 0 < next_offset < first[at]:
                self._handler.lost(at, next_offset, first[at])
            starts[at] = max(first[at], next_offset - 1)
        if self._start_ends is None:
            self._start_ends = ends
        return starts

    def _cut(self, why: str) -> None:
        # Nothing of the old log counts as reached or as an end any more.
        with self._lock:
            self._next, self._start_ends = {}, None
        self._handler.log_was_cut(why)

    def _moved(self, offsets: Mapping[TopicPartition, int]) -> None:
        with self._lock:
            self._next.update(offsets)
            for at in offsets:
                waiters, reached = self._waiters[at], self._next[at]
                if waiters:
                    self._waiters[at] = [waiter for waiter in waiters if waiter[0] > reached]
                    for offset, event in waiters:
                        if offset <= reached:
                            event.set()


class _Session:
    """One run of a reader: turns polls into batches and looks at the last record again where that is due."""

    def __init__(self, reader: Reader, expected: Mapping[TopicPartition, Place]) -> None:
        self._reader = reader
        self._expected = dict(expected)
        self._epochs: dict[TopicPartition, int] = {}

    def next_batch(self) -> Batch | None:
        """The next records; None when there were none. Raises LogUnavailable, and _Cut."""
        records = self._reader.poll(_POLL_MS)
        if not records:
            return None
        # Within one poll a partition's records come from one leader, whatever epochs they were written in.
        for first in {(record.topic, record.partition): record for record in reversed(records)}.values():
            self._look_at_leader(first)
        fresh = (
            tuple(record for record in records if not self._is_last_again(record)) if self._expected else tuple(records)
        )
        ends = {(record.topic, record.partition): record for record in records}
        last = {record.at: record for record in ends.values()}
        self._epochs.update({at: record.leader_epoch for at, record in last.items()})
        places = {record.at: Place(record.offset + 1, value_hash(record)) for record in last.values()}
        return Batch(fresh, places) if fresh else None

    def positions(self) -> dict[TopicPartition, int]:
        """Where the reader stands, but for partitions whose last record is still to be looked at again."""
        return {at: offset for at, offset in self._reader.positions().items() if at not in self._expected}

    def _look_at_leader(self, first: Record) -> None:
        known = self._epochs.get(first.at)
        if known is not None and known != first.leader_epoch:
            # Go back to the handler's place, which looks at the last record again, now at this leader.
            raise LogUnavailable(f"{first.at.topic}/{first.at.partition} has another leader")

    def _is_last_again(self, record: Record) -> bool:
        place = self._expected.pop(record.at, None)
        if place is None:
            return False
        if record.offset != place.next_offset - 1 or value_hash(record) != place.last_hash:
            at = record.at
            raise _Cut(f"{at.topic}/{at.partition} offset {place.next_offset - 1} is not the record that was read")
        return True


class _Cut(Exception):
    """The last record was read again and is another one now."""
