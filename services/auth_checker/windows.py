"""Uses of keys, folded into windows: one window for a key, an outcome and an address within one second. Pure.

A window begins and ends within one second of the wall clock, so it never crosses a full hour. While windows cannot go
on to the spool their number is bounded: at the limit they are merged, first to one an hour instead of one a second,
then without addresses. Only when that is not enough either is a new window refused; no use is ever dropped.
"""

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final, Protocol

import msgspec

from schemas.fields import PLAIN_TEXT
from services.auth_checker.check import address

MOST_ADDRESSES: Final = 16
OTHER: Final = "other"
LONGEST_USER_AGENT: Final = 200
_LONGEST_ADDRESS: Final = 64
_SECOND_MS: Final = 1000
_HOUR_MS: Final = 3_600_000
_PLAIN: Final = re.compile(PLAIN_TEXT)


class Used(Protocol):
    """Which key was used, and whose it is; `check.Facts` is one."""

    @property
    def key_id(self) -> str:
        """The key."""

    @property
    def org_id(self) -> str:
        """Its organisation."""

    @property
    def user_id(self) -> str:
        """Its owner."""


class Window(msgspec.Struct, gc=False):
    """The uses of a key from one address with one outcome; times in milliseconds since 1970.

    `user_agent` is what the caller said last, as it was sent.
    """

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
    """The windows that wait for the spool; not thread-safe. `most` bounds their number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begin(Width.SECOND)

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, used: Used, outcome: str, ip: str | None, user_agent: str | None, now_ms: int) -> bool:
        """Count one use; False, and it is not counted, when it needs a new window and there is no room for one.

        `ip` and `user_agent` are taken as the caller sent them.
        """
        place = _place(ip[:_LONGEST_ADDRESS]) if ip else None
        window = self._windows.get((used.org_id, used.key_id, outcome, place, now_ms // self._period_ms))
        if window is None:
            return self._add(used, outcome, place, user_agent, now_ms)
        # The same as `_fold` does, without making a window first: this line is passed for nearly every use.
        window.count += 1
        if now_ms >= window.last_ms:
            window.last_ms = now_ms
            if user_agent:
                window.user_agent = user_agent[:LONGEST_USER_AGENT]
        elif now_ms < window.first_ms:
            window.first_ms = now_ms
        return True

    def take(self, width: Width = Width.SECOND) -> list[Window]:
        """All windows; from here on there are none, and the next ones are this wide."""
        taken = list(self._windows.values())
        self._begin(width)
        return taken

    def _begin(self, width: Width) -> None:
        self._width, self._period_ms = width, _SECOND_MS if width is Width.SECOND else _HOUR_MS
        self._windows: dict[_Key, Window] = {}
        self._addresses: dict[tuple[str, str, int], set[str]] = {}

    def _add(self, used: Used, outcome: str, place: str | None, user_agent: str | None, now_ms: int) -> bool:
        while len(self._windows) >= self._most and self._width is not Width.HOUR_OF_ANY_ADDRESS:
            for window in self.take(Width(self._width + 1)):
                self._fold(window)
        said = user_agent[:LONGEST_USER_AGENT] if user_agent else None
        window = Window(used.key_id, used.org_id, used.user_id, outcome, place, said, 1, now_ms, now_ms)
        return self._fold(window)

    def _fold(self, window: Window) -> bool:
        period = window.first_ms // self._period_ms
        window.ip = self._counted_place(window, period)
        key = (window.org_id, window.key_id, window.outcome, window.ip, period)
        there = self._windows.get(key)
        if there is None:
            if len(self._windows) >= self._most:
                return False
            self._windows[key] = window
            return True
        there.count += window.count
        there.first_ms = min(there.first_ms, window.first_ms)
        if window.last_ms >= there.last_ms:
            there.last_ms, there.user_agent = window.last_ms, window.user_agent or there.user_agent
        return True

    def _counted_place(self, window: Window, period: int) -> str | None:
        if window.ip is None or window.ip == OTHER:
            return window.ip
        if self._width is Width.HOUR_OF_ANY_ADDRESS:
            return OTHER
        at = (window.org_id, window.key_id, period)
        known = self._addresses.get(at)
        if known is None:
            self._addresses[at] = {window.ip}
        elif window.ip not in known:
            if len(known) >= MOST_ADDRESSES:
                return OTHER
            known.add(window.ip)
        return window.ip


@lru_cache(8192)
def _place(text: str) -> str | None:
    """An address as it is kept; None for what is none."""
    found = address(text)
    return None if found is None else str(found)


@lru_cache(1024)
def plain_user_agent(text: str) -> str | None:
    """The text without control characters and marks that turn its direction; None when nothing is left."""
    return "".join(_PLAIN.findall(text)) or None
