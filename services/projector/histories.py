"""Histories: what the archive and the usage tables say about an organisation or a key, oldest first."""

import re
from typing import Any, Final

import msgspec
from psycopg import Connection
from psycopg.rows import DictRow

from schemas.times import SHAPE
from services.projector.parameters import Parameters, from_cursor, to_cursor

_ORG_SHAPES: Final = (int, int)
_KEY_SHAPES: Final = (re.compile(f"(?:{SHAPE})?"), int, re.compile(r"[0-9A-Za-z_:./-]{0,200}"))
_ORG_HISTORY: Final = """
    SELECT revision, "offset", value, hash, parent, outcome FROM ledger_records
    WHERE org_id = %(org)s AND outcome = ANY (%(outcomes)s)
    AND (revision, "offset") > (%(after_revision)s, %(after_offset)s)
    ORDER BY revision, "offset" LIMIT %(most)s
"""
# Uses stand between the events by the time of the first of them; `tie` makes the order total.
_KEY_HISTORY: Final = """
    SELECT * FROM (
        SELECT
            time, 0 AS rank, to_char(revision, 'FM0000000000000000') || ':' || "offset" AS tie,
            value, hash, parent, outcome, NULL::bigint AS count, NULL AS last_at, NULL AS hour, NULL AS ip
        FROM ledger_records WHERE org_id = %(org)s AND key_id = %(key)s AND outcome = ANY (%(outcomes)s)
        UNION ALL
        SELECT
            first_at, 1, hour || ':' || outcome || ':' || ip || ':' || user_id,
            NULL, NULL, NULL, outcome, count, last_at, hour, ip
        FROM key_usage_hours WHERE org_id = %(org)s AND key_id = %(key)s AND %(uses)s
    ) AS entry
    WHERE (time, rank, tie) > (%(after_time)s, %(after_rank)s, %(after_tie)s)
    ORDER BY time, rank, tie LIMIT %(most)s
"""
Entries = tuple[list[dict[str, Any]], str | None]
"""History entries as they are answered, and the cursor of the next page."""


def of_org(connection: Connection[DictRow], org: str, query: Parameters) -> Entries:
    """Every event of an organisation, with void ones where asked. Raises Problem 400 for a bad cursor."""
    after = from_cursor(query.cursor, _ORG_SHAPES) or [0, -1]
    values = {"org": org, "outcomes": _outcomes(query), "most": query.limit + 1}
    values |= {"after_revision": after[0], "after_offset": after[1]}
    rows = connection.execute(_ORG_HISTORY, values).fetchall()
    entries = [_event(row) for row in rows[: query.limit]]
    last = rows[query.limit - 1] if len(rows) > query.limit else None
    return entries, to_cursor([last["revision"], last["offset"]]) if last else None


def of_key(connection: Connection[DictRow], org: str, key_id: str, query: Parameters) -> Entries:
    """The events of a key, merged by time with its uses by hour, outcome and address unless those are excluded.

    Raises Problem 400 for a bad cursor.
    """
    after = from_cursor(query.cursor, _KEY_SHAPES) or ["", -1, ""]
    values = {"org": org, "key": key_id, "outcomes": _outcomes(query), "most": query.limit + 1}
    values |= {"uses": query.uses, "after_time": after[0], "after_rank": after[1], "after_tie": after[2]}
    rows = connection.execute(_KEY_HISTORY, values).fetchall()
    entries = [_event(row) if row["rank"] == 0 else _uses(row) for row in rows[: query.limit]]
    last = rows[query.limit - 1] if len(rows) > query.limit else None
    return entries, to_cursor([last["time"], last["rank"], last["tie"]]) if last else None


def _outcomes(query: Parameters) -> list[str]:
    return ["applied", "void"] if query.void else ["applied"]


def _event(row: DictRow) -> dict[str, Any]:
    document = msgspec.json.decode(row["value"])
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


def _uses(row: DictRow) -> dict[str, Any]:
    data = {
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
