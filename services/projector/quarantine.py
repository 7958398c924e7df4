"""The table `usage_quarantine`: uses that were not counted, and those that are after all, once their key has a row."""

from collections import Counter
from collections.abc import Collection
from typing import Final

import structlog
from psycopg import sql

from schemas.decoder import UsageDocument, decode_usage
from services.ledger.records import Record
from services.projector.database import Writer
from services.projector.key_births import KeyBirths, OrgKey
from services.projector.read_models.rows import GUILTY, replace, transposed, upsert
from services.projector.read_models.usage import UsageRows

WAITING: Final = "waiting"
FUTURE: Final = "future"
BEFORE_CREATION: Final = "before_creation"
KEYLESS: Final = (WAITING, "unknown_key", "wrong_org")
_AT_ONCE: Final = 5000
_COLUMNS: Final = {
    "topic": "text",
    "partition": "integer",
    "offset": "bigint",
    "reason": "text",
    "source": "text",
    "id": "text",
    "org_id": "text",
    "key_id": "text",
    "outcome": "text",
    "count": "bigint",
    "last_at": "text",
    "sent_ms": "bigint",
    "value": "bytea",
}
_READY: Final = (
    "SELECT DISTINCT org_id, key_id FROM usage_quarantine JOIN keys USING (org_id, key_id) WHERE reason = ANY (%s)"
)
# In one order, so that two of us never wait for each other in a ring. A row is gone, or back, for one of us only.
_TAKE: Final = sql.SQL("""
    WITH found AS (
        SELECT topic, partition, "offset", created_at, user_id FROM usage_quarantine AS held
        JOIN keys USING (org_id, key_id) JOIN unnest(%s::text[], %s::text[]) AS wanted (org_id, key_id) USING (org_id, key_id)
        WHERE reason IN ('waiting', 'unknown_key', 'wrong_org')
        ORDER BY topic, partition, "offset" LIMIT %s FOR UPDATE OF held
    )
    DELETE FROM usage_quarantine AS held USING found
    WHERE held.topic = found.topic AND held.partition = found.partition AND held."offset" = found."offset"
    RETURNING {columns}, found.created_at, found.user_id
""").format(columns=sql.SQL(", ").join(sql.Identifier("held", name) for name in _COLUMNS))
_log = structlog.get_logger("keyledger.projector")


class Held:
    """The records of one batch that are not counted, each with the reason."""

    def __init__(self) -> None:
        self._rows: list[tuple[object, ...]] = []
        self.counts: Counter[str] = Counter()

    def add(self, record: Record, document: UsageDocument, reason: str) -> None:
        """Take one in."""
        used = document.data
        place = (record.topic, record.partition, record.offset)
        told = (document.source, document.id, used.org_id, used.key_id, used.outcome, used.count, used.last_at)
        self._rows.append((*place, reason, *told, record.time_ms, record.value))
        self.counts[reason] += 1

    def write(self, session: Writer) -> None:
        """Raises psycopg.Error."""
        # Where a topic was made again, its places are taken by other records.
        anew = replace(list(_COLUMNS)[3:])
        upsert(session, "usage_quarantine", _COLUMNS, self._rows, key=list(_COLUMNS)[:3], update=anew)


def ready(session: Writer) -> list[OrgKey]:
    """The keys that have a row, and uses that are held because they had none. Raises psycopg.Error."""
    return session.execute(_READY, [list(KEYLESS)]).fetchall()


def release(session: Writer, births: KeyBirths, keys: Collection[OrgKey]) -> Counter[str]:
    """Count the uses of these keys that were held only because the key had no row, where it has one now.

    A use from before the key was created stays, with that reason. To be called in a transaction. Counts by what became
    of them. Raises psycopg.Error.
    """
    try:
        return _release(session, births, keys) if keys else Counter()
    except GUILTY as error:
        if len(keys) > 1:
            return sum((release(session, births, [key]) for key in keys), Counter())
        # As with every use: one that cannot be added up, such as 2^63 of them, is in nobody's way.
        _log.error("not_released", why=str(error), keys=list(keys))
        return Counter()


def release_apart(session: Writer, births: KeyBirths, keys: Collection[OrgKey]) -> Counter[str]:
    """The same in a transaction of its own. Raises psycopg.Error."""
    with session.transaction():
        # As every projector does first: a rebuild that compares holds this table.
        session.execute("LOCK TABLE checkpoints IN ROW EXCLUSIVE MODE")
        return release(session, births, keys)


def _release(session: Writer, births: KeyBirths, keys: Collection[OrgKey]) -> Counter[str]:
    counts: Counter[str] = Counter()
    with session.transaction():
        while taken := session.execute(_TAKE, [*transposed(keys), _AT_ONCE]).fetchall():
            rows, back = UsageRows(), []
            for *row, created_at, user in taken:
                envelope = decode_usage(row[-1])
                if envelope.event.first_at < births.earliest(created_at):
                    back.append((*row[:3], BEFORE_CREATION, *row[4:]))
                else:
                    rows.add(envelope.event, envelope.source, user)
            rows.write(session)
            upsert(session, "usage_quarantine", _COLUMNS, back, key=list(_COLUMNS)[:3], update=None)
            counts += Counter({"released": len(taken) - len(back), BEFORE_CREATION: len(back)})
    return counts
