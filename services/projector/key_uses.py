"""How often a key was used, by hour or by day."""

from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import DictRow

from schemas.problems import malformed
from schemas.times import DAY_MS, EARLIEST_MS, to_ms, to_text
from services.projector.parameters import Parameters

_HOUR_MS: Final = 3600 * 1000
# By step: its length, how far back it looks where nothing else is asked for, and at most.
_STEPS: Final = {"hour": (_HOUR_MS, 48 * _HOUR_MS, 31 * DAY_MS), "day": (DAY_MS, 30 * DAY_MS, 400 * DAY_MS)}
# As many characters of an hour as its step keeps; the rest is that of a beginning.
_KEPT: Final = {"hour": 13, "day": 10}
_REST: Final = "0000-00-00T00:00:00.000Z"
_USES: Final = """
    SELECT left(hour, %(kept)s) || %(rest)s AS start, outcome, sum(count)::bigint AS count FROM key_usage_hours
    WHERE org_id = %(org)s AND key_id = %(key)s AND hour >= %(from)s AND hour < %(to)s
    GROUP BY 1, 2 ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Period:
    """The hours that begin at `start` or later, before `end`, by `step`."""

    start: str
    end: str
    step: str


def period(query: Parameters, now_ms: int) -> Period:
    """The period that is asked for. Pure. Raises Problem 400 when it ends before it starts, or is too long."""
    length_ms, usual_ms, most_ms = _STEPS[query.step]
    end_ms = now_ms if query.end is None else to_ms(query.end)
    usual_start_ms = end_ms - usual_ms
    # Without half an hour or half a day at its beginning.
    start_ms = max(EARLIEST_MS, usual_start_ms - usual_start_ms % length_ms)
    if query.start is not None:
        start_ms = to_ms(query.start)
        if start_ms > end_ms:
            raise malformed("the period ends before it starts", ("/from", "is later than `to`"))
        if end_ms - start_ms > most_ms:
            days = most_ms // DAY_MS
            raise malformed("the period is too long", ("/from", f"is more than {days} days before `to`"))
    return Period(to_text(start_ms), to_text(end_ms), query.step)


def of_key(connection: Connection[DictRow], org: str, key_id: str, asked: Period) -> dict[str, Any]:
    """The counts of a key by hour or UTC day and outcome, oldest first; where there was none, there is no item."""
    kept = _KEPT[asked.step]
    values = {"org": org, "key": key_id, "from": asked.start, "to": asked.end, "kept": kept, "rest": _REST[kept:]}
    items = connection.execute(_USES, values).fetchall()
    return {"items": items, "from": asked.start, "to": asked.end, "step": asked.step}
