"""The tables of key use: folded in memory per key and hour, then one statement per table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from schemas.events import KeyUsed
from services.projector.database import Writer
from services.projector.read_models.rows import transposed, upsert

VALID: Final = "VALID"
_USE_COLUMNS: Final = {
    "org_id": "text",
    "key_id": "text",
    "uses": "bigint",
    "valid_uses": "bigint",
    "last_used_at": "text",
    "last_used_ip": "text",
}
_ADD_USES: Final = sql.SQL(
    """UPDATE SET
    uses = key_usage.uses + EXCLUDED.uses,
    valid_uses = key_usage.valid_uses + EXCLUDED.valid_uses,
    last_used_at = GREATEST(key_usage.last_used_at, EXCLUDED.last_used_at),
    last_used_ip = CASE
        WHEN (EXCLUDED.last_used_at, EXCLUDED.last_used_ip) > (key_usage.last_used_at, key_usage.last_used_ip)
        THEN EXCLUDED.last_used_ip ELSE key_usage.last_used_ip
    END"""
)
_HOUR_COLUMNS: Final = {
    "org_id": "text",
    "key_id": "text",
    "hour": "text",
    "outcome": "text",
    "ip": "text",
    "user_id": "text",
    "count": "bigint",
    "first_at": "text",
    "last_at": "text",
}
_ADD_HOUR: Final = sql.SQL(
    """UPDATE SET
    count = key_usage_hours.count + EXCLUDED.count,
    first_at = LEAST(key_usage_hours.first_at, EXCLUDED.first_at),
    last_at = GREATEST(key_usage_hours.last_at, EXCLUDED.last_at)"""
)


@dataclass(slots=True)
class _Uses:
    uses: int = 0
    valid_uses: int = 0
    last: tuple[str, str] = ("", "")


@dataclass(slots=True)
class _Hour:
    count: int
    first_at: str
    last_at: str


class UsageRows:
    """The uses of a batch. They are counted by key id alone: a KeyUsed can overtake its KeyCreated."""

    def __init__(self) -> None:
        self._uses: dict[tuple[str, str], _Uses] = {}
        self._hours: dict[tuple[str, str, str, str, str, str], _Hour] = {}

    def add(self, used: KeyUsed) -> None:
        """Take one event in."""
        key, ip = (used.org_id, used.key_id), used.ip or ""
        uses = self._uses.get(key)
        if uses is None:
            uses = self._uses[key] = _Uses()
        uses.uses += used.count
        if used.outcome == VALID:
            uses.valid_uses += used.count
            uses.last = max(uses.last, (used.last_at, ip))
        place = (*key, hour_of(used.first_at), used.outcome, ip, used.user_id)
        hour = self._hours.get(place)
        if hour is None:
            self._hours[place] = _Hour(used.count, used.first_at, used.last_at)
        else:
            hour.count += used.count
            hour.first_at = min(hour.first_at, used.first_at)
            hour.last_at = max(hour.last_at, used.last_at)

    def write(self, connection: Writer) -> None:
        """Add to what is stored. Raises psycopg.Error."""
        # Sorted, because processes with other partitions may add to the same rows: so none waits for the other in a ring.
        uses = sorted((*key, row.uses, row.valid_uses, *row.last) for key, row in self._uses.items())
        upsert(connection, "key_usage", _USE_COLUMNS, uses, key=["org_id", "key_id"], update=_ADD_USES)
        hours = sorted((*place, row.count, row.first_at, row.last_at) for place, row in self._hours.items())
        upsert(connection, "key_usage_hours", _HOUR_COLUMNS, hours, key=list(_HOUR_COLUMNS)[:6], update=_ADD_HOUR)


def hour_of(time: str) -> str:
    """The start of the hour of a time."""
    return time[:13] + ":00:00.000Z"


def unseen(connection: Writer, ids: Mapping[tuple[str, str], int]) -> Callable[[tuple[str, str]], bool]:
    """Remember the (source, id) of external records; tells of each, once, whether it was not seen before.

    `ids` are at least one, each with the time of its record in milliseconds.
    """
    wanted = sorted((*id_, sent_ms) for id_, sent_ms in ids.items())
    fresh = set(
        connection.execute(
            "INSERT INTO external_usage_ids SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[])"
            " ON CONFLICT DO NOTHING RETURNING source, id",
            transposed(wanted),
        ).fetchall()
    )

    def take(sender_id: tuple[str, str]) -> bool:
        if sender_id not in fresh:
            return False
        fresh.discard(sender_id)
        return True

    return take
