"""How often keys were used, by hour or by day: one key, those of a user, or all of an organisation."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from psycopg import Connection, sql
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
_USES: Final = sql.SQL("""
    SELECT left(hour, %(kept)s) || %(rest)s AS start, outcome, sum(count)::bigint AS count FROM key_usage_hours
    WHERE {whose} AND hour >= %(from)s AND hour < %(to)s
    GROUP BY 1, 2 ORDER BY 1, 2
""")
_OF_ORG: Final = sql.SQL("org_id = %(org)s")
_OF_KEY: Final = sql.SQL("org_id = %(org)s AND key_id = %(key)s")
# As an array, so that the uses of each key are looked up and not those of all keys gone through.
_OF_USER: Final = sql.SQL(
    "org_id = %(org)s AND key_id = ANY (ARRAY(SELECT key_id FROM keys WHERE org_id = %(org)s AND user_id = %(user)s))"
)


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose uses are asked for: those of one key, of the keys of one user, or with neither of all in an organisation."""

    org: str
    user: str | None = None
    key: str | None = None

    @property
    def condition(self) -> sql.SQL:
        """On rows of `key_usage_hours`; it takes the fields of this object as parameters."""
        if self.key is not None:
            return _OF_KEY
        return _OF_ORG if self.user is None else _OF_USER


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


def by_step(connection: Connection[DictRow], whose: Whose, asked: Period) -> dict[str, Any]:
    """The counts by hour or UTC day and outcome, oldest first; where there was none, there is no item."""
    kept = _KEPT[asked.step]
    values = asdict(whose) | {"from": asked.start, "to": asked.end, "kept": kept, "rest": _REST[kept:]}
    items = connection.execute(_USES.format(whose=whose.condition), values).fetchall()
    return {"items": items, "from": asked.start, "to": asked.end, "step": asked.step}
