"""How a worker process reads the index: one transaction a question, with the time and the freshness it needs."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Final

from services.auth_checker import status
from services.auth_checker.key_index import KeyIndex
from services.auth_checker.status import Clocks, Status
from services.ledger.store import Store

LONGEST_WAIT_S: Final = 1.0
MOST_WAITING: Final = 3
"""So many requests of one worker may wait for a revision at once; threads are few, and others must be answered."""
_LOOK_EVERY_S: Final = 0.005
Place = tuple[str, int]
"""An organisation and one of its revisions."""


class IndexReader:
    """The index as of now. Thread-safe."""

    def __init__(self, store: Store, clocks: Clocks, max_staleness_ms: int) -> None:
        self._store, self.clocks, self.max_staleness_ms = store, clocks, max_staleness_ms
        self._may_wait = BoundedSemaphore(MOST_WAITING)

    @contextmanager
    def read(self) -> Iterator[tuple[KeyIndex, Status | None]]:
        """The index and its status at one moment."""
        with self._store.read() as txn:
            yield KeyIndex(txn), status.read(txn)

    def is_fresh(self, current: Status | None) -> bool:
        """Whether what was read beside this status may be believed now. Ask after reading: a pause may lie between."""
        if current is None:
            return False
        return current.is_fresh(self.clocks.boot_id, self.clocks.boot_ns(), self.max_staleness_ms)

    def why_stale(self) -> str | None:
        """The reason for answering STALE to everything, None when there is none."""
        with self.read() as (_, current):
            pass
        if current is None:
            return "the follower is catching up with the ledger"
        if self.is_fresh(current):
            return None
        age_s = current.age_s(self.clocks.boot_ns())
        return (
            f"the end of the ledger was last reached {age_s:.1f} s ago, at most {self.max_staleness_ms} ms are allowed"
        )

    def wait_for(self, places: Sequence[Place]) -> None:
        """Wait until the index holds these revisions, for a second at most; whoever reads next looks for itself."""
        if self._holds(places) or not self._may_wait.acquire(blocking=False):
            return
        try:
            give_up_s = time.monotonic() + LONGEST_WAIT_S
            while not self._holds(places) and time.monotonic() < give_up_s:
                time.sleep(_LOOK_EVERY_S)
        finally:
            self._may_wait.release()

    def _holds(self, places: Sequence[Place]) -> bool:
        if not places:
            return True
        with self.read() as (index, _):
            return all(index.head(org).revision >= revision for org, revision in places)


def is_reached(index: KeyIndex, place: Place) -> bool:
    """Whether the index holds this revision; never in a halted organisation, whose head moves while nothing is folded."""
    org, revision = place
    return index.head(org).revision >= revision and not index.is_halted(org)
