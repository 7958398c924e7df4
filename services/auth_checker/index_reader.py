"""How a worker process reads the index: one transaction a question, with the time and the freshness it needs."""

import time
from collections.abc import Sequence
from threading import BoundedSemaphore
from typing import Final

from services.auth_checker import status
from services.auth_checker.key_index import KeyIndex
from services.auth_checker.lease import Moment
from services.auth_checker.status import Clocks, Progress, Status
from services.ledger.store import Store, Transaction

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

    def read(self) -> "Reading":
        """`with reader.read() as (index, current)`: the index and its status at one moment."""
        return Reading(self._store.read())

    def is_fresh(self, current: Status | None, now: Moment | None = None) -> bool:
        """Whether what was read beside this status may be believed `now`, a moment taken after reading: a pause may lie
        between.
        """
        return current is not None and current.lease.covers(self.clocks.boot_id, now or self.clocks.now())

    def why_stale(self) -> str | None:
        """The reason for answering STALE to everything, None when there is none."""
        with self.read() as (_, current):
            pass
        if self.is_fresh(current):
            return None
        if current is not None:
            over_s = (self.clocks.boot_ns() - current.lease.until_boot_ns) / 1e9
            return f"the lease ran out {over_s:.1f} s ago: no pulse of this checker was read back from the log since"
        progress = self.progress()
        if progress is None or progress.lag is None:
            return "the follower has not learnt yet how far the ledger goes"
        if not progress.caught_up:
            return f"the follower is catching up with the ledger: {progress.lag} records are missing"
        return "no pulse of this checker was counted yet"

    def progress(self) -> Progress | None:
        """How the follower is doing."""
        with self._store.read() as txn:
            return status.read_progress(txn)

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


class Reading:
    """One read transaction. A class, since a generator would cost more than all that is read in it."""

    __slots__ = ("_txn",)

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn

    def __enter__(self) -> tuple[KeyIndex, Status | None]:
        """The index, and what vouches for it."""
        return KeyIndex(self._txn), status.read(self._txn)

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self._txn.__exit__()


def is_reached(index: KeyIndex, place: Place) -> bool:
    """Whether the index holds this revision; never in a halted organisation, whose head moves while nothing is folded."""
    org, revision = place
    return index.head(org).revision >= revision and not index.is_halted(org)
