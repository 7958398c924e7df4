"""What is not kept for ever, though nothing in the log says so: uses by hour and where they came from."""

import time
from collections.abc import Callable
from typing import Final

import psycopg
import structlog

from schemas.times import DAY_MS, EARLIEST_MS, to_ms, to_text
from schemas.topics import EXTERNAL_USAGE, TOPICS
from services.projector.database import OLD, SCHEMA, Writer
from services.projector.read_models.usage import hour_of

EVERY_S: Final = 3600.0
_EXTERNAL_MS: Final = next(int(topic.config["retention.ms"]) for topic in TOPICS if topic.name == EXTERNAL_USAGE)
# An address as it was told; not `other`, and not a network made here.
_EXACT: Final = "^[0-9A-Fa-f:.]+$"
_NETWORK: Final = "network(set_masklen({0}::inet, CASE family({0}::inet) WHEN 4 THEN 24 ELSE 48 END))::text"
_CUT_LAST_USED: Final = f"""
    UPDATE key_usage SET last_used_ip = {_NETWORK.format("last_used_ip")}
    WHERE last_used_at < %(before)s AND last_used_ip ~ %(exact)s
"""  # noqa: S608  # Nothing but the text above goes in.
# Rows that become equal are added up, also with one that was there; it is none of those deleted, for it has a mask.
_CUT_HOURS: Final = f"""
    WITH exact AS (DELETE FROM key_usage_hours WHERE hour < %(before)s AND ip ~ %(exact)s RETURNING *)
    INSERT INTO key_usage_hours (org_id, key_id, user_id, hour, outcome, ip, count, first_at, last_at)
    SELECT org_id, key_id, user_id, hour, outcome, {_NETWORK.format("ip")} AS cut, sum(count), min(first_at), max(last_at)
    FROM exact GROUP BY org_id, key_id, user_id, hour, outcome, cut
    ON CONFLICT (org_id, key_id, hour, outcome, ip, user_id) DO UPDATE SET
        count = key_usage_hours.count + EXCLUDED.count,
        first_at = LEAST(key_usage_hours.first_at, EXCLUDED.first_at),
        last_at = GREATEST(key_usage_hours.last_at, EXCLUDED.last_at)
"""  # noqa: S608
_log = structlog.get_logger("keyledger.projector")


def forget_old(session: Writer, now_ms: int, address_days: int, usage_days: int) -> None:
    """Cut the addresses of uses older than `address_days` to /24 or /48; drop the hours, and the quarantine, of those older
    than `usage_days`, while the totals of a key stay; drop the ids of external uses whose records have left the log.

    Again is nothing. Raises psycopg.Error.
    """
    # Whole hours, so that all tables agree about which uses are old.
    before = _hour_before(now_ms, address_days)
    for statement in (_CUT_LAST_USED, _CUT_HOURS):
        session.execute(statement, {"before": before, "exact": _EXACT})
    before = _hour_before(now_ms, usage_days)
    session.execute("DELETE FROM key_usage_hours WHERE hour < %s", [before])
    session.execute("DELETE FROM usage_quarantine WHERE sent_ms < %s", [to_ms(before)])
    session.execute("DELETE FROM external_usage_ids WHERE sent_ms < %s", [now_ms - _EXTERNAL_MS])


def _hour_before(now_ms: int, days: int) -> str:
    return hour_of(to_text(max(now_ms - days * DAY_MS, EARLIEST_MS)))


def forget_hourly(connect: Callable[[str], Writer], forget: Callable[[Writer], None]) -> None:
    """`forget_everywhere` now and every hour, for a thread of its own; an hour in which PostgreSQL was away is made up by
    the next.
    """
    while True:
        try:
            forget_everywhere(connect, forget)
        except psycopg.Error as error:
            _log.warning("not_forgotten_yet", error=str(error))
        time.sleep(EVERY_S)


def forget_everywhere(connect: Callable[[str], Writer], forget: Callable[[Writer], None]) -> None:
    """`forget` in the live tables, and in those that a rebuild has kept: nothing outlives its time there either.

    `connect` opens a session on the tables of a schema. Raises psycopg.Error.
    """
    for schema in (SCHEMA, OLD):
        with connect(schema) as session:
            if session.execute("SELECT to_regclass('key_usage_hours') IS NOT NULL").fetchone() == (True,):
                forget(session)
