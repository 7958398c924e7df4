"""Times as they stand in events and answers: RFC 3339, UTC, milliseconds, years 2000-9999.

The text has a fixed width, so that comparing two texts compares the times.
Inside the code a time is either this text or a whole number of milliseconds since 1970 (`_ms`).
"""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

SHAPE = r"[2-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"
EARLIEST_MS = 946_684_800_000
LATEST_MS = 253_402_300_799_999
DAY_MS = 24 * 3600 * 1000
Clock = Callable[[], int]
"""Gives the wall time in milliseconds since 1970."""
_SHAPE = re.compile(SHAPE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANY_OFFSET = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def wall_clock_ms() -> int:
    """The machine's wall time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def to_text(time_ms: int) -> str:
    """Format milliseconds since 1970. Raises ValueError outside the years 2000-9999."""
    if not EARLIEST_MS <= time_ms <= LATEST_MS:
        raise ValueError(f"{time_ms} ms is outside the years 2000-9999")
    moment = to_datetime(time_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03d}Z"


def to_datetime(time_ms: int) -> datetime:
    """The moment, in UTC."""
    return _EPOCH + timedelta(milliseconds=time_ms)


def to_ms(text: str) -> int:
    """Parse the text of `to_text`. Raises ValueError for another shape, or a day or an hour that does not exist."""
    if not _SHAPE.fullmatch(text):
        raise ValueError("not a time such as 2030-01-31T12:00:00.000Z")
    moment = datetime.fromisoformat(text)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def parse_any_offset(text: str) -> int:
    """Parse RFC 3339 with any offset and up to nine decimals, as people send it; milliseconds since 1970.

    Raises ValueError for anything else, and outside the years 2000-9999.
    """
    if not _ANY_OFFSET.fullmatch(text):
        raise ValueError("not an RFC 3339 time such as 2030-01-31T12:00:00Z")
    try:
        time_ms = (datetime.fromisoformat(text.upper()) - _EPOCH) // timedelta(milliseconds=1)
    except OverflowError as error:
        raise ValueError("outside the years 2000-9999") from error
    if not EARLIEST_MS <= time_ms <= LATEST_MS:
        raise ValueError("outside the years 2000-9999")
    return time_ms
