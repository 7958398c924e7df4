"""What stands in the log, read anew and parsed as plain JSON; and a log that fails on demand."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from schemas.topics import LIFECYCLE, partition_of
from services.ledger.log import Log, Message, OutcomeUnknown
from services.ledger.memory_log import MemoryLog
from services.ledger.records import Record, TopicPartition


def records_of(log: Log, topic: str, partition: int) -> list[Record]:
    """Every record of a partition."""
    at = TopicPartition(topic, partition)
    end = log.end_offsets([at], 5)[at]
    reader = log.reader({at: log.first_offsets([at], 5)[at]})
    found: list[Record] = []
    try:
        while len(found) < end:
            found += reader.poll(100)
    finally:
        reader.close()
    return found


def events_of(log: Log, org: str) -> list[dict[str, Any]]:
    """The documents of an organisation's records, void ones too."""
    records = records_of(log, LIFECYCLE, partition_of(org))
    return [json.loads(record.value or b"") for record in records if record.key == org.encode()]


class TroubledLog(MemoryLog):
    """A log in memory; `trouble` is asked about each append before and after it is done, and may raise."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: Callable[[str], None] = lambda _when: None

    def append_all(self, messages: Sequence[Message], timeout_s: float) -> list[int]:
        self.trouble("before")
        offsets = super().append_all(messages, timeout_s)
        self.trouble("after")
        return offsets

    def fail_once(self, when: str) -> None:
        """Let the next append end without an answer, before or after the record was written."""

        def trouble(now: str) -> None:
            if now == when:
                self.trouble = lambda _when: None
                raise OutcomeUnknown("not acknowledged in time")

        self.trouble = trouble
