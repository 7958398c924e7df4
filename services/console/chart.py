"""How often a key was used, by day: the counts of the read API as a table, and as the bars of a picture. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas import times
from schemas.validation import Code
from services.console.wording import exact

WIDTH: Final = 720
HEIGHT: Final = 120
_LEAST: Final = 2


@dataclass(frozen=True, slots=True)
class Day:
    """A day (UTC) by its beginning, and the uses in it."""

    start: str
    accepted: int = 0
    refused: int = 0

    @property
    def name(self) -> str:
        """`23 Nov 2026`, wherever the reader is: days are counted in UTC."""
        return exact(self.start).split(",")[0]


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle in a picture of WIDTH x HEIGHT; `label` says in words what it stands for."""

    x: float
    y: float
    width: float
    height: float
    label: str
    is_refused: bool


def by_day(counts: Iterable[Mapping[str, Any]], now_ms: int, length: int) -> list[Day]:
    """The last `length` days up to today, from counts with `start`, `outcome` and `count`; older ones are left out."""
    first_ms = now_ms - now_ms % times.DAY_MS - (length - 1) * times.DAY_MS
    starts = [times.to_text(first_ms + number * times.DAY_MS) for number in range(length)]
    sums = {start: [0, 0] for start in starts}
    for one in counts:
        if one["start"] in sums:
            sums[one["start"]][one["outcome"] != Code.VALID] += one["count"]
    return [Day(start, *sums[start]) for start in starts]


def bars(days: Sequence[Day]) -> list[Bar]:
    """A column for each day: the refused uses stand on the accepted ones; the highest column fills the picture."""
    most = max((day.accepted + day.refused for day in days), default=0)
    drawn, step = [], WIDTH / max(1, len(days))
    for number, day in enumerate(days):
        top: float = HEIGHT
        for count, is_refused in ((day.accepted, False), (day.refused, True)):
            if count:
                # One use on a day beside thousands on another is still to be seen.
                height = round(max(_LEAST, count / most * (HEIGHT - 2 * _LEAST)), 1)
                top = round(top - height, 1)
                drawn.append(Bar(round(number * step, 1), top, round(step * 0.75, 1), height, label(day), is_refused))
    return drawn


def label(day: Day) -> str:
    """`23 Nov 2026: 17 accepted, 3 refused`."""
    return f"{day.name}: {day.accepted:,} accepted, {day.refused:,} refused"
