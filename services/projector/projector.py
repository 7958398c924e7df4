"""The handler that projects batches of records into PostgreSQL: rows, archive and checkpoints in one transaction."""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

import psycopg
import structlog

from schemas.topics import EXTERNAL_USAGE, LIFECYCLE, USAGE
from services.ledger.log import LogWasCut
from services.ledger.records import Batch, Place, Places, Record, TopicPartition, value_hash
from services.ledger.seal import LedgerKeys
from services.projector.checkpoints import Checkpoints, FencedOff
from services.projector.database import Writer
from services.projector.key_births import KeyBirths, OrgKey
from services.projector.lifecycle_batch import LifecycleBatch
from services.projector.locks import PartitionsHeld
from services.projector.quarantine import ready, release_apart
from services.projector.read_models.lifecycle import CarefulFold, LifecycleFold
from services.projector.read_models.rows import GUILTY
from services.projector.usage_batch import UsageBatch

PROJECTED: Final = (LIFECYCLE, USAGE, EXTERNAL_USAGE)
MOST_RECORDS: Final = 10_000
"""In one batch: the more there are, the more uses are of the same key and hour, and the fewer commits are waited for."""
TOLERANCE_MS: Final = 300_000
"""By how much the clocks of senders and of the ledger may disagree, where nothing else is configured."""
_log = structlog.get_logger("keyledger.projector")


class Projector:
    """A Handler (services.ledger.follow). `connect` opens a session, `hold_locks` makes sure that this process may write
    and raises when it may not. `counts` are what was projected by this process, for metrics; `stopped` says why this process
    must end: another one writes the same partitions.
    """

    def __init__(
        self,
        connect: Callable[[], Writer],
        keys: LedgerKeys,
        checkpoints: Checkpoints,
        partitions: Sequence[int],
        hold_locks: Callable[[], None] = lambda: None,
        tolerance_ms: int = TOLERANCE_MS,
    ) -> None:
        self._connect, self._keys, self._checkpoints = connect, keys, checkpoints
        self._partitions, self._hold_locks = list(partitions), hold_locks
        self._tolerance_ms, self._births = tolerance_ms, KeyBirths(tolerance_ms)
        self._session: Writer | None = None
        self._is_first_resume = True
        self.stopped: Exception | None = None
        self.counts: Counter[str] = Counter()

    def resume_from(self) -> Places:
        """See Handler; at the first time, halted organisations are folded anew: this software may know more.

        A failure may have kept uses from being released after their key was made, so it is done now.
        """
        with self._only_one():
            session = self._open()
            places = self._checkpoints.read(session)
        if self._is_first_resume:
            self._retry_halted(session)
            self._is_first_resume = False
        self._births.forget()
        self._release(session, ready(session))
        return places

    def apply(self, batch: Batch) -> None:
        """See Handler. A value that PostgreSQL refuses is looked for record by record, and halts its organisation."""
        with self._only_one():
            try:
                self._apply(batch, LifecycleFold)
            except GUILTY as error:
                self._births.forget()
                _log.warning("one_by_one", records=len(batch.records), error=str(error))
                for record in batch.records:
                    self._apply_alone(record)
        self.counts["batches"] += 1

    def log_was_cut(self, why: str) -> None:
        """See Handler: the archive may hold what the log lost, so nothing here is thrown away."""
        raise LogWasCut(
            f"{why}. Projecting has stopped; the read models are as they were, and read.ledger_records may hold what the log"
            ' lost. To restore, follow "The log was cut" in docs/operations.md.'
        )

    def lost(self, at: TopicPartition, next_offset: int, first_offset: int) -> None:
        """See Handler."""
        _log.error("usage_lost", topic=at.topic, partition=at.partition, records=first_offset - next_offset)
        session = self._open()
        with session.transaction():
            session.execute(
                "INSERT INTO usage_losses VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [*at, next_offset, first_offset],
            )
            self._checkpoints.lose(session, at)
        self.counts["lost"] += first_offset - next_offset

    def close(self) -> None:
        """Let go of the session."""
        if self._session is not None:
            with contextlib.suppress(psycopg.Error):
                self._session.close()
            self._session = None

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        """Write only while no other process does; once another did, never again."""
        if self.stopped is not None:
            raise self.stopped
        try:
            self._hold_locks()
            yield
        except (PartitionsHeld, FencedOff) as error:
            self.stopped = error
            raise

    def _apply(self, batch: Batch, fold: type[LifecycleFold]) -> None:
        session = self._open()
        counts: Counter[str] = Counter()
        created: set[OrgKey] = set()
        for (topic, partition), offset in _first_offsets(batch.records).items():
            self._checkpoints.see_first(TopicPartition(topic, partition), offset)
        with session.transaction():
            # First of all: it locks the rows, so that of two processes one waits here and then fails.
            self._checkpoints.move(session, batch.places)
            lifecycle = [record for record in batch.records if record.topic == LIFECYCLE]
            if lifecycle:
                projected = LifecycleBatch(session, self._keys, fold)
                counts += projected.project(lifecycle)
                created = projected.created
            usage = [record for record in batch.records if record.topic != LIFECYCLE]
            if usage:
                counts += UsageBatch(session, self._births, self._tolerance_ms).project(usage, self._checkpoints.whole)
        self._checkpoints.committed()
        self.counts += counts
        # Apart from the events, so that no use can get in their way.
        self._release(session, created)

    def _release(self, session: Writer, keys: Collection[OrgKey]) -> None:
        if keys:
            self.counts += release_apart(session, self._births, keys)

    def _apply_alone(self, record: Record) -> None:
        places = {record.at: Place(record.offset + 1, value_hash(record))}
        try:
            self._apply(Batch((record,), places), CarefulFold)
        except GUILTY as error:
            if record.topic == LIFECYCLE:
                raise
            # Nothing depends on a use, so one that cannot be added up, such as 2^63 of them, is passed over.
            _log.error("foreign", why=str(error), topic=record.topic, partition=record.partition, offset=record.offset)
            self._apply(Batch((), places), CarefulFold)
            self.counts["foreign"] += 1

    def _retry_halted(self, session: Writer) -> None:
        found = session.execute(
            "SELECT org_id FROM heads WHERE halt_why IS NOT NULL AND partition = ANY (%s)", [self._partitions]
        ).fetchall()
        for (org,) in found:
            with session.transaction():
                LifecycleBatch(session, self._keys, CarefulFold).retry(org)

    def _open(self) -> Writer:
        if self._session is not None and self._session.broken:
            self.close()
        if self._session is None:
            self._session = self._connect()
        return self._session


def _first_offsets(records: Sequence[Record]) -> dict[tuple[str, int], int]:
    return {(record.topic, record.partition): record.offset for record in reversed(records)}
