"""What stands on `key-usage-external` of a log in memory."""

from schemas.topics import EXTERNAL_USAGE, PARTITIONS
from services.ledger.log import Log
from services.ledger.records import Record, TopicPartition


def records(log: Log) -> list[Record]:
    """All, partition after partition."""
    reader = log.reader({TopicPartition(EXTERNAL_USAGE, at): 0 for at in range(PARTITIONS)})
    return reader.poll(0)


def values_on(log: Log) -> list[bytes]:
    """Their values."""
    return [record.value or b"" for record in records(log)]
