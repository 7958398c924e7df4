"""A rebuild: all tables made again from the log in a schema beside the live one, compared, switched.

The live projectors go on meanwhile. The rebuilt tables never get ahead of theirs, and twice the live ones are held for a
moment, until the rebuilt ones stand at exactly the same places: the first time for a snapshot, in which the two are
compared at leisure; the second time the schemas change names. A live projector then finds its own checkpoints in the
new tables, and goes on. The tables from before are kept for `services.projector.rollback`.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Final, Protocol

import psycopg

from schemas.times import EARLIEST_MS, LATEST_MS, to_text
from schemas.topics import LIFECYCLE, PARTITIONS
from services.ledger.log import LogUnavailable, Reader
from services.ledger.records import Batch, Place, Places, Record, TopicPartition, value_hash
from services.ledger.seal import LedgerKeys
from services.projector.carry_over import carry_over_notes, carry_over_uses
from services.projector.checkpoints import Checkpoints
from services.projector.comparison import compare, worse_orgs
from services.projector.database import OLD, SCHEMA, Writer, make_tables
from services.projector.key_births import KeyBirths
from services.projector.progress import Progress
from services.projector.projector import PROJECTED, TOLERANCE_MS, Projector
from services.projector.quarantine import ready, release
from services.projector.read_models.usage import hour_of

REBUILT: Final = "read_new"
_LOCK: Final = 0x6B6C_7262
_ALL: Final = tuple(TopicPartition(topic, partition) for topic in PROJECTED for partition in range(PARTITIONS))
_NEAR: Final = 1000
"""So many records behind the live projectors they may be held until we are where they are."""
_ATTEMPTS: Final = 30
_SHOWN: Final = 3
_AGAIN_AFTER_S: Final = 1.0
_ASK_S: Final = 10.0
_SILENCE_S: Final = 60.0
_POLL_MS: Final = 100


class Records(Protocol):
    """What a rebuild needs of a Log, and how that is called there."""

    def reader(self, offsets: Mapping[TopicPartition, int]) -> Reader:
        """See Log."""

    def first_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        """See Log."""

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        """See Log."""


class CannotRebuild(Exception):
    """The live tables are as they were; the message is one sentence that says why."""


class RowsDiffer(CannotRebuild):
    """The rebuilt tables are not the live ones."""


class AnotherRebuild(CannotRebuild):
    """One is at work already."""


class Rebuild:
    """`connect` opens a session on the tables of a schema; `forget` cuts what is old in those of a session."""

    def __init__(
        self,
        connect: Callable[[str], Writer],
        log: Records,
        keys: LedgerKeys,
        topic_ids: Mapping[str, str],
        forget: Callable[[Writer], None],
        progress: Progress,
        tolerance_ms: int = TOLERANCE_MS,
    ) -> None:
        self._connect, self._log, self._keys, self._topic_ids = connect, log, keys, topic_ids
        self._forget, self._progress = forget, progress
        self._tolerance_ms = tolerance_ms
        self._first: dict[TopicPartition, int] = {}
        self._oldest_ms: dict[TopicPartition, int] = {}

    def run(self, accept_differences: bool) -> None:
        """Make the tables again and switch. Raises CannotRebuild, LogUnavailable and psycopg.Error."""
        with closing(self._connect(SCHEMA)) as live, closing(self._connect(REBUILT)) as session:
            make_tables(live)
            _begin_anew(session)
            self._first = self._retained(places(live))
            self._come_near(live)
            self._progress.doing("cutting old addresses")
            self._forget(session)
            with self._level(live):
                self._complete(session)
                session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                session.execute("SELECT 1")  # Only this takes the snapshot.
            differing = compare(session, SCHEMA, REBUILT, self._progress)
            worse = worse_orgs(session, SCHEMA, REBUILT)
            session.execute("COMMIT")
            for sentence in worse:
                self._progress.say(f"  {sentence}")
            if differing and not accept_differences:
                shown = "".join(f"; {sentence}" for sentence in worse[:_SHOWN])
                raise RowsDiffer(
                    f"{differing} rows differ{shown}, so the live tables were kept: look at the rebuilt ones in the schema"
                    f" {REBUILT}, then rebuild again with --accept-differences"
                )
            self._switch(live, session)
            self._progress.say(f"switched to the rebuilt tables; {differing} rows were not the same before")

    def _retained(self, live: Places) -> dict[TopicPartition, int]:
        """The offset of the first record of each partition."""
        first = self._log.first_offsets(_ALL, _ASK_S)
        ends = self._log.end_offsets(_ALL, _ASK_S)
        for at in _ALL:
            next_offset = live.get(at, Place()).next_offset
            if (at.topic == LIFECYCLE and first[at]) or next_offset > ends[at]:
                raise CannotRebuild(
                    f"{at.topic}/{at.partition} holds offsets {first[at]} to {ends[at]}, and the next one of the live tables"
                    f' is {next_offset}, so history is missing: see "The log was cut" in docs/operations.md'
                )
        return first

    def _come_near(self, live: Writer) -> None:
        while self._project_to(places(live)) > _NEAR:
            pass  # Meanwhile the live tables have moved on.

    @contextmanager
    def _level(self, live: Writer) -> Iterator[None]:
        """Hold the live projectors, whose transactions all begin with `checkpoints`, with both schemas at one place."""
        with live.transaction():
            live.execute("LOCK TABLE checkpoints IN SHARE ROW EXCLUSIVE MODE")
            self._project_to(places(live))
            yield

    def _project_to(self, targets: Places) -> int:
        """Project what stands before these places; how many offsets that were."""
        keys, checkpoints = self._keys, Checkpoints(_ALL, self._topic_ids)
        connect = functools.partial(self._connect, REBUILT)
        projecting = Projector(connect, keys, checkpoints, range(PARTITIONS), tolerance_ms=self._tolerance_ms)
        with closing(projecting) as projector:
            made = projector.resume_from()
            starts = {at: max(self._first[at], made.get(at, Place()).next_offset) for at in targets}
            left = {at: target for at, target in targets.items() if starts[at] < target.next_offset}
            total = sum(target.next_offset - starts[at] for at, target in left.items())
            for at in left:
                checkpoints.see_first(at, self._first[at])
            if left:
                with closing(self._log.reader({at: starts[at] for at in left})) as reader:
                    self._project(reader, left, projector, total)
        return total

    def _project(self, reader: Reader, left: Places, projector: Projector, total: int) -> None:
        done, heard_at = 0, time.monotonic()
        self._progress.doing("projecting", total)
        while left:
            polled = reader.poll(_POLL_MS)
            records = [record for record in polled if record.offset < left.get(record.at, Place()).next_offset]
            if records:
                batch = _batch(records)
                projector.apply(batch)
                done, heard_at = done + len(records), time.monotonic()
                self._progress.done(done)
                for record in records:
                    self._oldest_ms.setdefault(record.at, record.time_ms)
                left = _behind(left, batch.places)
                continue
            # The last offsets before a target may hold no record, as where the archive leaves foreign ones out.
            stands = reader.positions()
            passed = {at: target for at, target in left.items() if stands[at] >= target.next_offset}
            if passed:
                projector.apply(Batch((), passed))
                left = _behind(left, passed)
            elif time.monotonic() > heard_at + _SILENCE_S:
                raise LogUnavailable(f"no record came for {_SILENCE_S:.0f} s, {total - done} are still to be read")

    def _complete(self, session: Writer) -> None:
        """Take over what only the live tables know, and bring what is released or forgotten later on to the same state in
        both schemas.
        """
        self._progress.doing("taking over what has left the log")
        trimmed = {at: self._first[at] for at in _ALL if self._first[at]}
        oldest_ms = max((self._oldest_ms.get(at, LATEST_MS) for at in trimmed), default=0)
        hour = hour_of(to_text(min(max(oldest_ms + self._tolerance_ms, EARLIEST_MS), LATEST_MS)))
        for schema in (REBUILT, SCHEMA):
            with session.transaction():
                session.execute(f"SET LOCAL search_path TO {schema}")
                release(session, KeyBirths(self._tolerance_ms), ready(session))
                self._forget(session)
        carry_over_uses(session, SCHEMA, REBUILT, trimmed, hour)
        carry_over_notes(session, SCHEMA, REBUILT)

    def _switch(self, live: Writer, session: Writer) -> None:
        for _ in range(_ATTEMPTS):
            self._come_near(live)
            try:
                with self._level(live):
                    carry_over_notes(session, SCHEMA, REBUILT)
                    # Every read begins with `heads`. Once it is ours none is under way; those that come wait, and find
                    # the new tables. A long one is not waited for, because all others would wait with us.
                    live.execute("SET LOCAL lock_timeout = '500ms'")
                    live.execute("LOCK TABLE heads IN ACCESS EXCLUSIVE MODE")
                    live.execute(f"ALTER SCHEMA {SCHEMA} RENAME TO {OLD}")
                    live.execute(f"ALTER SCHEMA {REBUILT} RENAME TO {SCHEMA}")
                return
            except psycopg.errors.LockNotAvailable:
                self._progress.doing("waiting for a long read of the table heads")
                time.sleep(_AGAIN_AFTER_S)
        raise CannotRebuild(
            f"a session has been reading the table {SCHEMA}.heads all the time, so nothing was switched: end it (pg_locks"
            " names it), then rebuild again"
        )


def alone(session: Writer) -> None:
    """Hold the lock of rebuilds and of all else that renames schemas, until the session ends. Raises AnotherRebuild."""
    session.execute("SET lock_timeout = '5s'")
    try:
        session.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    except psycopg.errors.LockNotAvailable as error:
        raise AnotherRebuild("another rebuild is at work on this database") from error
    session.execute("RESET lock_timeout")


def places(session: Writer) -> Places:
    """Where the tables of a session stand. Raises psycopg.Error."""
    found = session.execute("SELECT topic, partition, next_offset, last_hash FROM checkpoints").fetchall()
    return {TopicPartition(topic, partition): Place(*place) for topic, partition, *place in found}


def _begin_anew(session: Writer) -> None:
    """Make empty tables, alone."""
    session.execute("SET client_connection_check_interval = '1s'")  # When we are killed, our statements end too.
    alone(session)
    session.execute(f"DROP SCHEMA IF EXISTS {REBUILT}, {OLD} CASCADE")
    make_tables(session, REBUILT)


def _behind(left: Places, reached: Places) -> Places:
    """The targets that are not reached yet."""
    return {at: target for at, target in left.items() if reached.get(at, Place()).next_offset < target.next_offset}


def _batch(records: Sequence[Record]) -> Batch:
    last = {record.at: record for record in records}
    return Batch(tuple(records), {at: Place(record.offset + 1, value_hash(record)) for at, record in last.items()})
