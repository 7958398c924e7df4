"""The reads for a command line whose machine may reach PostgreSQL: no caller to judge, no limit of time or page."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from schemas.decoder import UndecodableEvent
from schemas.problems import Problem
from schemas.times import to_text, wall_clock_ms
from services.projector import archive, histories, parameters
from services.projector.archive import BrokenArchive
from services.projector.as_of import KeyThen, keys_as_of
from services.projector.blast_radius import blast_radius
from services.projector.database import read_pool
from services.projector.reads import Reads, View

_AT_ONCE = 1000


class Refused(Exception):
    """There is no such thing, or what is there is not what was hashed or signed; the message says which."""


def history(database_url: str, org: str, asked: Mapping[str, str], as_stored: bool = False) -> Iterator[Any]:
    """History entries of an organisation, oldest first, or the stored bytes of its events; `asked` has the parameters of
    the read API's call.

    Raises ValueError for a bad one, Refused, and ConnectionError.
    """
    if as_stored and "uses" in asked:
        raise ValueError("uses are kept as counts, not as events: leave one of the two out")
    cursor: str | None = None
    query = replace(_parsed(asked, parameters.ORG_HISTORY), limit=_AT_ONCE)
    with _view(database_url, org) as view:
        while True:
            entries, cursor = histories.of_org(
                view.connection, org, replace(query, cursor=cursor), histories.stored if as_stored else None
            )
            yield from entries
            if cursor is None:
                return


def as_of(database_url: str, org: str, at: str) -> tuple[str, list[KeyThen]]:
    """The moment as events have it, and the keys at it. Raises as `history` does."""
    moment = _parsed({"at": at}, parameters.AS_OF).at or ""
    with _view(database_url, org) as view:
        return moment, keys_as_of((one.envelope for one in archive.ledger(view.connection, org)), moment)


def around(database_url: str, org: str, key_id: str) -> dict[str, Any]:
    """The BlastRadius of a key as of now. Raises as `history` does."""
    with _view(database_url, org) as view:
        return blast_radius(view.connection, org, key_id, to_text(wall_clock_ms()))


def replayed(database_url: str, org: str, after: int, since: str | None) -> list[tuple[int, bytes]]:
    """The next thousand events after a revision, and not before a time: revision and exact bytes. Raises as `history`."""
    moment = _parsed({} if since is None else {"since": since}, parameters.REPLAY).since or ""
    with _view(database_url, org) as view:
        return archive.values(view.connection, org, after, moment, _AT_ONCE)


def _parsed(asked: Mapping[str, str], allowed: tuple[str, ...]) -> parameters.Parameters:
    try:
        return parameters.parse({name: [value] for name, value in asked.items()}, allowed)
    except Problem as problem:
        wrong = "; ".join(f"{pointer.lstrip('/')} {detail}" for pointer, detail in problem.errors)
        raise ValueError(wrong) from problem


@contextmanager
def _view(database_url: str, org: str) -> Iterator[View]:
    try:
        with read_pool(database_url, 1, timeout_ms=0) as pool, Reads(pool).view(org) as view:
            yield view
    except Problem as problem:
        raise Refused(f"{org}: {problem.detail}") from problem
    except (BrokenArchive, UndecodableEvent) as error:
        raise Refused(str(error)) from error
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise ConnectionError(f"PostgreSQL does not answer: {' '.join(str(error).split())}") from error
    except psycopg.ProgrammingError as error:
        raise ValueError(f"DATABASE_URL leads to no tables of a projector: {error}") from error
