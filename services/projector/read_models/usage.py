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
    "last_used_agent": "text",
    "last_used_source": "text",
}
_LAST: Final = list(_USE_COLUMNS)[4:]
# All of them are of one use, the newest; of two at the same moment every projector takes the same one.
_ADD_USES: Final = sql.SQL(
    "UPDATE SET uses = key_usage.uses + EXCLUDED.uses, valid_uses = key_usage.valid_uses + EXCLUDED.valid_uses, {last}"
).format(
    last=sql.SQL(", ").join(
        sql.SQL("{name} = CASE WHEN ({new}) > ({old}) THEN EXCLUDED.{name} ELSE key_usage.{name} END").format(
            name=sql.Identifier(name),
            new=sql.SQL(", ").join(sql.Identifier("excluded", one) for one in _LAST),
            old=sql.SQL(", ").join(sql.Identifier("key_usage", one) for one in _LAST),
        )
        for name in _LAST
    )
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
    last: tuple[str, str, str, str] = ("", "", "", "")


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

    def add(self, used: KeyUsed, source: str, user_id: str | None = None) -> None:
        """Take one event in; `user_id` where the owner is known to be this one, whatever the event says."""
        key = org_id, key_id = used.org_id, used.key_id
        outcome, ip = used.outcome, used.ip or ""
        count, first_at, last_at = used.count, used.first_at, used.last_at
        uses = self._uses.get(key)
        if uses is None:
            uses = self._uses[key] = _Uses()
        uses.uses += count
        if outcome == VALID:
            uses.valid_uses += count
            last = (last_at, ip, used.user_agent or "", source)
            if last > uses.last:  # noqa: PLR1730  # Calls would take longer than all the rest.
                uses.last = last
        place = (org_id, key_id, first_at[:13], outcome, ip, user_id or used.user_id)
        hour = self._hours.get(place)
        if hour is None:
            self._hours[place] = _Hour(count, first_at, last_at)
        else:
            hour.count += count
            if first_at < hour.first_at:  # noqa: PLR1730
                hour.first_at = first_at
            if last_at > hour.last_at:  # noqa: PLR1730
                hour.last_at = last_at

    def write(self, connection: Writer) -> None:
        """Add to what is stored. Raises psycopg.Error."""
        # Sorted, because processes with other partitions may add to the same rows: so none waits for the other in a ring.
        uses = sorted((*key, row.uses, row.valid_uses, *row.last) for key, row in self._uses.items())
        upsert(connection, "key_usage", _USE_COLUMNS, uses, key=["org_id", "key_id"], update=_ADD_USES)
        hours = sorted(
            (org, key, hour_of(hour), outcome, ip, user, row.count, row.first_at, row.last_at)
            for (org, key, hour, outcome, ip, user), row in self._hours.items()
        )
        upsert(connection, "key_usage_hours", _HOUR_COLUMNS, hours, key=list(_HOUR_COLUMNS)[:6], update=_ADD_HOUR)


def hour_of(time: str) -> str:
    """The start of the hour of a time."""
    return time[:13] + ":00:00.000Z"


def unseen(connection: Writer, ids: Mapping[tuple[str, str], int]) -> Callable[[tuple[str, str]], bool]:
    """Remember the (source, id) of external records; tells of each, once, whether it was not seen before.

    `ids` are those of a batch, each with the time of its record in milliseconds.
    """
    wanted = sorted((*id_, sent_ms) for id_, sent_ms in ids.items())
    fresh = set(
        connection.execute(
            "INSERT INTO external_usage_ids SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[])"
            " ON CONFLICT DO NOTHING RETURNING source, id",
            transposed(wanted),
        ).fetchall()
        if wanted
        else ()
    )

    def take(sender_id: tuple[str, str]) -> bool:
        if sender_id not in fresh:
            return False
        fresh.discard(sender_id)
        return True

    return take
