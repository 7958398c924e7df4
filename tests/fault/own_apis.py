"""Calls to Keyledger's own APIs with one credential, all the time: is one accepted that began after its end was effective?"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from threading import Event, Thread

import urllib3

from tests.end_to_end.system import Answer
from tests.waiting import eventually

_EVERY_S = 0.02
Call = Callable[[], Answer]


@dataclass(frozen=True)
class Outcome:
    """One call to the API of this name: when it was sent (CLOCK_MONOTONIC, seconds) and its status, 0 for no answer."""

    api: str
    began: float
    status: int


@dataclass
class Using:
    """What came of all calls so far."""

    names: tuple[str, ...]
    outcomes: list[Outcome] = field(default_factory=list)

    def count(self, api: str, accepted: bool, since: float = -inf) -> int:
        """How many calls that began after `since` were accepted, or refused for good: with 401, 403 or 404."""
        statuses = range(200, 300) if accepted else (401, 403, 404)
        return sum(1 for one in self.outcomes if one.api == api and one.began > since and one.status in statuses)

    def wait(self, accepted: bool, since: float = -inf, times: int = 5) -> None:
        """Wait until each API did that so many times."""
        for name in self.names:
            counted = lambda name=name: self.count(name, accepted, since) >= times  # noqa: E731
            eventually(counted, 20, f"{name} to {'accept' if accepted else 'refuse'} it")


@contextmanager
def using(calls: Mapping[str, Call]) -> Iterator[Using]:
    """Make all these calls, each in a thread of its own, for the length of a `with`."""
    made, stopping = Using(tuple(calls)), Event()

    def keep_calling(name: str, call: Call) -> None:
        while not stopping.wait(_EVERY_S):
            began = time.monotonic()
            try:
                status = call().status
            except urllib3.exceptions.HTTPError:
                status = 0
            made.outcomes.append(Outcome(name, began, status))

    threads = [Thread(target=keep_calling, args=item, daemon=True) for item in calls.items()]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        stopping.set()
        for thread in threads:
            thread.join(20)
