"""Where the projectors stand: how far each partition is behind the log, who works on it, and what was not counted.

It is asked of PostgreSQL and of the log, so it is true whatever the projectors say, or do not say any more.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Final, NamedTuple

import msgspec

from schemas.times import Clock
from schemas.topics import PARTITIONS
from services.ledger.log import Log
from services.ledger.records import TopicPartition
from services.projector.database import Writer
from services.projector.locks import holders
from services.projector.projector import PROJECTED

_ALL: Final = tuple(TopicPartition(topic, partition) for topic in PROJECTED for partition in range(PARTITIONS))
_ASK_S: Final = 10.0
_READ_S: Final = 10.0
_POLL_MS: Final = 100
Offsets = Mapping[TopicPartition, int]


class PartitionStanding(msgspec.Struct, frozen=True, kw_only=True):
    """`behind` records are not in the tables; the oldest of them was written `behind_s` ago, None when the log did not give
    it in time. What was appended and projected is told per second; `held_by` is the projector's session.
    """

    topic: str
    partition: int
    next_offset: int
    end_offset: int
    behind: int
    behind_s: float | None
    appended_per_s: float
    projected_per_s: float
    held_by: str | None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """`quarantine` counts records by reason, `gaps` ranges of numbers that never came and `missing` the numbers in them,
    `expired` usage records that left the log unread. `wrong` is what somebody must see to, a sentence each.
    """

    partitions: list[PartitionStanding]
    quarantine: dict[str, int]
    gaps: int
    missing: int
    expired: int
    orgs_halted: int
    wrong: list[str]


class _Sample(NamedTuple):
    at_s: float
    ends: Offsets
    next: Offsets


def standing(
    session: Writer,
    log: Log,
    clock: Clock,
    over_s: float,
    most_behind_s: float,
    pause: Callable[[float], None] = time.sleep,
) -> Standing:
    """Look twice, with `over_s` seconds between, for the rates. To be more than `most_behind_s` behind is wrong.

    Raises LogUnavailable and psycopg.Error.
    """
    first = log.first_offsets(_ALL, _ASK_S)
    before = _sample(session, log, first)
    pause(over_s)
    after = _sample(session, log, first)
    waiting = {at: max(place, first[at]) for at, place in after.next.items() if place < after.ends[at]}
    written_ms = _oldest(log, waiting, after.ends)
    # Only after the tables were looked at: no record they lack can be younger than this.
    now_ms, elapsed_s = clock(), max(after.at_s - before.at_s, 0.001)
    held = holders(session)
    partitions = []
    for at in _ALL:
        # None: it could not be read. Absent: from there on the log holds only offsets without a record.
        oldest_ms = written_ms.get(at, now_ms)
        is_behind = at in written_ms
        partitions.append(
            PartitionStanding(
                topic=at.topic,
                partition=at.partition,
                next_offset=after.next[at],
                end_offset=after.ends[at],
                behind=after.ends[at] - waiting[at] if is_behind else 0,
                behind_s=None if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000,
                appended_per_s=(after.ends[at] - before.ends[at]) / elapsed_s,
                projected_per_s=(after.next[at] - before.next[at]) / elapsed_s,
                held_by=held.get(at.partition),
            )
        )
    return _judged(session, partitions, most_behind_s)


def _sample(session: Writer, log: Log, first: Offsets) -> _Sample:
    # The ends before the tables: whoever reached them is not behind, however much was appended since.
    ends = log.end_offsets(_ALL, _ASK_S)
    stored = session.execute("SELECT topic, partition, next_offset FROM checkpoints").fetchall()
    reached = {TopicPartition(topic, partition): next_offset for topic, partition, next_offset in stored}
    return _Sample(time.monotonic(), ends, {at: reached.get(at, first[at]) for at in _ALL})


def _oldest(log: Log, starts: Offsets, ends: Offsets) -> dict[TopicPartition, int | None]:
    """When the first record from each of these offsets on was written, in ms since 1970; partitions without one are left out."""
    found: dict[TopicPartition, int | None] = dict.fromkeys(starts)
    if not starts:
        return found
    give_up_s, unread = time.monotonic() + _READ_S, set(starts)
    with closing(log.reader(starts)) as reader:
        while unread and time.monotonic() < give_up_s:
            for record in reader.poll(_POLL_MS):
                if record.at in unread:
                    unread.remove(record.at)
                    found[record.at] = record.time_ms
            # A transaction of some producer leaves offsets behind that hold no record.
            for at in [at for at, offset in reader.positions().items() if at in unread and offset >= ends[at]]:
                unread.remove(at)
                del found[at]
    return found


def _judged(session: Writer, partitions: list[PartitionStanding], most_behind_s: float) -> Standing:
    quarantine = session.execute("SELECT reason, count(*) FROM usage_quarantine GROUP BY 1 ORDER BY 1").fetchall()
    [(gaps, missing)] = session.execute("SELECT count(*), COALESCE(sum(last - first + 1), 0) FROM usage_gaps")
    [(expired,)] = session.execute("SELECT COALESCE(sum(first_offset - next_offset), 0) FROM usage_losses")
    [(orgs_halted,)] = session.execute("SELECT count(*) FROM heads WHERE halt_why IS NOT NULL")
    wrong = list(_wrong(partitions, most_behind_s))
    if orgs_halted:
        wrong.append(f"{orgs_halted} organisations are halted")
    return Standing(
        partitions=partitions,
        quarantine=dict(quarantine),
        gaps=gaps,
        missing=int(missing),
        expired=int(expired),
        orgs_halted=orgs_halted,
        wrong=wrong,
    )


def _wrong(partitions: list[PartitionStanding], most_behind_s: float) -> Iterator[str]:
    idle = sorted({one.partition for one in partitions if one.held_by is None})
    if idle:
        yield f"no projector works on partitions {idle}"
    for one in partitions:
        if one.next_offset > one.end_offset:
            name = f"{one.topic}/{one.partition}"
            yield f"{name} was cut: the tables go on at {one.next_offset}, the log ends at {one.end_offset}"
    for topic in PROJECTED:
        late = [
            one for one in partitions if one.topic == topic and (one.behind_s is None or one.behind_s > most_behind_s)
        ]
        if late:
            records, longest_s = sum(one.behind for one in late), max(one.behind_s or 0 for one in late)
            yield f"{topic} is {records} records and {longest_s:.0f} s behind in {[one.partition for one in late]}"
