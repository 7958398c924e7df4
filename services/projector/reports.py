"""What `keyledger projector` and `keyledger usage` tell an operator, each asked of PostgreSQL once."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final, NamedTuple

import msgspec
import psycopg

from schemas.times import wall_clock_ms
from services.ledger.kafka_log import KafkaLog
from services.projector import missing_uses
from services.projector.database import Writer, connect
from services.projector.printed import Cell, table
from services.projector.standing import Standing, standing

_SHOWN: Final = 3
_PARTITION_HEADINGS: Final = ("topic", "partition", "behind", "seconds", "in/s", "done/s", "held by")


class DatabaseAway(ConnectionError):
    """PostgreSQL does not answer, or not in time."""


class Report(NamedTuple):
    """The same as `text` for a person and as a `document` for a program; `is_good` when nobody needs to do anything."""

    text: str
    document: Any
    is_good: bool


def projector_status(database_url: str, bootstrap: str, over_s: float, most_behind_s: float) -> Report:
    """How far the projectors are. Raises DatabaseAway, LogUnavailable, and ValueError where there are no tables."""
    with _reading(database_url) as session, closing(KafkaLog(bootstrap, "projector-status")) as log:
        found = standing(session, log, wall_clock_ms, over_s, most_behind_s)
    return Report(_status_text(found), msgspec.to_builtins(found), not found.wrong)


def usage_gaps(database_url: str) -> Report:
    """The numbers of key use that never came. Raises DatabaseAway, and ValueError where there are no tables."""
    with _reading(database_url) as session:
        found = missing_uses.gaps(session)
    headings = ("topic", "source", "partition", "last", "missing", "ranges")
    rows = [(one.topic, one.source, one.partition, one.last, one.missing, _ranges(one.ranges)) for one in found]
    text = table(headings, rows) or "No number is missing."
    return Report(text, msgspec.to_builtins(found), not found)


def usage_quarantine(database_url: str, org: str | None) -> Report:
    """The uses in quarantine, of one organisation or all. Raises DatabaseAway, and ValueError where there are no tables."""
    with _reading(database_url) as session:
        found = missing_uses.quarantined(session, org)
    headings = ("reason", "topic", "source", "records", "uses", "first sent", "last sent")
    text = table(headings, [msgspec.structs.astuple(one) for one in found]) or "Nothing is in quarantine."
    return Report(text, msgspec.to_builtins(found), not found)


@contextmanager
def _reading(database_url: str) -> Iterator[Writer]:
    """A session that cannot write, and waits for nothing for long."""
    try:
        with closing(connect(database_url, "keyledger-report")) as session:
            session.execute("SET default_transaction_read_only TO on")
            session.execute("SET statement_timeout TO '60s'")
            yield session
    except psycopg.OperationalError as error:
        raise DatabaseAway(f"PostgreSQL does not answer: {_sentence(error)}") from error
    except psycopg.ProgrammingError as error:
        raise ValueError(f"DATABASE_URL leads to no tables of a projector: {_sentence(error)}") from error


def _sentence(error: psycopg.Error) -> str:
    return error.diag.message_primary or " ".join(str(error).split())


def _status_text(found: Standing) -> str:
    rows: list[tuple[Cell, ...]] = [
        (
            one.topic,
            one.partition,
            one.behind,
            one.behind_s,
            round(one.appended_per_s),
            round(one.projected_per_s),
            one.held_by,
        )
        for one in found.partitions
    ]
    behind = sum(one.behind for one in found.partitions)
    longest_s = max(one.behind_s or 0.0 for one in found.partitions)
    appended, projected = (
        round(sum(rates))
        for rates in zip(*((one.appended_per_s, one.projected_per_s) for one in found.partitions), strict=True)
    )
    rows.append(("all", None, behind, longest_s, appended, projected, None))
    reasons = ", ".join(f"{reason} {records}" for reason, records in found.quarantine.items())
    return "\n".join(
        [
            table(_PARTITION_HEADINGS, rows),
            "",
            f"quarantine: {sum(found.quarantine.values())} records" + (f" ({reasons})" if reasons else ""),
            f"gaps: {found.missing} numbers missing in {found.gaps} ranges",
            f"expired unread: {found.expired} records",
            f"halted: {found.orgs_halted} organisations",
            *(f"WRONG: {sentence}" for sentence in found.wrong),
        ]
    )


def _ranges(ranges: list[tuple[int, int]]) -> str:
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_SHOWN]]
    more = len(ranges) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
