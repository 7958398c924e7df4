"""Where the projector goes on, and the fence that keeps two projectors from writing the same partition."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from services.ledger.records import Place, Places, TopicPartition
from services.projector.database import Writer

ABSENT: Final = -1


class FencedOff(Exception):
    """Another process moved a checkpoint of ours: it projects our partitions, so this process must not."""


class Checkpoints:
    """The checkpoints of some partitions. Remembers what this process last wrote and compares before it writes.

    `whole` tells of a partition whether every record of it, from offset 0 on, was read.
    """

    def __init__(self, partitions: Sequence[TopicPartition], topic_ids: Mapping[str, str]) -> None:
        self._partitions, self._topic_ids = partitions, topic_ids
        self._written: dict[TopicPartition, int] | None = None
        self._tried: Mapping[TopicPartition, int] = {}
        self.whole: dict[TopicPartition, bool] = {}

    def read(self, connection: Writer) -> Places:
        """The stored places. Raises FencedOff when one is not what this process last wrote."""
        found = connection.execute(
            "SELECT topic, partition, next_offset, last_hash, whole FROM checkpoints"
            " JOIN unnest(%s::text[], %s::integer[]) AS wanted (topic, partition) USING (topic, partition)",
            [[at.topic for at in self._partitions], [at.partition for at in self._partitions]],
        ).fetchall()
        places = {
            TopicPartition(topic, partition): Place(offset, hash_) for topic, partition, offset, hash_, _ in found
        }
        if self._written is not None:
            for at in self._partitions:
                offset = places[at].next_offset if at in places else ABSENT
                # After a commit whose answer was lost, what we tried may or may not be there.
                if offset not in (self._written.get(at, ABSENT), self._tried.get(at, ABSENT)):
                    raise FencedOff(_sentence([at]))
        self._written = {at: place.next_offset for at, place in places.items()}
        self._tried = {}
        self.whole = {TopicPartition(topic, partition): whole for topic, partition, _, _, whole in found}
        return places

    def move(self, connection: Writer, places: Places) -> None:
        """Write places in the transaction under way. Raises FencedOff when another process moved one."""
        assert self._written is not None
        self._tried = {at: place.next_offset for at, place in places.items()}
        known = {at: place for at, place in places.items() if at in self._written}
        moved = connection.execute(
            "UPDATE checkpoints SET next_offset = new.next_offset, last_hash = new.last_hash, topic_id = new.topic_id"
            " FROM unnest(%s::text[], %s::integer[], %s::bigint[], %s::bytea[], %s::text[], %s::bigint[])"
            " AS new (topic, partition, next_offset, last_hash, topic_id, expected)"
            " WHERE checkpoints.topic = new.topic AND checkpoints.partition = new.partition"
            " AND checkpoints.next_offset = new.expected",
            [*self._columns(known), [self._written[at] for at in known]],
        ).rowcount
        fresh = {at: place for at, place in places.items() if at not in self._written}
        made = connection.execute(
            "INSERT INTO checkpoints (topic, partition, next_offset, last_hash, topic_id, whole)"
            " SELECT * FROM unnest(%s::text[], %s::integer[], %s::bigint[], %s::bytea[], %s::text[], %s::boolean[])"
            " ON CONFLICT DO NOTHING",
            [*self._columns(fresh), [self.whole[at] for at in fresh]],
        ).rowcount
        if moved != len(known) or made != len(fresh):
            raise FencedOff(_sentence(places))

    def committed(self) -> None:
        """The transaction of the last `move` is in PostgreSQL."""
        assert self._written is not None
        self._written.update(self._tried)
        self._tried = {}

    def see_first(self, at: TopicPartition, offset: int) -> None:
        """A record was read: the first of a partition without a checkpoint tells whether the log still begins at 0."""
        if at not in self.whole:
            self.whole[at] = offset == 0

    def lose(self, connection: Writer, at: TopicPartition) -> None:
        """Records of the partition expired before they were read."""
        connection.execute(
            "UPDATE checkpoints SET whole = false WHERE topic = %s AND partition = %s", [at.topic, at.partition]
        )
        self.whole[at] = False

    def _columns(self, places: Places) -> list[list[object]]:
        return [
            [at.topic for at in places],
            [at.partition for at in places],
            [place.next_offset for place in places.values()],
            [place.last_hash for place in places.values()],
            [self._topic_ids.get(at.topic, "") for at in places],
        ]


def known_topic_ids(connection: Writer) -> dict[str, str]:
    """The incarnation of each topic that the stored checkpoints belong to."""
    found = connection.execute("SELECT DISTINCT topic, topic_id FROM checkpoints WHERE topic_id <> ''").fetchall()
    return dict(found)


def _sentence(places: Iterable[TopicPartition]) -> str:
    named = ", ".join(f"{at.topic}/{at.partition}" for at in places)
    return f"another projector moved a checkpoint of {named}: this process stops applying"
