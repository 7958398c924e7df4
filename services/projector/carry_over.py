"""What a rebuild cannot make again, because its records have left the log, is taken over from the live tables."""

from collections.abc import Mapping
from typing import Any, Final, LiteralString

from psycopg import sql

from services.ledger.records import TopicPartition
from services.projector.database import Writer
from services.projector.quarantine import KEYLESS

# Uses up to the hour of the first record that is left: those of that very hour are partly gone.
_HOURS: Final = (
    "DELETE FROM {rebuilt}.key_usage_hours WHERE hour <= %(hour)s",
    "INSERT INTO {rebuilt}.key_usage_hours SELECT * FROM {live}.key_usage_hours WHERE hour <= %(hour)s",
)
# The last use is of the hours of which the log holds everything, or from before them, and then the live tables know it.
# A key's hours may be forgotten while its totals stay: how many those were, only the live tables know.
_KEYS: Final = (
    """
    INSERT INTO {rebuilt}.key_usage AS made SELECT
        org_id, key_id, uses, valid_uses,
        CASE WHEN is_older THEN last_used_at ELSE '' END, CASE WHEN is_older THEN last_used_ip ELSE '' END,
        CASE WHEN is_older THEN last_used_agent ELSE '' END, CASE WHEN is_older THEN last_used_source ELSE '' END
    FROM (SELECT *, left(last_used_at, 13) <= left(%(hour)s, 13) AS is_older FROM {live}.key_usage) AS live
    ON CONFLICT (org_id, key_id) DO UPDATE SET
        (last_used_at, last_used_ip, last_used_agent, last_used_source) = (
            SELECT * FROM (VALUES
                (made.last_used_at, made.last_used_ip, made.last_used_agent, made.last_used_source),
                (EXCLUDED.last_used_at, EXCLUDED.last_used_ip, EXCLUDED.last_used_agent, EXCLUDED.last_used_source)
            ) AS one ORDER BY one DESC LIMIT 1
        )
    """,
    """
    UPDATE {rebuilt}.key_usage AS made SET
        uses = GREATEST(live.uses, hours.uses), valid_uses = GREATEST(live.valid_uses, hours.valid_uses)
    FROM (
        SELECT org_id, key_id, sum(count) AS uses, COALESCE(sum(count) FILTER (WHERE outcome = 'VALID'), 0) AS valid_uses
        FROM {rebuilt}.key_usage_hours GROUP BY org_id, key_id
    ) AS hours FULL JOIN {live}.key_usage AS live USING (org_id, key_id)
    WHERE made.org_id = COALESCE(live.org_id, hours.org_id) AND made.key_id = COALESCE(live.key_id, hours.key_id)
    """,
)
# Nothing but this text goes into the statements.
_CUT: Final = "(SELECT * FROM unnest(%(topics)s::text[], %(partitions)s::integer[]))"
_SENDERS: Final = (
    f"DELETE FROM {{rebuilt}}.usage_sources WHERE (topic, partition) IN {_CUT}",  # noqa: S608
    f"INSERT INTO {{rebuilt}}.usage_sources SELECT * FROM {{live}}.usage_sources WHERE (topic, partition) IN {_CUT}",  # noqa: S608
    f"DELETE FROM {{rebuilt}}.usage_gaps WHERE (topic, partition) IN {_CUT}",  # noqa: S608
    f"INSERT INTO {{rebuilt}}.usage_gaps SELECT * FROM {{live}}.usage_gaps WHERE (topic, partition) IN {_CUT}",  # noqa: S608
    "INSERT INTO {rebuilt}.external_usage_ids SELECT * FROM {live}.external_usage_ids ON CONFLICT DO NOTHING",
)
_HELD: Final = """
    INSERT INTO {rebuilt}.usage_quarantine SELECT held.* FROM {live}.usage_quarantine AS held
    JOIN unnest(%(topics)s::text[], %(partitions)s::integer[], %(first)s::bigint[]) AS cut (topic, partition, first)
    ON held.topic = cut.topic AND held.partition = cut.partition AND held."offset" < cut.first
    ON CONFLICT DO NOTHING
"""
# A partition whose records are all gone has no checkpoint yet; of one that lost some, the live one knows if it read them.
_PLACES: Final = (
    f"DELETE FROM {{rebuilt}}.checkpoints WHERE (topic, partition) IN {_CUT}",  # noqa: S608
    "INSERT INTO {rebuilt}.checkpoints SELECT * FROM {live}.checkpoints ON CONFLICT DO NOTHING",
)
_NOTES: Final = (
    "DELETE FROM {rebuilt}.usage_losses",
    "INSERT INTO {rebuilt}.usage_losses TABLE {live}.usage_losses",
    "DELETE FROM {rebuilt}.freshness",
    "INSERT INTO {rebuilt}.freshness TABLE {live}.freshness",
    # How far lifecycle was when a use was judged is not in the log.
    """
    UPDATE {rebuilt}.usage_quarantine AS made SET reason = live.reason FROM {live}.usage_quarantine AS live
    WHERE made.topic = live.topic AND made.partition = live.partition AND made."offset" = live."offset"
        AND made.reason = ANY (%(keyless)s) AND live.reason = ANY (%(keyless)s) AND made.reason <> live.reason
    """,
)


def carry_over_uses(session: Writer, live: str, rebuilt: str, trimmed: Mapping[TopicPartition, int], hour: str) -> None:
    """Complete the tables of key use in the schema `rebuilt` from `live`; both must stand at the same places.

    `trimmed` are the partitions that no longer begin at offset 0, each with its first one, `hour` is the newest hour of
    which uses may be gone. Raises psycopg.Error.
    """
    if not trimmed:
        return
    values = {
        "hour": hour,
        "topics": [at.topic for at in trimmed],
        "partitions": [at.partition for at in trimmed],
        "first": list(trimmed.values()),
    }
    for statement in (*_HOURS, *_KEYS, *_SENDERS, _HELD, *_PLACES):
        _run(session, statement, live, rebuilt, values)


def carry_over_notes(session: Writer, live: str, rebuilt: str) -> None:
    """Copy what live projectors wrote down about themselves; again is nothing. Raises psycopg.Error."""
    for statement in _NOTES:
        _run(session, statement, live, rebuilt, {"keyless": list(KEYLESS)})


def _run(session: Writer, statement: LiteralString, live: str, rebuilt: str, values: Mapping[str, Any]) -> None:
    names = {"live": sql.Identifier(live), "rebuilt": sql.Identifier(rebuilt)}
    session.execute(sql.SQL(statement).format(**names), values)
