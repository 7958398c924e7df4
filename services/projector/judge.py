"""Judges the uses of keys that have no row: whether there is no such key, or one of another organisation.

Neither is known before lifecycle was followed, by whichever process, to the ends that were asked for after the record of
the use was read. Whatever is judged wrongly, or appears later, is counted as soon as its key has a row.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import psycopg
import structlog

from schemas.topics import LIFECYCLE, PARTITIONS
from services.ledger.log import Log, LogUnavailable
from services.ledger.records import TopicPartition
from services.projector.database import Writer
from services.projector.key_births import KeyBirths, OrgKey
from services.projector.quarantine import release
from services.projector.read_models.rows import transposed

EVERY_S: Final = 1.0
_MOST: Final = 5000
_ASK_S: Final = 5.0
_LIFECYCLE: Final = tuple(TopicPartition(LIFECYCLE, number) for number in range(PARTITIONS))
_WAITING: Final = """
    SELECT topic, partition, "offset", org_id, key_id FROM usage_quarantine WHERE reason = 'waiting' AND partition = ANY (%s)
    ORDER BY topic, partition, "offset" LIMIT %s
"""
_FOLLOWED: Final = "SELECT partition, next_offset FROM checkpoints WHERE topic = %s"
# In the order in which a release takes them, so that the two never wait for each other in a ring.
_SETTLE: Final = """
    WITH found AS (
        SELECT topic, partition, "offset" FROM usage_quarantine
        JOIN unnest(%s::text[], %s::integer[], %s::bigint[]) AS due (topic, partition, "offset")
        USING (topic, partition, "offset")
        WHERE reason = 'waiting' ORDER BY topic, partition, "offset" FOR UPDATE OF usage_quarantine
    )
    UPDATE usage_quarantine AS held SET reason = CASE
        WHEN EXISTS (SELECT FROM keys WHERE keys.key_id = held.key_id) THEN 'wrong_org' ELSE 'unknown_key' END
    FROM found
    WHERE held.topic = found.topic AND held.partition = found.partition AND held."offset" = found."offset"
"""
_log = structlog.get_logger("keyledger.projector")


class _Due(NamedTuple):
    """Places of records, their keys, and the ends of lifecycle that were asked for after they were read."""

    places: list[tuple[str, int, int]]
    keys: set[OrgKey]
    ends: dict[TopicPartition, int]


class Judge:
    """Judges the uses on some partitions. `connect` opens a session of its own; another one may do the same meanwhile.

    `counts` are by what became of those that were counted after all, for metrics.
    """

    def __init__(self, connect: Callable[[], Writer], log: Log, partitions: Sequence[int], tolerance_ms: int) -> None:
        self._connect, self._log, self._partitions = connect, log, list(partitions)
        self._births = KeyBirths(tolerance_ms)
        self._due: _Due | None = None
        self.counts: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the thread."""
        self._stopping.set()
        self._thread.join()

    def look(self, session: Writer) -> None:
        """Take the next step, if one can be taken. Raises LogUnavailable and psycopg.Error."""
        if self._due is None:
            found = session.execute(_WAITING, [self._partitions, _MOST]).fetchall()
            if not found:
                return
            ends = self._log.end_offsets(_LIFECYCLE, _ASK_S)
            self._due = _Due([row[:3] for row in found], {row[3:] for row in found}, ends)
        followed: dict[int, int] = dict(session.execute(_FOLLOWED, [LIFECYCLE]).fetchall())
        if any(followed.get(at.partition, 0) < end for at, end in self._due.ends.items()):
            return
        with session.transaction():
            # As every projector does first: a rebuild that compares holds this table.
            session.execute("LOCK TABLE checkpoints IN ROW EXCLUSIVE MODE")
            # First those whose key was made while they were being read: nobody else looks for these.
            self.counts += release(session, self._births, self._due.keys)
            session.execute(_SETTLE, transposed(self._due.places))
        self._due = None

    def _run(self) -> None:
        session: Writer | None = None
        while not self._stopping.wait(EVERY_S):
            try:
                if session is None or session.broken:
                    session = self._connect()
                self.look(session)
            except (LogUnavailable, psycopg.Error) as error:
                _log.warning("not_judged_yet", error=str(error))
        if session is not None:
            session.close()
