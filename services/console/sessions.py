"""The table `console.sessions`: browsers that are signed in, known by a random cookie of 256 bits."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg.rows import kwargs_row

from schemas.times import Clock
from services.console.people import Pool

IDLE_MS: Final = 12 * 3600 * 1000
LONGEST_MS: Final = 7 * 24 * 3600 * 1000
_SEEN_STEP_MS: Final = 60_000
"""A session's last use is written at most once in this time, so that reading a page writes nothing."""
# A person who was erased has no row and so no session. One that came in with a password has one only as long as that is
# the password and the organisation takes passwords: so a sign-in that overtakes a change of either opens nothing.
_FIND: Final = """
    SELECT org_id, user_id, revision, acted_org, acted_revision, notice, seen_ms, person.must_change_password
    FROM console.sessions JOIN console.people AS person USING (org_id, user_id)
    LEFT JOIN console.org_sign_in USING (org_id)
    WHERE (proof IS NULL OR proof = sha256(convert_to(person.password_hash, 'UTF8')) AND sso_only IS NOT TRUE)
    AND cookie_hash = %s AND sessions.seen_ms > %s AND sessions.created_ms > %s
"""


_MOST: Final = 20
"""So many browsers of one person are kept signed in."""
_DROP_OLD: Final = """
    DELETE FROM console.sessions WHERE created_ms < %s OR (org_id = %s AND user_id = %s AND cookie_hash NOT IN (
        SELECT cookie_hash FROM console.sessions WHERE org_id = %s AND user_id = %s ORDER BY created_ms DESC LIMIT %s
    ))
"""


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """Who is signed in. `acted_org` and `acted_revision` are the place of the last command from this browser."""

    org_id: str
    user_id: str
    revision: int
    acted_org: str | None
    acted_revision: int | None
    notice: str | None
    seen_ms: int
    must_change_password: bool
    cookie: str = field(repr=False)


def fresh_cookie() -> str:
    """A cookie for a browser without one: 43 characters, 256 bits."""
    return secrets.token_urlsafe(32)


def form_token(cookie: str) -> str:
    """What forms carry to show that they are ours: nobody can make it without knowing the cookie.

    It outlives the session's row, so that a form sent after the session ended is still known to be ours.
    """
    return derive(cookie, "form").hex()


def derive(cookie: str, purpose: str) -> bytes:
    """32 bytes that only who has this cookie can know, different for each purpose."""
    return hmac.digest(cookie.encode(), purpose.encode(), "sha256")


class Sessions:
    """Reads and writes the table. psycopg.OperationalError and PoolTimeout mean that PostgreSQL is away."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool, self._clock = pool, clock

    def begin(self, org_id: str, user_id: str, revision: int, password_hash: str | None = None) -> str:
        """Sign a browser in; gives its new cookie. `password_hash` is what was judged, None after single sign-on.

        On the way sessions go that ended long ago, and all but the newest of this person.
        """
        cookie, now_ms = fresh_cookie(), self._clock()
        proof = None if password_hash is None else hashlib.sha256(password_hash.encode()).digest()
        with self._pool.connection() as connection:
            connection.execute(
                "INSERT INTO console.sessions (cookie_hash, org_id, user_id, proof, revision, created_ms, seen_ms) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [_hash(cookie), org_id, user_id, proof, revision, now_ms, now_ms],
            )
            connection.execute(_DROP_OLD, [now_ms - 2 * LONGEST_MS, org_id, user_id, org_id, user_id, _MOST])
        return cookie

    def was_of(self, cookie: str) -> tuple[str, str] | None:
        """Org and user of the session that this cookie has or had, until some days after it ran out."""
        with self._pool.connection() as connection:
            row = connection.execute(
                "SELECT org_id, user_id FROM console.sessions WHERE cookie_hash = %s", [_hash(cookie)]
            ).fetchone()
        return None if row is None else (row[0], row[1])

    def find(self, cookie: str, *, by_itself: bool = False) -> BrowserSession | None:
        """The session of this cookie, unless it ended: 12 hours without a page, or 7 days in all.

        What an open page asks `by_itself` is no sign of anybody being there.
        """
        now_ms = self._clock()
        with self._pool.connection() as connection, connection.cursor(row_factory=kwargs_row(_with(cookie))) as cursor:
            found = cursor.execute(_FIND, [_hash(cookie), now_ms - IDLE_MS, now_ms - LONGEST_MS]).fetchone()
            if found is not None and not by_itself and now_ms - found.seen_ms > _SEEN_STEP_MS:
                cursor.execute(
                    "UPDATE console.sessions SET seen_ms = %s WHERE cookie_hash = %s", [now_ms, _hash(cookie)]
                )
            return found

    def acted(self, cookie: str, org_id: str, revision: int) -> None:
        """A command from this browser is in the org's ledger at this revision."""
        self._run(
            "UPDATE console.sessions SET acted_org = %s, acted_revision = %s WHERE cookie_hash = %s",
            [org_id, revision, _hash(cookie)],
        )

    def tell(self, cookie: str, notice: str | None) -> None:
        """Leave a sentence for the next page, or take it away."""
        self._run("UPDATE console.sessions SET notice = %s WHERE cookie_hash = %s", [notice, _hash(cookie)])

    def end(self, cookie: str) -> None:
        """Sign this browser out."""
        self._run("DELETE FROM console.sessions WHERE cookie_hash = %s", [_hash(cookie)])

    def end_all(self, org_id: str, user_id: str) -> None:
        """Sign a user out everywhere."""
        self._run("DELETE FROM console.sessions WHERE org_id = %s AND user_id = %s", [org_id, user_id])

    def _run(self, statement: str, parameters: list[Any]) -> None:
        with self._pool.connection() as connection:
            connection.execute(statement, parameters)


def _hash(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()


def _with(cookie: str) -> Any:
    def make(**columns: Any) -> BrowserSession:
        return BrowserSession(**columns, cookie=cookie)

    return make
