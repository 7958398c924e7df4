"""The in-memory twin of the Kafka log. It runs the same contract tests, so that it cannot lie."""

from collections.abc import Mapping, Sequence
from threading import Condition

from schemas.times import Clock, wall_clock_ms
from services.ledger.log import LogUnavailable, Message, OffsetGone
from services.ledger.records import Record, TopicPartition


class MemoryLog:
    """Partitions as lists. `away` makes every call fail as a broker that is gone does."""

    def __init__(self, clock: Clock = wall_clock_ms) -> None:
        self._clock = clock
        self._records: dict[TopicPartition, list[Record]] = {}
        self._first: dict[TopicPartition, int] = {}
        self._changed = Condition()
        self.away = False

    def append(self, message: Message, timeout_s: float) -> int:
        """See Log."""
        return self.append_all([message], timeout_s)[0]

    def append_all(self, messages: Sequence[Message], timeout_s: float) -> list[int]:  # It answers at once.
        """See Log."""
        with self._changed:
            self._refuse_when_away()
            offsets = [self._append(message) for message in messages]
            self._changed.notify_all()
        return offsets

    def reader(self, offsets: Mapping[TopicPartition, int]) -> "MemoryReader":
        """See Log."""
        return MemoryReader(self, dict(offsets))

    def first_offsets(
        self,
        partitions: Sequence[TopicPartition],
        timeout_s: float,  # It answers at once.
    ) -> dict[TopicPartition, int]:
        """See Log."""
        with self._changed:
            self._refuse_when_away()
            return {at: self._first.get(at, 0) for at in partitions}

    def end_offsets(
        self,
        partitions: Sequence[TopicPartition],
        timeout_s: float,  # It answers at once.
    ) -> dict[TopicPartition, int]:
        """See Log."""
        with self._changed:
            self._refuse_when_away()
            return {at: len(self._records.get(at, ())) for at in partitions}

    def truncate(self, at: TopicPartition, end: int) -> None:
        """Lose the tail of a partition, as an unclean leader election would."""
        with self._changed:
            del self._records[at][end:]

    def expire(self, at: TopicPartition, first: int) -> None:
        """Let the records before `first` go, as retention would."""
        with self._changed:
            self._first[at] = first

    def close(self) -> None:
        """See Log."""

    def read(self, offsets: dict[TopicPartition, int], timeout_ms: int) -> list[Record]:
        """What a MemoryReader polls; moves `offsets`."""
        with self._changed:
            self._changed.wait_for(lambda: self.away or self._new(offsets), timeout_ms / 1000)
            self._refuse_when_away()
            found = self._new(offsets)
            for record in found:
                offsets[record.at] = record.offset + 1
            return found

    def _new(self, offsets: dict[TopicPartition, int]) -> list[Record]:
        found: list[Record] = []
        for at, offset in offsets.items():
            records = self._records.get(at, [])
            if not self._first.get(at, 0) <= offset <= len(records):
                raise OffsetGone(f"{at.topic}/{at.partition} has no offset {offset}")
            found += records[offset:]
        return found

    def _append(self, message: Message) -> int:
        at = TopicPartition(message.topic, message.partition)
        records = self._records.setdefault(at, [])
        records.append(
            Record(at.topic, at.partition, len(records), message.key, message.value, message.headers, self._clock())
        )
        return len(records) - 1

    def _refuse_when_away(self) -> None:
        if self.away:
            raise LogUnavailable("the in-memory log is away")


class MemoryReader:
    """See Reader."""

    def __init__(self, log: MemoryLog, offsets: dict[TopicPartition, int]) -> None:
        self._log, self._offsets = log, offsets

    def poll(self, timeout_ms: int) -> list[Record]:
        """See Reader."""
        return self._log.read(self._offsets, timeout_ms)

    def positions(self) -> Mapping[TopicPartition, int]:
        """See Reader."""
        return dict(self._offsets)

    def close(self) -> None:
        """See Reader."""
