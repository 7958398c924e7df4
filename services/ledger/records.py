"""The small value types of a log: what was read, and where a reader stands."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Record(NamedTuple):
    """A record as it was read from the log; `time_ms` is the broker's or sender's timestamp.

    A tuple, because a reader makes tens of thousands of them in a second.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    time_ms: int = 0
    leader_epoch: int = -1

    @property
    def at(self) -> TopicPartition:
        """The partition it stands in."""
        return TopicPartition(self.topic, self.partition)

    def header(self, name: str) -> bytes | None:
        """The last header of that name."""
        found = None
        for header, value in self.headers:
            if header == name:
                found = value
        return found


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader goes on: the offset of the next record, and the SHA-256 of the value of the one before.

    `last_hash` is empty when nothing was read yet.
    """

    next_offset: int = 0
    last_hash: bytes = b""


Places = dict[TopicPartition, Place]


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in the order of each partition, and the places of the partitions that moved.

    A handler stores what the records say and the places in one transaction.
    """

    records: tuple[Record, ...]
    places: Places


def value_hash(record: Record) -> bytes:
    """SHA-256 of the value bytes; a record without a value counts as empty."""
    return hashlib.sha256(record.value or b"").digest()
