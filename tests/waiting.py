"""Tests wait for what must become true; they never sleep for a while and hope."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(predicate: Callable[[], T], within_s: float, what: str) -> T:
    """Asks until the answer is truthy and returns it; AssertionError with `what` and the last answer after `within_s` seconds.

    An AssertionError of the predicate counts as "not yet", so that a block of asserts can be waited for.
    """
    deadline = time.monotonic() + within_s
    last: object = None
    while True:
        try:
            answer = predicate()
            if answer:
                return answer
            last = answer
        except AssertionError as not_yet:
            last = not_yet
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what} (last: {last!r})")
        time.sleep(0.02)
