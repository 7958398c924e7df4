"""Uses of keys, folded into windows: one window for a key, an outcome and an address within one second. Pure.

A window begins and ends within one second of the wall clock, so it never crosses a full hour. While windows wait
because the broker is away, their number is bounded: at the limit they are merged, first to one an hour instead of one
a second, then without addresses. Only when that is not enough either is a new window refused; no use is ever dropped.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final

from schemas.fields import PLAIN_TEXT
from schemas.validation import Code
from services.auth_checker.check import Facts, address

MOST_ADDRESSES: Final = 16
OTHER: Final = "other"
LONGEST_USER_AGENT: Final = 200
_SECOND_MS: Final = 1000
_HOUR_MS: Final = 3_600_000
_PLAIN: Final = re.compile(PLAIN_TEXT)


@dataclass(slots=True)
class Window:
    """The uses of a key from one address with one outcome; times in milliseconds since 1970."""

    key_id: str
    org_id: str
    user_id: str
    outcome: str
    ip: str | None
    user_agent: str | None
    count: int
    first_ms: int
    last_ms: int


class Width(IntEnum):
    """How much is folded into one window."""

    SECOND = 0
    HOUR = 1
    HOUR_OF_ANY_ADDRESS = 2


_Key = tuple[str, str, str, str | None, int]
"""Organisation, key id, outcome, address, and the number of the second or hour."""


class Windows:
    """The windows that wait to be sent; not thread-safe. `most` bounds their number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._width = Width.SECOND
        self._windows: dict[_Key, Window] = {}
        self._addresses: dict[tuple[str, str, int], set[str]] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def is_full(self) -> bool:
        """Whether no further window can be taken in, and answers must be refused until some were sent."""
        return self._width is Width.HOUR_OF_ANY_ADDRESS and len(self._windows) >= self._most

    def add(self, facts: Facts, outcome: Code, ip: str | None, user_agent: str | None, now_ms: int) -> None:
        """Count one use. `ip` and `user_agent` are taken as the caller sent them."""
        if len(self._windows) >= self._most and self._width is not Width.HOUR_OF_ANY_ADDRESS:
            self._widen()
        found = address(ip[:64]) if ip else None
        self._merge(
            Window(
                facts.key_id,
                facts.org_id,
                facts.key.user_id,
                outcome.value,
                None if found is None else str(found),
                plain_user_agent(user_agent[:LONGEST_USER_AGENT]) if user_agent else None,
                1,
                now_ms,
                now_ms,
            )
        )

    def take(self) -> list[Window]:
        """All windows; from here on there are none, and they are narrow again."""
        taken = list(self._windows.values())
        self._windows, self._addresses, self._width = {}, {}, Width.SECOND
        return taken

    def _widen(self) -> None:
        width, windows = Width(self._width + 1), self.take()
        self._width = width
        for window in windows:
            self._merge(window)

    def _merge(self, window: Window) -> None:
        period = window.first_ms // (_SECOND_MS if self._width is Width.SECOND else _HOUR_MS)
        window.ip = self._address(window, period)
        key = (window.org_id, window.key_id, window.outcome, window.ip, period)
        there = self._windows.get(key)
        if there is None:
            self._windows[key] = window
            return
        there.count += window.count
        there.first_ms = min(there.first_ms, window.first_ms)
        if window.last_ms >= there.last_ms:
            there.last_ms, there.user_agent = window.last_ms, window.user_agent or there.user_agent

    def _address(self, window: Window, period: int) -> str | None:
        if window.ip is None or window.ip == OTHER:
            return window.ip
        if self._width is Width.HOUR_OF_ANY_ADDRESS:
            return OTHER
        known = self._addresses.setdefault((window.org_id, window.key_id, period), set())
        if window.ip not in known and len(known) >= MOST_ADDRESSES:
            return OTHER
        known.add(window.ip)
        return window.ip


@lru_cache(1024)
def plain_user_agent(text: str) -> str | None:
    """The text without control characters and marks that turn its direction; None when nothing is left."""
    return "".join(_PLAIN.findall(text)) or None
