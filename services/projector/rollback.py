"""Back to the tables from before a rebuild, which it has kept, or away with them."""

from collections.abc import Callable
from contextlib import closing
from typing import Final

import psycopg

from schemas.topics import LIFECYCLE, PARTITIONS
from services.ledger.records import Place
from services.projector.database import OLD, SCHEMA, Writer
from services.projector.locks import PartitionLocks
from services.projector.rebuild import REBUILT, CannotRebuild, Records, alone, places

_BETWEEN: Final = "read_between"
_ASK_S: Final = 10.0


def undo(connect: Callable[[str], Writer], log: Records) -> None:
    """Let the live tables and those from before the last rebuild change places; again changes them back.

    No projector may run: each remembers where it stood in the tables that it knows. The next one goes on where these
    stand. Raises PartitionsHeld, CannotRebuild (AnotherRebuild), LogUnavailable and psycopg.Error.
    """
    locks = PartitionLocks(lambda: connect(SCHEMA), range(PARTITIONS))
    locks.hold()
    try:
        with closing(connect(SCHEMA)) as live, closing(connect(OLD)) as old:
            alone(live)
            if old.execute("SELECT to_regclass('checkpoints') IS NULL").fetchone() == (True,):
                raise CannotRebuild("no tables from before a rebuild are kept, so there is nothing to go back to")
            _refuse_loss(live, old, log)
            _exchange(live)
    finally:
        locks.release()


def drop_old(session: Writer) -> list[str]:
    """Drop the tables from before the last rebuild, and those that one which was refused or killed has left.

    Gives the schemas there were. Raises AnotherRebuild and psycopg.Error.
    """
    alone(session)
    query = "SELECT nspname::text FROM pg_namespace WHERE nspname = ANY (%s) ORDER BY 1"
    found = [name for (name,) in session.execute(query, [[OLD, REBUILT]]).fetchall()]
    session.execute(f"DROP SCHEMA IF EXISTS {OLD}, {REBUILT} CASCADE")
    return found


def _refuse_loss(live: Writer, old: Writer, log: Records) -> None:
    """Uses that only the live tables have seen must still be in the log: a projector goes on behind what has left it.

    From `key-lifecycle` nothing leaves, and on one that was cut no projector goes on. Raises CannotRebuild.
    """
    seen, wanted = places(live), places(old)
    ats = sorted(at for at in seen.keys() | wanted.keys() if at.topic != LIFECYCLE)
    first, ends = log.first_offsets(ats, _ASK_S), log.end_offsets(ats, _ASK_S)
    for at in ats:
        next_offset = wanted.get(at, Place()).next_offset
        if next_offset < min(first[at], seen.get(at, Place()).next_offset):
            raise CannotRebuild(
                f"the tables from before stand at offset {next_offset} of {at.topic}/{at.partition}, which holds offsets"
                f" {first[at]} to {ends[at]}: what only the live ones have seen would be lost"
            )


def _exchange(session: Writer) -> None:
    """Raises CannotRebuild and psycopg.Error."""
    try:
        with session.transaction():
            session.execute("SET LOCAL lock_timeout = '5s'")
            # As in a switch: no read is under way when the names change.
            session.execute("LOCK TABLE heads IN ACCESS EXCLUSIVE MODE")
            for name, new_name in ((SCHEMA, _BETWEEN), (OLD, SCHEMA), (_BETWEEN, OLD)):
                session.execute(f"ALTER SCHEMA {name} RENAME TO {new_name}")
    except psycopg.errors.LockNotAvailable as error:
        raise CannotRebuild(
            f"a session has been reading the table {SCHEMA}.heads all the time: end it (pg_locks names it), then try again"
        ) from error
