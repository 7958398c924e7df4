"""The tables `usage_sources` and `usage_gaps`: which numbers of each sender were counted."""

from collections.abc import Iterable
from typing import Final

from services.projector.database import Writer
from services.projector.read_models.rows import replace, transposed, upsert
from services.projector.sequences import Sequence, first_seen

_SOURCE_COLUMNS: Final = {"source": "text", "partition": "integer", "last": "bigint"}
_GAP_COLUMNS: Final = {"source": "text", "partition": "integer", "first": "bigint", "last": "bigint"}
_LAST: Final = """
    SELECT source, partition, last FROM usage_sources
    JOIN unnest(%s::text[], %s::integer[]) AS wanted (source, partition) USING (source, partition)
"""
_GAPS: Final = """
    SELECT source, partition, first, last FROM usage_gaps
    JOIN unnest(%s::text[], %s::integer[]) AS wanted (source, partition) USING (source, partition)
    ORDER BY first
"""
Sender = tuple[str, int]
"""A source and a partition."""


class UsageSources:
    """The senders of one batch (at least one), loaded once. `gaps` counts the gaps recorded, `duplicates` the copies refused."""

    def __init__(self, connection: Writer, senders: Iterable[Sender]) -> None:
        self._connection = connection
        self._sequences: dict[Sender, Sequence] = {}
        self.gaps = self.duplicates = 0
        wanted = transposed(dict.fromkeys(senders))
        for source, partition, last in connection.execute(_LAST, wanted):
            self._sequences[source, partition] = Sequence(last)
        for source, partition, first, last in connection.execute(_GAPS, wanted):
            self._sequences[source, partition].gaps.append((first, last))
        self._stored_gaps = {sender: tuple(sequence.gaps) for sender, sequence in self._sequences.items()}

    def take(self, sender: Sender, number: int, whole: bool) -> bool:
        """Whether the record of this number counts; `whole`: the log of its partition was read from offset 0 on."""
        sequence = self._sequences.get(sender)
        if sequence is None:
            sequence = self._sequences[sender] = first_seen(number, whole)
        self.gaps += number > sequence.last + 1
        counts = sequence.take(number)
        self.duplicates += not counts
        return counts

    def write(self) -> None:
        """Write the last numbers, and the gaps where they changed. Raises psycopg.Error."""
        rows = [(*sender, sequence.last) for sender, sequence in self._sequences.items()]
        key = ["source", "partition"]
        upsert(self._connection, "usage_sources", _SOURCE_COLUMNS, rows, key=key, update=replace(["last"]))
        changed = {
            sender: sequence.gaps
            for sender, sequence in self._sequences.items()
            if tuple(sequence.gaps) != self._stored_gaps.get(sender, ())
        }
        if changed:
            self._connection.execute(
                "DELETE FROM usage_gaps USING unnest(%s::text[], %s::integer[]) AS gone (source, partition)"
                " WHERE usage_gaps.source = gone.source AND usage_gaps.partition = gone.partition",
                transposed(changed),
            )
            gaps = [(*sender, *gap) for sender, found in changed.items() for gap in found]
            key = ["source", "partition", "first"]
            upsert(self._connection, "usage_gaps", _GAP_COLUMNS, gaps, key=key, update=replace(["last"]))
