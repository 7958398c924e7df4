"""The projector's tables after a restore: where its places do not fit the log any more, they are emptied, so that it projects anew.

The archive is not thrown away but put into a schema of its own. All this only while no projector runs.
"""

from collections.abc import Mapping
from typing import Final

from psycopg import sql

from schemas.topics import LIFECYCLE, PARTITIONS
from services.auditor.checkpoints import Session
from services.ledger.records import Place

_LOCKS: Final = 0x6B6C_7072
"""As in services.projector.locks: who holds all of them is the only projector."""
_TRY: Final = "SELECT bool_and(pg_try_advisory_lock(%s, partition)) FROM generate_series(0, %s) AS partition"
_EMPTY: Final = """
    CREATE SCHEMA {kept};
    ALTER TABLE read.ledger_records SET SCHEMA {kept};
    TRUNCATE read.heads, read.halting_records, read.waiting_events, read.orgs, read.users, read.keys;
    DELETE FROM read.checkpoints WHERE topic IN ({topics})
"""


class ReadTables:
    """What the projector's tables say about the log. Raises psycopg.Error."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.places: dict[int, Place] = {}
        self.topic_ids: dict[str, str] = {}
        if session.execute("SELECT to_regclass('read.checkpoints') IS NULL").fetchone() == (True,):
            return
        found = session.execute("SELECT topic, topic_id, partition, next_offset, last_hash FROM read.checkpoints")
        for topic, topic_id, partition, next_offset, last_hash in found:
            self.topic_ids[topic] = topic_id
            if topic == LIFECYCLE and next_offset > 0:
                self.places[partition] = Place(next_offset, last_hash)

    def made_again(self, ids: Mapping[str, str]) -> list[str]:
        """The topics that the projector knows by another id than they have now."""
        return sorted(topic for topic, known in self.topic_ids.items() if known and known != ids.get(topic, known))

    def keep_projectors_away(self) -> bool:
        """Take the locks of all partitions, for as long as the session lives; False when a projector has one."""
        return self._session.execute(_TRY, [_LOCKS, PARTITIONS - 1]).fetchone() == (True,)

    def empty(self, topics: list[str], name: str) -> None:
        """Begin the fold of `key-lifecycle`, and the places in these topics, anew; the archive goes to the schema `name`."""
        with self._session.transaction():
            self._session.execute(
                sql.SQL(_EMPTY).format(
                    kept=sql.Identifier(name), topics=sql.SQL(", ").join(map(sql.Literal, {*topics, LIFECYCLE}))
                )
            )
