"""What a rebuild cannot make again, because its records have left the log, is taken over from the live tables."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

from psycopg import sql

from schemas.topics import EXTERNAL_USAGE, USAGE
from services.ledger.records import TopicPartition
from services.projector.database import Writer

# Uses up to the hour of the first record that is left: those of that very hour are partly gone.
_HOURS: Final = (
    "DELETE FROM {rebuilt}.key_usage_hours WHERE hour <= %(hour)s",
    "INSERT INTO {rebuilt}.key_usage_hours SELECT * FROM {live}.key_usage_hours WHERE hour <= %(hour)s",
)
# The uses of a key are the sum of its hours.
_KEYS: Final = (
    "DELETE FROM {rebuilt}.key_usage",
    """
    INSERT INTO {rebuilt}.key_usage (org_id, key_id, uses, valid_uses, last_used_at, last_used_ip)
    SELECT
        org_id, key_id, sum(count), COALESCE(sum(count) FILTER (WHERE outcome = 'VALID'), 0),
        COALESCE(max(last_at) FILTER (WHERE outcome = 'VALID'), ''),
        COALESCE((array_agg(ip ORDER BY last_at DESC, ip DESC) FILTER (WHERE outcome = 'VALID'))[1], '')
    FROM {rebuilt}.key_usage_hours GROUP BY org_id, key_id
    """,
)
_SENDERS: Final = (
    "DELETE FROM {rebuilt}.usage_sources WHERE partition = ANY (%(own)s)",
    "INSERT INTO {rebuilt}.usage_sources SELECT * FROM {live}.usage_sources WHERE partition = ANY (%(own)s)",
    "DELETE FROM {rebuilt}.usage_gaps WHERE partition = ANY (%(own)s)",
    "INSERT INTO {rebuilt}.usage_gaps SELECT * FROM {live}.usage_gaps WHERE partition = ANY (%(own)s)",
    "INSERT INTO {rebuilt}.external_usage_ids SELECT * FROM {live}.external_usage_ids ON CONFLICT DO NOTHING",
)
# A partition whose records are all gone has no checkpoint yet; of one that lost some, the live one knows if it read them.
_PLACES: Final = (
    """
    DELETE FROM {rebuilt}.checkpoints WHERE (topic = %(usage)s AND partition = ANY (%(own)s))
        OR (topic = %(external)s AND partition = ANY (%(others)s))
    """,
    "INSERT INTO {rebuilt}.checkpoints SELECT * FROM {live}.checkpoints ON CONFLICT DO NOTHING",
)
_NOTES: Final = (
    "DELETE FROM {rebuilt}.usage_losses",
    "INSERT INTO {rebuilt}.usage_losses TABLE {live}.usage_losses",
    "DELETE FROM {rebuilt}.freshness",
    "INSERT INTO {rebuilt}.freshness TABLE {live}.freshness",
)


def carry_over_uses(session: Writer, live: str, rebuilt: str, trimmed: Sequence[TopicPartition], hour: str) -> None:
    """Complete the tables of key use in the schema `rebuilt` from `live`; both must stand at the same places.

    `trimmed` are the partitions that no longer begin at offset 0, `hour` is the newest hour of which uses may be gone.
    Raises psycopg.Error.
    """
    if not trimmed:
        return
    values = {
        "hour": hour,
        "usage": USAGE,
        "external": EXTERNAL_USAGE,
        "own": [at.partition for at in trimmed if at.topic == USAGE],
        "others": [at.partition for at in trimmed if at.topic == EXTERNAL_USAGE],
    }
    for statement in (*_HOURS, *_KEYS, *_SENDERS, *_PLACES):
        _run(session, statement, live, rebuilt, values)


def carry_over_notes(session: Writer, live: str, rebuilt: str) -> None:
    """Copy what live projectors wrote down about themselves; again is nothing. Raises psycopg.Error."""
    for statement in _NOTES:
        _run(session, statement, live, rebuilt, {})


def _run(session: Writer, statement: LiteralString, live: str, rebuilt: str, values: Mapping[str, Any]) -> None:
    names = {"live": sql.Identifier(live), "rebuilt": sql.Identifier(rebuilt)}
    session.execute(sql.SQL(statement).format(**names), values)
