"""A projector that starts tells how far it is until it has caught up with the log."""

import threading
import time
from typing import Final, TextIO

import structlog

from services.ledger.follow import Follower
from services.projector.progress import EVERY_S, Progress

_LOOK_EVERY_S: Final = 0.2
_log = structlog.get_logger("keyledger.projector")


def tell_catch_up(
    follower: Follower, stopping: threading.Event, terminal: TextIO | None, every_s: float = EVERY_S
) -> None:
    """A bar on the terminal, where there is one, else a line in the log every few seconds. For a thread of its own.

    Ends when the ends of the log at the start are reached, when the follower cannot go on, and when `stopping` is set.
    """
    begun_s, first, done = time.monotonic(), dict[object, int](), 0
    with Progress(_tell, every_s, terminal) as progress:
        progress.doing("asking the log for its ends")
        while not follower.caught_up():
            if follower.failure is not None or stopping.wait(_LOOK_EVERY_S):
                return
            places, lag = follower.next_offsets(), follower.lag()
            if not places or not lag:
                continue
            if not first:
                first.update(places)
                progress.doing("catching up with the log", sum(lag.values()))
            done = sum(places.values()) - sum(first.values())
            progress.done(done, of=done + sum(lag.values()))
    _log.info("caught_up", records=done, seconds=round(time.monotonic() - begun_s, 1))


def _tell(line: str) -> None:
    _log.info("catching_up", progress=line)
