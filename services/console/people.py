"""The table `console.people`: who people are, and the rows of those who are just being added."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from schemas.problems import Problem
from schemas.times import Clock

Pool = ConnectionPool[Connection[tuple[Any, ...]]]
PENDING_MS = 24 * 3600 * 1000
"""How long a pending row waits for a repeat: as long as the command API remembers its Idempotency-Key."""
CLAIM_MS = 15_000
"""Longer than the command API's answer is waited for, so that no two requests work on one pending row."""
_DDL_LOCK = 0x6B6C_0001
# A constant, so that queries made with it are no place for anyone's input.
_SHOWN = "org_id, user_id, name, email, kind, role, password_hash, must_change_password, added_revision"


@dataclass(frozen=True, slots=True)
class NewPerson:
    """A person or a service account to be added; `email` and `password_hash` may be None for the latter."""

    org_id: str
    name: str
    email: str | None
    kind: str
    role: str
    password_hash: str | None = field(repr=False)
    must_change_password: bool


@dataclass(frozen=True, slots=True)
class Person(NewPerson):
    """An active row. `added_revision` is the position in the org's ledger where the user was added."""

    user_id: str
    added_revision: int


class People:
    """Reads and writes the table. psycopg.OperationalError and PoolTimeout mean that PostgreSQL is away."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool, self._clock = pool, clock

    def create_tables(self) -> None:
        """Makes what does not exist yet; several consoles may start at once."""
        statements = resources.files(__package__).joinpath("people.sql").read_bytes()
        with self._pool.connection() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_DDL_LOCK])
            connection.execute(statements)

    def with_email(self, email: str) -> Person | None:
        """The active person with this e-mail, upper or lower case."""
        return self._one("lower(email) = lower(%s)", [email])

    def get(self, org_id: str, user_id: str) -> Person | None:
        """The active person of this org with this id."""
        return self._one("org_id = %s AND user_id = %s", [org_id, user_id])

    def added_with(self, key: str) -> Person | None:
        """The active person that was added with this Idempotency-Key."""
        return self._one("idempotency_key = %s", [key])

    def reserve(self, new: NewPerson, fresh_key: str) -> tuple[str, bool]:
        """Make a pending row, or take over the one that an earlier try of the same left behind.

        Gives the Idempotency-Key to add the user with, and whether the row is new. Raises Problem 409 `email_taken`,
        or 503 `busy` while another request is at work on the row.
        """
        now_ms = self._clock()
        with self._pool.connection() as connection:
            self._drop_old(connection, now_ms)
            key = _take_over(connection, new, now_ms)
            if key is not None:
                return key, False
            if _insert(connection, new, fresh_key, now_ms):
                return fresh_key, True
            raise _refusal(connection, new, fresh_key, now_ms)

    def activate(self, key: str, user_id: str, revision: int) -> None:
        """The command API has added the user of this pending row. Repeating it changes nothing."""
        self._run(
            "UPDATE console.people SET status = 'active', user_id = %s, added_revision = %s WHERE idempotency_key = %s",
            [user_id, revision, key],
        )

    def release(self, key: str) -> None:
        """Whether the user was added is not known: the row stays pending, for the next try to take over."""
        self._run(
            "UPDATE console.people SET claimed_until_ms = 0 WHERE idempotency_key = %s AND status = 'pending'", [key]
        )

    def forget(self, key: str) -> None:
        """The user was refused: the pending row goes."""
        self._run("DELETE FROM console.people WHERE idempotency_key = %s AND status = 'pending'", [key])

    def drop_old_pending(self) -> None:
        """Drop the leftovers that can no longer be repeated."""
        with self._pool.connection() as connection:
            self._drop_old(connection, self._clock())

    def rename(self, org_id: str, user_id: str, name: str) -> None:
        """Change the displayed name."""
        self._run("UPDATE console.people SET name = %s WHERE org_id = %s AND user_id = %s", [name, org_id, user_id])

    def set_password(self, org_id: str, user_id: str, password_hash: str | None, *, must_change: bool) -> None:
        """Store a new password hash, and whether it is only good for changing it; None for no password at all."""
        self._run(
            "UPDATE console.people SET password_hash = %s, must_change_password = %s WHERE org_id = %s AND user_id = %s",
            [password_hash, must_change, org_id, user_id],
        )

    def renew_hash(self, org_id: str, user_id: str, old: str, new: str) -> bool:
        """Another hash of the same password; False where it is not the password any more."""
        with self._pool.connection() as connection:
            return (
                connection.execute(
                    "UPDATE console.people SET password_hash = %s "
                    "WHERE org_id = %s AND user_id = %s AND password_hash = %s",
                    [new, org_id, user_id, old],
                ).rowcount
                == 1
            )

    def remove(self, org_id: str, user_id: str) -> Person | None:
        """Erase the row, and give what was in it."""
        with self._pool.connection() as connection, connection.cursor(row_factory=class_row(Person)) as cursor:
            query = f"DELETE FROM console.people WHERE org_id = %s AND user_id = %s RETURNING {_SHOWN}"  # noqa: S608
            return cursor.execute(query, [org_id, user_id]).fetchone()

    def put_back(self, person: Person, key: str) -> None:
        """Undo `remove`, where the ledger refused to erase the person. `key` is any fresh text."""
        with self._pool.connection() as connection:
            if _insert(connection, person, key, self._clock()):
                connection.execute(
                    "UPDATE console.people SET status = 'active', user_id = %s, added_revision = %s "
                    "WHERE idempotency_key = %s",
                    [person.user_id, person.added_revision, key],
                )

    def _one(self, condition: str, parameters: Sequence[Any]) -> Person | None:
        with self._pool.connection() as connection, connection.cursor(row_factory=class_row(Person)) as cursor:
            query = f"SELECT {_SHOWN} FROM console.people WHERE status = 'active' AND {condition}"  # noqa: S608
            return cursor.execute(query, parameters).fetchone()

    def _run(self, statement: str, parameters: Sequence[Any]) -> None:
        with self._pool.connection() as connection:
            connection.execute(statement, parameters)

    def _drop_old(self, connection: Connection[tuple[Any, ...]], now_ms: int) -> None:
        connection.execute(
            "DELETE FROM console.people WHERE status = 'pending' AND created_ms < %s", [now_ms - PENDING_MS]
        )


def _take_over(connection: Connection[tuple[Any, ...]], new: NewPerson, now_ms: int) -> str | None:
    # Kind and role must be those of the first try: the Idempotency-Key stands for that very command. A service
    # account without an e-mail is known again by its name.
    row = connection.execute(
        """UPDATE console.people
              SET name = %(name)s, password_hash = %(hash)s, must_change_password = %(must)s,
                  claimed_until_ms = %(until)s
            WHERE status = 'pending' AND claimed_until_ms <= %(now)s
              AND org_id = %(org)s AND kind = %(kind)s AND role = %(role)s
              AND lower(email) IS NOT DISTINCT FROM lower(%(email)s) AND (email IS NOT NULL OR name = %(name)s)
        RETURNING idempotency_key""",
        _parameters(new, now_ms),
    ).fetchone()
    return None if row is None else str(row[0])


def _insert(connection: Connection[tuple[Any, ...]], new: NewPerson, key: str, now_ms: int) -> bool:
    made = connection.execute(
        """INSERT INTO console.people (idempotency_key, org_id, name, email, kind, role, password_hash,
                                       must_change_password, status, created_ms, claimed_until_ms)
           VALUES (%(key)s, %(org)s, %(name)s, %(email)s, %(kind)s, %(role)s, %(hash)s, %(must)s, 'pending',
                   %(now)s, %(until)s)
           ON CONFLICT DO NOTHING""",
        _parameters(new, now_ms) | {"key": key},
    )
    return made.rowcount == 1


def _parameters(new: NewPerson, now_ms: int) -> dict[str, Any]:
    return {
        "org": new.org_id,
        "name": new.name,
        "email": new.email,
        "kind": new.kind,
        "role": new.role,
        "hash": new.password_hash,
        "must": new.must_change_password,
        "now": now_ms,
        "until": now_ms + CLAIM_MS,
    }


def _refusal(connection: Connection[tuple[Any, ...]], new: NewPerson, key: str, now_ms: int) -> Problem:
    busy = connection.execute(
        """SELECT 1 FROM console.people WHERE (lower(email) = lower(%s) OR idempotency_key = %s)
              AND org_id = %s AND kind = %s AND role = %s AND status = 'pending' AND claimed_until_ms > %s""",
        [new.email, key, new.org_id, new.kind, new.role, now_ms],
    ).fetchone()
    if busy:
        return Problem(503, "busy", "this person is being added by another request right now", retry_after_s=2)
    return Problem(409, "email_taken", "this e-mail address is in use, or is being added with another kind or role")
