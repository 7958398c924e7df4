"""Uses that were not counted: which record, what it claims, and why it waits."""

import re
from typing import Final

from psycopg import Connection, sql
from psycopg.rows import DictRow

from schemas.topics import EXTERNAL_USAGE, USAGE
from services.projector.lists import Page, cut
from services.projector.parameters import Parameters, from_cursor

_PLACE: Final = ("sent_ms", "topic", "partition", "offset")
_SHAPES: Final = (int, re.compile(f"{USAGE}|{EXTERNAL_USAGE}"), int, int)
_QUARANTINED: Final = sql.SQL("""
    SELECT topic, partition, "offset", reason, source, id, org_id, key_id, outcome, count, last_at, sent_ms
    FROM usage_quarantine WHERE {whose} {after}
    ORDER BY sent_ms DESC, topic DESC, partition DESC, "offset" DESC LIMIT %(most)s
""")
_OF_ORG: Final = sql.SQL("org_id = %(org)s")
_AFTER: Final = sql.SQL("""
    AND (sent_ms, topic, partition, "offset")
        < (%(after_sent_ms)s, %(after_topic)s, %(after_partition)s, %(after_offset)s)
""")


def of(connection: Connection[DictRow], org: str | None, query: Parameters) -> Page:
    """The quarantined uses that name this organisation, or all where None, last sent first.

    Raises Problem 400 for a bad cursor.
    """
    place = from_cursor(query.cursor, _SHAPES)
    values = {"org": org, "most": query.limit + 1}
    values |= {f"after_{name}": value for name, value in zip(_PLACE, place or (), strict=False)}
    whose = sql.SQL("true") if org is None else _OF_ORG
    composed = _QUARANTINED.format(whose=whose, after=sql.SQL("") if place is None else _AFTER)
    rows = connection.execute(composed, values).fetchall()
    return cut(rows, query.limit, lambda last: [last[name] for name in _PLACE])
