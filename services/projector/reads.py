"""What the read API asks PostgreSQL: one transaction, and so one state of all tables, per request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql
from psycopg.rows import DictRow

from schemas.problems import Problem
from services.projector.access import not_found
from services.projector.database import Pool
from services.projector.lists import Lists

WAIT_S: Final = 2.0
"""So long a read waits for the revision it was asked for."""
_POLL_S: Final = 0.02
_HEADS: Final = """
    SELECT org_id, revision, halt_why, as_of_ms, to_regclass('console.people') IS NOT NULL AS has_people
    FROM heads LEFT JOIN freshness USING (partition) WHERE org_id = ANY (%s)
"""
_PEOPLE: Final = sql.SQL("console.people")
# Until the console has made its table nobody has a name.
_NOBODY: Final = sql.SQL("(SELECT '' AS org_id, '' AS user_id, NULL AS name, NULL AS email WHERE false)")
_ORG: Final = sql.SQL("""
    SELECT {columns}, ARRAY(
        SELECT "offset" FROM halting_records WHERE halting_records.org_id = org_summary.org_id ORDER BY 1
    ) AS halt_offsets
    FROM org_summary WHERE org_id = %(org)s
""")
# What is not asked for is not counted.
_ALL: Final = sql.SQL("*")
_WITHOUT_COUNTS: Final = sql.SQL("org_id, name, keys_enabled, revision, registered_at, halt_why, halt_detail")
# A person's id is looked up in the index of that table, which has its own collation.
_USER: Final = sql.SQL("""
    SELECT user_summary.*, person.name, person.email FROM user_summary
    LEFT JOIN {people} AS person
        ON person.org_id = %(org)s AND person.user_id = user_summary.user_id COLLATE "default"
    WHERE user_summary.org_id = %(org)s AND user_summary.user_id = %(id)s
""")
_KEY: Final = sql.SQL("""
    SELECT org_keys.*, person.name AS owner_name FROM org_keys
    LEFT JOIN {people} AS person ON person.org_id = %(org)s AND person.user_id = org_keys.user_id COLLATE "default"
    WHERE org_keys.org_id = %(org)s AND org_keys.key_id = %(id)s
""")


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

    @property
    def lists(self) -> Lists:
        """The lists, page by page."""
        return Lists(self.connection, self.people)

    def org(self, org: str, with_counts: bool = True) -> DictRow:
        """One organisation. Raises Problem 404."""
        return self._one(_ORG.format(columns=_ALL if with_counts else _WITHOUT_COUNTS), {"org": org})

    def user(self, org: str, user_id: str) -> DictRow:
        """One user. Raises Problem 404."""
        return self._one(_USER.format(people=self.people), {"org": org, "id": user_id})

    def key(self, org: str, key_id: str) -> DictRow:
        """One key. Raises Problem 404."""
        return self._one(_KEY.format(people=self.people), {"org": org, "id": key_id})

    def _one(self, text: sql.Composed, values: dict[str, str]) -> DictRow:
        row = self.connection.execute(text, values).fetchone()
        if row is None:
            raise not_found()
        return row


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
