"""Failed sign-ins, counted per account and per address in PostgreSQL, so that all consoles count together.

After `limit` failures in a row each further try has to wait, twice as long each time, at most a quarter of an hour;
an hour without a failure forgets them.
"""

import hashlib
from typing import Final

from schemas.problems import Problem
from schemas.times import Clock
from services.console.people import Pool

ACCOUNT_LIMIT: Final = 5
ADDRESS_LIMIT: Final = 50
LONGEST_WAIT_MS: Final = 15 * 60 * 1000
FORGET_MS: Final = 3600 * 1000


def wait_ms(failures: int, last_at_ms: int, now_ms: int, limit: int) -> int:
    """How long the next try has to wait, 0 for not at all."""
    if failures < limit or now_ms - last_at_ms >= FORGET_MS:
        return 0
    pause_ms = min(1000 << min(failures - limit, 20), LONGEST_WAIT_MS)
    return max(0, last_at_ms + pause_ms - now_ms)


class Throttle:
    """Counts a try as failed before it is judged, so that many at once cannot slip through, and takes it back after."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool, self._clock = pool, clock

    def begin(self, email: str, address: str) -> None:
        """A try begins. Raises Problem 429 with Retry-After when it has to wait; a refused try is not counted."""
        now_ms = self._clock()
        # Sorted, so that two tries never wait for each other's rows in a circle.
        with self._pool.connection() as connection:
            for subject, limit in sorted([(_account(email), ACCOUNT_LIMIT), (_address(address), ADDRESS_LIMIT)]):
                connection.execute(
                    "INSERT INTO console.failed_sign_ins VALUES (%s, 0, %s) ON CONFLICT DO NOTHING", [subject, now_ms]
                )
                failures, last_at_ms = connection.execute(
                    "SELECT failures, last_at_ms FROM console.failed_sign_ins WHERE subject = %s FOR UPDATE", [subject]
                ).fetchone() or (0, now_ms)
                left_ms = wait_ms(failures, last_at_ms, now_ms, limit)
                if left_ms:
                    raise _too_many(left_ms)
                count = 1 if now_ms - last_at_ms >= FORGET_MS else failures + 1
                connection.execute(
                    "UPDATE console.failed_sign_ins SET failures = %s, last_at_ms = %s WHERE subject = %s",
                    [count, now_ms, subject],
                )

    def succeeded(self, email: str, address: str) -> None:
        """The try was a good one: the account starts anew, the address gets this one try back."""
        with self._pool.connection() as connection:
            connection.execute(
                "UPDATE console.failed_sign_ins SET failures = greatest(failures - 1, 0) WHERE subject = %s",
                [_address(address)],
            )
            connection.execute(
                "DELETE FROM console.failed_sign_ins WHERE subject = %s OR last_at_ms < %s",
                [_account(email), self._clock() - FORGET_MS],
            )


def _account(email: str) -> str:
    # Hashed, because this table outlives an erased person for an hour and also sees addresses of strangers.
    return "account:" + hashlib.sha256(email.lower().encode()).hexdigest()


def _address(address: str) -> str:
    return f"address:{address}"


def _too_many(left_ms: int) -> Problem:
    detail = "too many failed sign-ins for this account or from this address"
    return Problem(429, "too_many_attempts", detail, retry_after_s=-(-left_ms // 1000))
