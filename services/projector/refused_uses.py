"""Uses that were refused, such as those of a revoked key that somebody goes on trying: which key, from where, how often."""

import re
from dataclasses import asdict
from typing import Final

from psycopg import Connection, sql
from psycopg.rows import DictRow

from schemas.fields import ID
from schemas.times import SHAPE
from services.projector.key_uses import Period, Whose
from services.projector.lists import Page, cut
from services.projector.parameters import ANY_REFUSAL, REFUSALS, Parameters, from_cursor

_PLACE: Final = ("last_at", "key_id", "outcome", "ip")
_SHAPES: Final = tuple(map(re.compile, (SHAPE, ID, "[A-Z_]{1,20}", "[0-9A-Za-z:./]{0,64}")))
# A page is cut before anything is looked up for it. A use can overtake the creation of its key: then there is no name yet.
_TRIED: Final = sql.SQL("""
    SELECT
        tried.key_id, keys.name, COALESCE(keys.user_id, tried.user_id) AS user_id, person.name AS owner_name,
        tried.outcome, tried.ip, tried.count, tried.first_at, tried.last_at
    FROM (
        SELECT
            key_id, outcome, ip, max(user_id) AS user_id,
            sum(count)::bigint AS count, min(first_at) AS first_at, max(last_at) AS last_at
        FROM key_usage_hours
        WHERE {whose} AND outcome <> 'VALID' AND outcome = ANY (%(outcomes)s) AND hour >= %(from)s AND hour < %(to)s
        GROUP BY key_id, outcome, ip {after} {order} LIMIT %(most)s
    ) AS tried
    LEFT JOIN keys ON keys.org_id = %(org)s AND keys.key_id = tried.key_id
    LEFT JOIN {people} AS person
        ON person.org_id = %(org)s AND person.user_id = COALESCE(keys.user_id, tried.user_id) COLLATE "default"
    {order}
""")
_ORDER: Final = sql.SQL("ORDER BY last_at DESC, key_id DESC, outcome DESC, ip DESC")
_AFTER: Final = sql.SQL("""
    HAVING (max(last_at), key_id, outcome, ip)
        < (%(after_last_at)s, %(after_key_id)s, %(after_outcome)s, %(after_ip)s)
""")


def of(connection: Connection[DictRow], people: sql.SQL, whose: Whose, query: Parameters, asked: Period) -> Page:
    """The refused uses of a period by key, outcome and address, last tried first; `people` is the table with the names.

    Raises Problem 400 for a bad cursor.
    """
    place = from_cursor(query.cursor, _SHAPES)
    outcomes = list(REFUSALS) if query.outcome == ANY_REFUSAL else [query.outcome]
    values = asdict(whose) | {"outcomes": outcomes, "from": asked.start, "to": asked.end, "most": query.limit + 1}
    values |= {f"after_{name}": value for name, value in zip(_PLACE, place or (), strict=False)}
    after = sql.SQL("") if place is None else _AFTER
    composed = _TRIED.format(whose=whose.condition, after=after, people=people, order=_ORDER)
    rows = connection.execute(composed, values).fetchall()
    return cut(rows, query.limit, lambda last: [last[name] for name in _PLACE])
