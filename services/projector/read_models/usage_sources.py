"""The tables `usage_sources` and `usage_gaps`: which numbers of each sender were counted."""

from collections.abc import Iterable, Mapping
from typing import Final

from services.ledger.records import TopicPartition
from services.projector.database import Writer
from services.projector.read_models.rows import replace, transposed, upsert
from services.projector.sequences import Sequence, first_seen

_KEY: Final = {"topic": "text", "source": "text", "partition": "integer"}
_SOURCE_COLUMNS: Final = _KEY | {"last": "bigint"}
_GAP_COLUMNS: Final = _KEY | {"first": "bigint", "last": "bigint"}
_LAST: Final = """
    SELECT topic, source, partition, last FROM usage_sources
    JOIN unnest(%s::text[], %s::text[], %s::integer[]) AS wanted (topic, source, partition)
    USING (topic, source, partition)
"""
_GAPS: Final = """
    SELECT topic, source, partition, first, last FROM usage_gaps
    JOIN unnest(%s::text[], %s::text[], %s::integer[]) AS wanted (topic, source, partition)
    USING (topic, source, partition) ORDER BY first
"""
_DROP_GAPS: Final = """
    DELETE FROM usage_gaps USING unnest(%s::text[], %s::text[], %s::integer[]) AS gone (topic, source, partition)
    WHERE (usage_gaps.topic, usage_gaps.source, usage_gaps.partition) = (gone.topic, gone.source, gone.partition)
"""


Sender = tuple[str, str, int]
"""Who numbers records, and where: topic, source and partition. So nobody speaks for a sender on another topic."""


class UsageSources:
    """The senders of one batch, loaded once. `gaps` counts the gaps recorded.

    `whole` tells of a partition whether its log was read from offset 0 on.
    """

    def __init__(self, connection: Writer, senders: Iterable[Sender], whole: Mapping[TopicPartition, bool]) -> None:
        self._connection, self._whole = connection, whole
        self._sequences: dict[Sender, Sequence] = {}
        self.gaps = 0
        unique = dict.fromkeys(senders)
        if unique:
            wanted = transposed(unique)
            for topic, source, partition, last in connection.execute(_LAST, wanted):
                self._sequences[topic, source, partition] = Sequence(last)
            for topic, source, partition, first, last in connection.execute(_GAPS, wanted):
                self._sequences[topic, source, partition].gaps.append((first, last))
        self._stored_gaps = {sender: tuple(sequence.gaps) for sender, sequence in self._sequences.items()}

    def take(self, sender: Sender, number: int) -> bool:
        """Whether the record of this number counts."""
        sequence = self._sequences.get(sender)
        if sequence is None:
            topic, _, partition = sender
            whole = self._whole[TopicPartition(topic, partition)]
            sequence = self._sequences[sender] = first_seen(number, whole)
        if number == sequence.last + 1:  # As almost always.
            sequence.last = number
            return True
        self.gaps += number > sequence.last
        return sequence.take(number)

    def write(self) -> None:
        """Write the last numbers, and the gaps where they changed. Raises psycopg.Error."""
        rows = sorted((*sender, sequence.last) for sender, sequence in self._sequences.items())
        upsert(self._connection, "usage_sources", _SOURCE_COLUMNS, rows, key=list(_KEY), update=replace(["last"]))
        changed = {
            sender: sequence.gaps
            for sender, sequence in self._sequences.items()
            if tuple(sequence.gaps) != self._stored_gaps.get(sender, ())
        }
        if changed:
            self._connection.execute(_DROP_GAPS, transposed(changed))
            gaps = [(*sender, *gap) for sender, found in changed.items() for gap in found]
            key = [*_KEY, "first"]
            upsert(self._connection, "usage_gaps", _GAP_COLUMNS, gaps, key=key, update=replace(["last"]))
