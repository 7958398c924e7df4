"""Record batches that can be read whatever a sender wrote into them.

kafka-python 3.0.12 gives up a whole poll when a header's name is not UTF-8 or a codec is missing, and whoever asks again
meets the same record. Anybody who may write to a topic could stop its readers so for good. Here such a record comes
without key, value and headers, at its own offset, and the others of its batch come as they are. A batch whose checksum is
wrong was damaged, not written so: that one still raises, and is read again.
"""

from typing import Any

from kafka.errors import CorruptRecordError
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint


class Unreadable(list[Any]):
    """The headers of a record that could not be read: none, and why."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


class PatientBatch(DefaultRecordBatch):  # type: ignore[misc]  # It has no types.
    """A batch that gives an Unreadable record where its parent raises."""

    def __init__(self, buffer: Any) -> None:
        super().__init__(buffer)
        self._why = ""

    def __iter__(self) -> Any:
        try:
            return super().__iter__()
        except MemoryError:
            raise  # That is our own trouble and says nothing about the batch.
        except Exception as error:  # noqa: BLE001  # Each codec has errors of its own. None of its records can be read.
            self._why, self._buffer, self._pos, self._decompressed = str(error), b"", 0, True
            return self

    def _read_msg(self) -> Any:
        start = self._pos
        try:
            return super()._read_msg()
        except (ValueError, IndexError, CorruptRecordError) as error:
            self._pos = self._after(start)
            # Our topics are never compacted, so the offsets of a batch have no holes.
            offset = self.base_offset + self._next_record_index
            why = Unreadable(self._why or str(error))
            return DefaultRecord(0, offset, self.max_timestamp, self.timestamp_type, None, None, why)

    def _after(self, start: int) -> int:
        """Where the record that begins at `start` ends; the end of the batch when it does not tell."""
        end = len(self._buffer)
        try:
            length, body = decode_varint(self._buffer, start)
        except (ValueError, IndexError):
            return end
        return min(body + length, end) if length > 0 else end


def read_patiently() -> None:
    """Let every consumer of this process make its batches so: kafka-python has no other place to say it."""
    memory_records.DefaultRecordBatch = PatientBatch
