"""What the read API asks PostgreSQL: one transaction, and so one state of all tables, per request."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import DictRow

from schemas.fields import ID
from schemas.problems import Problem
from schemas.times import SHAPE
from services.projector.access import not_found
from services.projector.database import Pool
from services.projector.parameters import Parameters, from_cursor, to_cursor

WAIT_S: Final = 2.0
"""So long a read waits for the revision it was asked for."""
_POLL_S: Final = 0.02
_SHAPES: Final = (re.compile(f"(?:{SHAPE})?"), re.compile(ID))
_HEADS: Final = """
    SELECT org_id, revision, halt_why, as_of_ms, to_regclass('console.people') IS NOT NULL AS has_people
    FROM heads LEFT JOIN freshness USING (partition) WHERE org_id = ANY (%s)
"""
_PEOPLE: Final = sql.SQL("LEFT JOIN console.people AS person USING (org_id, user_id)")
# Until the console has made its table nobody has a name.
_NOBODY: Final = sql.SQL("CROSS JOIN (SELECT NULL AS name, NULL AS email) AS person")
_ORG: Final = sql.SQL("""
    SELECT *, ARRAY(
        SELECT "offset" FROM halting_records WHERE halting_records.org_id = org_summary.org_id ORDER BY 1
    ) AS halt_offsets
    FROM org_summary WHERE org_id = %s
""")
# The page is cut before anything is counted.
_ORGS: Final = sql.SQL("""
    SELECT org_summary.*, ARRAY(
        SELECT "offset" FROM halting_records WHERE halting_records.org_id = page.org_id ORDER BY 1
    ) AS halt_offsets
    FROM (
        SELECT * FROM (
            SELECT org_id, COALESCE(registered_at, '') AS registered_at FROM heads LEFT JOIN orgs USING (org_id)
        ) AS org WHERE true {after} {order} LIMIT %(most)s
    ) AS page JOIN org_summary USING (org_id, registered_at) {order}
""")
_USER: Final = sql.SQL("""
    SELECT user_summary.*, person.name, person.email FROM user_summary {people} WHERE org_id = %s AND user_id = %s
""")
_USERS: Final = sql.SQL("""
    SELECT user_summary.*, person.name, person.email
    FROM (
        SELECT org_id, user_id, created_at FROM users WHERE org_id = %(org)s {after} {order} LIMIT %(most)s
    ) AS page JOIN user_summary USING (org_id, user_id, created_at) {people} {order}
""")
_KEY: Final = sql.SQL("""
    SELECT org_keys.*, person.name AS owner_name FROM org_keys {people} WHERE org_id = %s AND key_id = %s
""")
_KEYS: Final = sql.SQL("""
    SELECT page.*, person.name AS owner_name
    FROM (SELECT * FROM org_keys WHERE org_id = %(org)s {filters} {after} {order} LIMIT %(most)s) AS page
    {people} {order}
""")
_FILTERS: Final = {
    "state": sql.SQL("AND state = %(state)s"),
    "owner": sql.SQL("AND user_id = %(owner)s"),
    "name": sql.SQL("AND name = %(name)s"),
    "unused_since": sql.SQL("AND COALESCE(last_used_at, '') < %(unused_since)s"),
    "never_used": sql.SQL("AND (last_used_at IS NULL) = %(never_used)s"),
    "expires_before": sql.SQL("AND expires_at < %(expires_before)s"),
}
Page = tuple[list[DictRow], str | None]
"""Rows, and the cursor of the next page."""


@dataclass(frozen=True, slots=True)
class State:
    """What an answer stands on: the head of an organisation, and up to when the log is in the tables (None: unknown)."""

    org_id: str
    revision: int
    halt_why: str | None
    as_of_ms: int | None


@dataclass(frozen=True, slots=True)
class View:
    """One state of all tables. Rows are those of the views in `tables.sql`, with names and e-mail addresses."""

    connection: psycopg.Connection[DictRow]
    state: State
    people: sql.SQL

    def org(self, org: str) -> DictRow:
        """One organisation. Raises Problem 404."""
        return self._one(_ORG, org)

    def orgs(self, query: Parameters) -> Page:
        """All organisations, newest first."""
        return self._page(_ORGS, query, "registered_at", "org_id", {})

    def user(self, org: str, user_id: str) -> DictRow:
        """One user. Raises Problem 404."""
        return self._one(_USER, org, user_id)

    def users(self, org: str, query: Parameters) -> Page:
        """The users of an organisation, newest first."""
        return self._page(_USERS, query, "created_at", "user_id", {"org": org})

    def key(self, org: str, key_id: str) -> DictRow:
        """One key. Raises Problem 404."""
        return self._one(_KEY, org, key_id)

    def keys(self, org: str, query: Parameters) -> Page:
        """The keys of an organisation that pass the filters, newest first."""
        given = {name: value for name in _FILTERS if (value := getattr(query, name)) not in (None, "all")}
        return self._page(_KEYS, query, "created_at", "key_id", given | {"org": org})

    def _one(self, text: sql.SQL, *values: str) -> DictRow:
        row = self.connection.execute(text.format(people=self.people), values).fetchone()
        if row is None:
            raise not_found()
        return row

    def _page(self, text: sql.SQL, query: Parameters, time_column: str, id_column: str, values: dict[str, Any]) -> Page:
        columns = {"time": sql.Identifier(time_column), "id": sql.Identifier(id_column)}
        place = from_cursor(query.cursor, _SHAPES)
        after = "" if place is None else "AND ({time}, {id}) < (%(after_time)s, %(after_id)s)"
        composed = text.format(
            people=self.people,
            filters=sql.SQL(" ").join(part for name, part in _FILTERS.items() if name in values),
            after=sql.SQL(after).format(**columns),
            order=sql.SQL("ORDER BY {time} DESC, {id} DESC").format(**columns),
        )
        after_time, after_id = place or ("", "")
        values = values | {"most": query.limit + 1, "after_time": after_time, "after_id": after_id}
        rows = self.connection.execute(composed, values).fetchall()
        if len(rows) <= query.limit:
            return rows, None
        last = rows[query.limit - 1]
        return rows[: query.limit], to_cursor([last[time_column], last[id_column]])


class Reads:
    """The tables of the projector, for reading. Thread-safe. Raises psycopg.OperationalError, psycopg_pool.PoolTimeout."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @contextmanager
    def view(self, org: str, min_revision: tuple[str, int] | None = None) -> Iterator[View]:
        """The tables as an organisation sees them, from the revision of an organisation on if one is asked for.

        Raises Problem 404 when there is no such organisation, 503 when the revision is not there in time.
        """
        awaited, revision = min_revision or (org, 0)
        deadline = time.monotonic() + WAIT_S
        while True:
            with self._pool.connection() as connection:
                found = connection.execute(_HEADS, [[org, awaited]]).fetchall()
                heads = {row["org_id"]: row for row in found}
                if revision == 0 or (awaited in heads and heads[awaited]["revision"] >= revision):
                    yield _view(connection, heads.get(org))
                    return
            if time.monotonic() > deadline:
                raise Problem(503, "not_caught_up", f"revision {revision} is not here yet", retry_after_s=1)
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raises when PostgreSQL does not answer or the tables are not there."""
        with self._pool.connection() as connection:
            connection.execute("SELECT count(*) FROM checkpoints")


def _view(connection: psycopg.Connection[DictRow], head: DictRow | None) -> View:
    if head is None:
        raise not_found()
    state = State(head["org_id"], head["revision"], head["halt_why"], head["as_of_ms"])
    return View(connection, state, _PEOPLE if head["has_people"] else _NOBODY)
