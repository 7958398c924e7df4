"""Histories: what the archive and the usage tables say about an organisation or a key, oldest first."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import msgspec
from psycopg import Connection
from psycopg.rows import DictRow

from schemas.times import SHAPE
from services.projector.archive import BrokenArchive
from services.projector.parameters import Parameters, from_cursor, to_cursor

_ORG_SHAPES: Final = (int, int)
_MERGED_SHAPES: Final = (re.compile(f"(?:{SHAPE})?"), int, re.compile(r"[0-9A-Za-z_:./-]{0,300}"))
# Who owns a key is what its KeyCreated says; a table of keys says it too, but nothing proves that.
_EVENTS: Final = """
    FROM ledger_records WHERE org_id = %(org)s AND outcome = ANY (%(outcomes)s)
    AND (%(key)s::text IS NULL OR key_id = %(key)s)
    AND (%(actor)s::text IS NULL OR convert_from(value, 'UTF8')::json ->> 'authid' = %(actor)s)
    AND (%(type)s::text IS NULL OR convert_from(value, 'UTF8')::json ->> 'type' = %(type)s)
    AND (%(user)s::text IS NULL
        OR convert_from(value, 'UTF8')::json #>> '{data,user_id}' = %(user)s
        OR key_id IN (
            SELECT key_id FROM ledger_records
            WHERE org_id = %(org)s AND key_id IS NOT NULL AND outcome = 'applied'
            AND convert_from(value, 'UTF8')::json #>> '{data,user_id}' = %(user)s
        ))
    AND (%(since)s::text IS NULL OR time >= %(since)s) AND (%(until)s::text IS NULL OR time <= %(until)s)
"""
_USES: Final = """
    FROM key_usage_hours WHERE %(uses)s AND org_id = %(org)s
    AND (%(key)s::text IS NULL OR key_id = %(key)s) AND (%(user)s::text IS NULL OR user_id = %(user)s)
    AND %(actor)s::text IS NULL AND coalesce(%(type)s, 'KeyUsed') = 'KeyUsed'
    AND (%(since)s::text IS NULL OR last_at >= %(since)s) AND (%(until)s::text IS NULL OR first_at <= %(until)s)
"""
_ORG_HISTORY: Final = f"""
    SELECT revision, "offset", value, hash, parent, outcome {_EVENTS}
    AND (revision, "offset") > (%(after_revision)s, %(after_offset)s)
    ORDER BY revision, "offset" LIMIT %(most)s
"""
# Uses stand between the events by the time of the first of them; `tie` makes the order total.
_MERGED_HISTORY: Final = f"""
    SELECT * FROM (
        SELECT
            time, 0 AS rank, to_char(revision, 'FM0000000000000000') || ':' || "offset" AS tie,
            value, hash, parent, outcome, key_id, NULL::bigint AS count, NULL AS last_at, NULL AS hour, NULL AS ip
        {_EVENTS}
        UNION ALL
        SELECT
            first_at, 1, hour || ':' || key_id || ':' || outcome || ':' || ip || ':' || user_id,
            NULL, NULL, NULL, outcome, key_id, count, last_at, hour, ip
        {_USES}
    ) AS entry
    WHERE (time, rank, tie) > (%(after_time)s, %(after_rank)s, %(after_tie)s)
    ORDER BY time, rank, tie LIMIT %(most)s
"""  # noqa: S608  # Both parts are constants.
Entries = tuple[list[dict[str, Any]], str | None]
"""History entries as they are answered, and the cursor of the next page."""


def of_org(
    connection: Connection[DictRow], org: str, query: Parameters, form: Callable[[DictRow], Any] | None = None
) -> Entries:
    """Every event of an organisation that was asked for, with void ones and with uses where asked.

    `form` makes of an event's row what is wanted instead of a HistoryEntry; uses have no other form.

    Raises Problem 400 for a bad cursor, and BrokenArchive for a row whose bytes are not those that were hashed.
    """
    if query.uses:
        return _merged(connection, org, query)
    after = from_cursor(query.cursor, _ORG_SHAPES) or [0, -1]
    values = _values(org, query) | {"after_revision": after[0], "after_offset": after[1]}
    rows = connection.execute(_ORG_HISTORY.encode(), values).fetchall()
    entries = [(form or entry)(row) for row in rows[: query.limit]]
    last = rows[query.limit - 1] if len(rows) > query.limit else None
    return entries, to_cursor([last["revision"], last["offset"]]) if last else None


def of_key(connection: Connection[DictRow], org: str, key_id: str, query: Parameters) -> Entries:
    """The events of a key, merged by time with its uses by hour, outcome and address unless those are excluded.

    Raises as `of_org` does.
    """
    return _merged(connection, org, replace(query, key=key_id), query.uses is not False)


def _merged(connection: Connection[DictRow], org: str, query: Parameters, with_uses: bool = True) -> Entries:
    after = from_cursor(query.cursor, _MERGED_SHAPES) or ["", -1, ""]
    values = _values(org, query) | {"after_time": after[0], "after_rank": after[1], "after_tie": after[2]}
    values["uses"] = with_uses
    rows = connection.execute(_MERGED_HISTORY.encode(), values).fetchall()
    entries = [entry(row) if row["rank"] == 0 else _uses(row) for row in rows[: query.limit]]
    last = rows[query.limit - 1] if len(rows) > query.limit else None
    return entries, to_cursor([last["time"], last["rank"], last["tie"]]) if last else None


def _values(org: str, query: Parameters) -> dict[str, Any]:
    filters = {name: getattr(query, name) for name in ("key", "user", "actor", "type", "since", "until")}
    return filters | {"org": org, "outcomes": _outcomes(query), "most": query.limit + 1}


def _outcomes(query: Parameters) -> list[str]:
    return ["applied", "void"] if query.void else ["applied"]


def entry(row: DictRow) -> dict[str, Any]:
    """An event of the archive as a HistoryEntry, from `value`, `hash`, `parent` and `outcome`. Raises BrokenArchive."""
    document = msgspec.json.decode(stored(row))
    actor = {"user_id": document.get("authid"), "type": document.get("authtype")}
    if document.get("authkey") is not None:
        actor["key_id"] = document["authkey"]
    data = document.get("data")
    if isinstance(data, dict):
        data.pop("digest", None)  # Nobody can use it, and what looks like a secret makes people ask.
    return {
        "revision": document["revision"],
        "type": document.get("type"),
        "time": document.get("time"),
        "actor": actor,
        "data": data,
        "hash": row["hash"],
        "parent": row["parent"],
        "void": row["outcome"] == "void",
    }


def stored(row: DictRow) -> bytes:
    """The exact bytes of an event. Raises BrokenArchive when they are not those that were hashed."""
    value: bytes = row["value"]
    if hashlib.sha256(value).hexdigest() != row["hash"]:
        raise BrokenArchive(f"the record whose hash was {row['hash']} has other bytes: the archive was edited")
    return value


def _uses(row: DictRow) -> dict[str, Any]:
    data = {
        "key_id": row["key_id"],
        "outcome": row["outcome"],
        "count": row["count"],
        "first_at": row["time"],
        "last_at": row["last_at"],
        "ip": row["ip"] or None,
        "hour": row["hour"],
    }
    return {
        "revision": None,
        "type": "KeyUsed",
        "time": row["time"],
        "actor": None,
        "data": data,
        "hash": None,
        "parent": None,
        "void": False,
    }
