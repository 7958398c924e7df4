"""The log as the ledger sees it; `kafka_log` is the real one, `memory_log` its shipped twin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.ledger.records import Record, TopicPartition


class LogUnavailable(Exception):
    """The log did not answer in time, or with an error. Nothing is known to be wrong with what was asked."""


class OutcomeUnknown(LogUnavailable):
    """An append was not acknowledged: the record may be in the log, now or later, or not."""


class OffsetGone(LogUnavailable):
    """A reader stands at an offset that the log does not hold."""


class LogWasCut(Exception):
    """The log does not continue what was read from it before: it was truncated, restored or made again."""


@dataclass(frozen=True, slots=True)
class Message:
    """A record to append; we always choose the partition ourselves."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Reader(Protocol):
    """Reads some partitions from given offsets on. One thread at a time."""

    def poll(self, timeout_ms: int) -> list[Record]:
        """New records, each partition in its order; empty when none came in time. Raises LogUnavailable."""

    def positions(self) -> Mapping[TopicPartition, int]:
        """The offset each partition goes on at: all records before it were given by `poll`. Raises LogUnavailable.

        It can be beyond the last record: a transaction leaves offsets behind that hold no record.
        """

    def close(self) -> None:
        """Let go of connections."""


class Log(Protocol):
    """Topics of partitions of records. All methods are thread-safe."""

    def append(self, message: Message, timeout_s: float) -> int:
        """Append and give the offset. Raises OutcomeUnknown."""

    def append_all(self, messages: Sequence[Message], timeout_s: float) -> list[int]:
        """Append all, each partition in the order given. Raises OutcomeUnknown when any is not acknowledged."""

    def reader(self, offsets: Mapping[TopicPartition, int]) -> Reader:
        """A reader that begins at these offsets. Raises LogUnavailable."""

    def first_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        """The offset of the first record each partition still holds. Raises LogUnavailable."""

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition will get. Raises LogUnavailable."""

    def close(self) -> None:
        """Let go of threads and connections."""
