"""Uses that are not in the counts: those whose numbers never came, and those in quarantine."""

from typing import Final

import msgspec

from schemas.times import to_text
from services.projector.database import Writer

_GAPS: Final = """
    SELECT topic, source, partition, sources.last, array_agg(gaps.first ORDER BY gaps.first), array_agg(gaps.last ORDER BY gaps.first)
    FROM usage_gaps AS gaps JOIN usage_sources AS sources USING (topic, source, partition)
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3
"""
_QUARANTINED: Final = """
    SELECT reason, topic, source, count(*), sum(count), min(sent_ms), max(sent_ms) FROM usage_quarantine
    WHERE %(org)s::text IS NULL OR org_id = %(org)s GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3
"""


class Gaps(msgspec.Struct, frozen=True, kw_only=True):
    """What one sender numbered in one partition of a topic and never arrived: `missing` numbers, in `ranges` of the first and
    the last of each; `last` is the largest number that did.
    """

    topic: str
    source: str
    partition: int
    last: int
    missing: int
    ranges: list[tuple[int, int]]


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """`records` of one sender that wait for one reason, the `uses` in them, and when the first and the last were sent."""

    reason: str
    topic: str
    source: str
    records: int
    uses: int
    first_sent_at: str
    last_sent_at: str


def gaps(session: Writer) -> list[Gaps]:
    """Of all senders that have any. Raises psycopg.Error."""
    found = []
    for topic, source, partition, last, firsts, lasts in session.execute(_GAPS):
        ranges = list(zip(firsts, lasts, strict=True))
        missing = sum(end - first + 1 for first, end in ranges)
        found.append(Gaps(topic=topic, source=source, partition=partition, last=last, missing=missing, ranges=ranges))
    return found


def quarantined(session: Writer, org: str | None) -> list[Quarantined]:
    """Of all organisations, or of the one that the records name; most records first. Raises psycopg.Error."""
    return [
        Quarantined(
            reason=reason,
            topic=topic,
            source=source,
            records=records,
            uses=int(uses),
            first_sent_at=to_text(first_ms),
            last_sent_at=to_text(last_ms),
        )
        for reason, topic, source, records, uses, first_ms, last_ms in session.execute(_QUARANTINED, {"org": org})
    ]
