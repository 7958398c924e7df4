"""What a leaked key could have touched: its life, what was done with it, from where, and what else is near it."""

from typing import Any, Final

from psycopg import Connection
from psycopg.rows import DictRow

from services.projector.access import not_found
from services.projector.archive import ledger
from services.projector.as_of import keys_as_of
from services.projector.histories import entry

MOST_NEIGHBOURS: Final = 1000
"""Behind one address of a large company is everybody; more are cut off, and `neighbours_cut` says so."""
_LIFE: Final = """
    SELECT value, hash, parent, outcome FROM ledger_records
    WHERE org_id = %(org)s AND key_id = %(key)s AND outcome = 'applied' ORDER BY revision
"""
_COMMANDS: Final = """
    SELECT value, hash, parent, outcome FROM ledger_records
    WHERE org_id = %(org)s AND outcome = 'applied' AND convert_from(value, 'UTF8')::json ->> 'authkey' = %(key)s
    ORDER BY revision
"""
_ADDRESSES: Final = """
    SELECT nullif(ip, '') AS ip, outcome, sum(count)::bigint AS count, min(first_at) AS first_at, max(last_at) AS last_at
    FROM key_usage_hours WHERE org_id = %(org)s AND key_id = %(key)s GROUP BY ip, outcome ORDER BY 4, 1, 2
"""
_NEIGHBOURS: Final = """
    SELECT key_id, user_id, ip, sum(count)::bigint AS count, min(first_at) AS first_at, max(last_at) AS last_at
    FROM key_usage_hours
    WHERE org_id = %(org)s AND key_id <> %(key)s AND ip IN (
        SELECT ip FROM key_usage_hours WHERE org_id = %(org)s AND key_id = %(key)s AND outcome = 'VALID' AND ip <> ''
    )
    GROUP BY key_id, user_id, ip ORDER BY 6 DESC, 1, 3 LIMIT %(most)s
"""


def blast_radius(connection: Connection[DictRow], org: str, key_id: str, at: str) -> dict[str, Any]:
    """Everything about a key up to now (`at`, RFC 3339), for one document:

    `key` as it is now; `life`, its events; `commands`, the events that it was the credential of; `addresses`, its uses by
    address and outcome; `siblings`, the other keys of its owner; `neighbours`, other keys of the organisation that were
    used from an address where this one was good. Raises Problem 404, BrokenArchive, UndecodableEvent and psycopg.Error.
    """
    keys = keys_as_of((one.envelope for one in ledger(connection, org)), at)
    key = next((key for key in keys if key.key_id == key_id), None)
    if key is None:
        raise not_found()
    values = {"org": org, "key": key_id, "most": MOST_NEIGHBOURS + 1}
    asked = {
        name: connection.execute(text.encode(), values).fetchall()
        for name, text in (
            *(("life", _LIFE), ("commands", _COMMANDS)),
            *(("addresses", _ADDRESSES), ("neighbours", _NEIGHBOURS)),
        )
    }
    return {
        "key": key.document(),
        "life": [entry(row) for row in asked["life"]],
        "commands": [entry(row) for row in asked["commands"]],
        "addresses": asked["addresses"],
        "siblings": [one.document() for one in keys if one.user_id == key.user_id and one is not key],
        "neighbours": asked["neighbours"][:MOST_NEIGHBOURS],
        "neighbours_cut": len(asked["neighbours"]) > MOST_NEIGHBOURS,
    }
