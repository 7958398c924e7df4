"""The lists of organisations, users and keys: which rows pass, in which order, and where a page goes on.

A page is cut on narrow rows first; only what is on it is counted and looked up.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import DictRow

from schemas.fields import ID, PLAIN_TEXT
from schemas.times import SHAPE
from services.projector.parameters import Parameters, from_cursor, to_cursor

Page = tuple[list[DictRow], str | None]
"""Rows, and the cursor of the next page."""
Filters = Mapping[str, sql.SQL | Mapping[Any, sql.SQL]]
"""By parameter: a condition on its value, or one condition for each of its values."""
_NONE: Final = sql.SQL("")
_TIME: Final = re.compile(f"(?:{SHAPE})?")
_ID: Final = re.compile(ID)


@dataclass(frozen=True, slots=True)
class _Sort:
    """An order: `place` is what rows are ordered by, then comes their id; `join` is what it takes to know the place."""

    name: str
    place: LiteralString
    shape: type[int] | re.Pattern[str] = _TIME
    ascending: bool = False
    join: LiteralString = ""


# What the column `state` of the view org_keys says, in the form that PostgreSQL has statistics and an index for.
_STATES: Final = {
    "active": sql.SQL("AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > (SELECT now_text()))"),
    "expired": sql.SQL("AND revoked_at IS NULL AND expires_at <= (SELECT now_text())"),
    "revoked": sql.SQL("AND revoked_at IS NOT NULL"),
    "all": _NONE,
}
_USED: Final = "EXISTS (SELECT FROM key_usage AS u WHERE (u.org_id, u.key_id) = (keys.org_id, keys.key_id) AND {})"
_KEY_FILTERS: Final[Filters] = {
    "state": _STATES,
    "owner": sql.SQL("AND user_id = %(owner)s"),
    "name": sql.SQL("AND name = %(name)s"),
    "unused_since": sql.SQL("AND NOT " + _USED.format("u.last_used_at >= %(unused_since)s")),
    "never_used": {
        True: sql.SQL("AND NOT " + _USED.format("u.last_used_at <> ''")),
        False: sql.SQL("AND " + _USED.format("u.last_used_at <> ''")),
    },
    "expires_before": sql.SQL("AND expires_at < %(expires_before)s"),
    "search": sql.SQL("""AND (
        has_part(keys.name, %(search)s) OR key_id = %(search)s OR user_id IN (
            SELECT user_id FROM {people} AS person
            WHERE person.org_id = %(org)s AND (has_part(person.name, %(search)s) OR has_part(person.email, %(search)s))
        )
    )"""),
}
_USER_FILTERS: Final[Filters] = {
    "kind": sql.SQL("AND users.kind = %(kind)s"),
    "status": {"all": _NONE}
    | dict.fromkeys(("active", "disabled", "erased"), sql.SQL("AND users.status = %(status)s")),
    "search": sql.SQL("""AND (
        has_part(person.name, %(search)s) OR has_part(person.email, %(search)s) OR users.user_id = %(search)s
    )"""),
}
_NEWEST: Final = _Sort("newest", "created_at")
_ACTIVE_KEYS: Final = """LEFT JOIN (
    SELECT user_id, count(*) AS active_keys FROM keys WHERE org_id = %(org)s {active} GROUP BY user_id
) AS counted ON counted.user_id = users.user_id"""
_LAST_USES: Final = """LEFT JOIN (
    SELECT user_id, max(last_used_at) AS last_used_at FROM keys JOIN key_usage USING (org_id, key_id)
    WHERE org_id = %(org)s GROUP BY user_id
) AS counted ON counted.user_id = users.user_id"""
_NAME: Final = re.compile(f"1|0{PLAIN_TEXT}")
_USER_SORTS: Final = {
    "newest": _Sort("newest", "users.created_at"),
    # Who has no name comes last.
    "name": _Sort("name", "COALESCE('0' || folded(person.name), '1')", _NAME, ascending=True),
    "active_keys": _Sort("active_keys", "COALESCE(counted.active_keys, 0)", int, join=_ACTIVE_KEYS),
    "last_activity": _Sort("last_activity", "COALESCE(counted.last_used_at, '')", join=_LAST_USES),
}
_ORGS: Final = sql.SQL("""
    SELECT org_summary.*, page.place, ARRAY(
        SELECT "offset" FROM halting_records WHERE halting_records.org_id = page.org_id ORDER BY 1
    ) AS halt_offsets
    FROM (
        SELECT * FROM (
            SELECT org_id, COALESCE(registered_at, '') AS place FROM heads LEFT JOIN orgs USING (org_id)
        ) AS listed {after} {order} LIMIT %(most)s
    ) AS page JOIN org_summary USING (org_id) {order}
""")
_USERS: Final = sql.SQL("""
    SELECT user_summary.*, page.name, page.email, page.place
    FROM (
        SELECT * FROM (
            SELECT users.org_id, users.user_id, person.name, person.email, {place} AS place
            FROM users
            LEFT JOIN {people} AS person
                ON person.org_id = %(org)s AND person.user_id = users.user_id COLLATE "default"
            {join}
            WHERE users.org_id = %(org)s {filters}
        ) AS listed {after} {order} LIMIT %(most)s
    ) AS page JOIN user_summary USING (org_id, user_id) {order}
""")
_KEYS: Final = sql.SQL("""
    SELECT org_keys.*, person.name AS owner_name, page.place
    FROM (
        SELECT * FROM (
            SELECT org_id, key_id, {place} AS place FROM keys WHERE org_id = %(org)s {filters}
        ) AS listed {after} {order} LIMIT %(most)s
    ) AS page
    JOIN org_keys USING (org_id, key_id)
    LEFT JOIN {people} AS person ON person.org_id = %(org)s AND person.user_id = org_keys.user_id COLLATE "default"
    {order}
""")


@dataclass(frozen=True, slots=True)
class Lists:
    """`people` is the table with the names. Every list raises Problem 400 for a cursor that is not of its order."""

    connection: psycopg.Connection[DictRow]
    people: sql.SQL

    def orgs(self, query: Parameters) -> Page:
        """All organisations, newest first."""
        return self._page(_ORGS, query, _NEWEST, "org_id", {})

    def users(self, org: str, query: Parameters) -> Page:
        """The users of an organisation that pass the filters, in the order that was asked for."""
        return self._page(_USERS, query, _USER_SORTS[query.sort], "user_id", _USER_FILTERS, org)

    def keys(self, org: str, query: Parameters) -> Page:
        """The keys of an organisation that pass the filters, newest first."""
        return self._page(_KEYS, query, _NEWEST, "key_id", _KEY_FILTERS, org)

    def _page(
        self, text: sql.SQL, query: Parameters, sort: _Sort, id_column: str, filters: Filters, org: str | None = None
    ) -> Page:
        place = from_cursor(query.cursor, (re.compile(sort.name), sort.shape, _ID))
        id_ = sql.Identifier(id_column)
        direction, beyond = (sql.SQL("ASC"), sql.SQL(">")) if sort.ascending else (sql.SQL("DESC"), sql.SQL("<"))
        after = _NONE if place is None else sql.SQL("WHERE (place, {}) {} (%(after_place)s, %(after_id)s)")
        composed = text.format(
            people=self.people,
            place=sql.SQL(sort.place),
            join=sql.SQL(sort.join).format(active=_STATES["active"]),
            filters=self._conditions(query, filters),
            after=after.format(id_, beyond),
            order=sql.SQL("ORDER BY place {0}, {1} {0}").format(direction, id_),
        )
        _, after_place, after_id = place or ("", "", "")
        values = asdict(query) | {"org": org, "most": query.limit + 1, "after_place": after_place, "after_id": after_id}
        rows = self.connection.execute(composed, values).fetchall()
        return cut(rows, query.limit, lambda last: [sort.name, last["place"], last[id_column]])

    def _conditions(self, query: Parameters, filters: Filters) -> sql.Composable:
        asked = [(known, getattr(query, name)) for name, known in filters.items() if getattr(query, name) is not None]
        parts = [known if isinstance(known, sql.SQL) else known[value] for known, value in asked]
        return sql.SQL(" ").join(part.format(people=self.people) for part in parts)


def cut(rows: list[DictRow], limit: int, place: Callable[[DictRow], Sequence[str | int]]) -> Page:
    """A page out of one row more than there may be on it; `place` of its last row is where the next page goes on."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], to_cursor(place(rows[limit - 1]))
