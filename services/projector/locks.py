"""One projector per partition: advisory locks of PostgreSQL, held by a session of their own."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import psycopg
import structlog

from services.projector.database import Writer

LOCKS: Final = 0x6B6C_7072
"""The first of the two numbers of each lock; the second is the partition."""
_RETRY_S: Final = 0.1
_HELD: Final = """
    SELECT objid::int, activity.pid, COALESCE(application_name, '?'), COALESCE(host(client_addr), 'a local socket')
    FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND classid = %s
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_log = structlog.get_logger("keyledger.projector")


class PartitionsHeld(Exception):
    """Another projector holds a partition; the message names it."""


class PartitionLocks:
    """Thread-safe. A process that was just killed may hold its locks for a moment, so taking them waits `patience_s`."""

    def __init__(self, connect: Callable[[], Writer], partitions: Sequence[int], patience_s: float = 2.0) -> None:
        self._connect, self._partitions, self._patience_s = connect, list(partitions), patience_s
        self._mutex = threading.Lock()
        self._session: Writer | None = None

    def hold(self) -> None:
        """Make sure that this process holds all its locks now, taking them again when the session was lost.

        Raises PartitionsHeld, and psycopg.OperationalError when PostgreSQL is away.
        """
        with self._mutex:
            if self._session is not None and self._is_alive(self._session):
                return
            self._session = None
            session = self._connect()
            try:
                self._take(session)
            except BaseException:
                session.close()
                raise
            self._session = session

    def release(self) -> None:
        """Let go of the locks."""
        with self._mutex:
            if self._session is not None:
                self._session.close()
                self._session = None

    def _is_alive(self, session: Writer) -> bool:
        try:
            session.execute("SELECT 1")
        except psycopg.Error as error:
            _log.warning("lock_session_lost", error=str(error))
            with contextlib.suppress(psycopg.Error):
                session.close()
            return False
        return True

    def _take(self, session: Writer) -> None:
        deadline = time.monotonic() + self._patience_s
        wanted = self._partitions
        while wanted:
            got = session.execute(
                "SELECT partition, pg_try_advisory_lock(%s, partition) FROM unnest(%s::integer[]) AS partition",
                [LOCKS, wanted],
            ).fetchall()
            wanted = [partition for partition, is_ours in got if not is_ours]
            if wanted and time.monotonic() > deadline:
                raise PartitionsHeld(_holder(session, wanted))
            if wanted:
                time.sleep(_RETRY_S)


def holders(session: Writer) -> dict[int, str]:
    """The session that holds each partition; partitions that none holds are left out. Raises psycopg.Error."""
    found = session.execute(_HELD, [LOCKS]).fetchall()
    return {partition: f"session {pid} ({name}, from {address})" for partition, pid, name, address in found}


def _holder(session: Writer, partitions: Sequence[int]) -> str:
    held: dict[str, list[int]] = {}
    for partition, holder in sorted(holders(session).items()):
        if partition in partitions:
            held.setdefault(holder, []).append(partition)
    sentence = " and ".join(f"{holder} holds {numbers}" for holder, numbers in held.items())
    return f"another projector works on partitions {list(partitions)}: {sentence or 'it has just let go'}"
