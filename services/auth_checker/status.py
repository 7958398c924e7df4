"""How fresh the index is: a row in the store that the main process writes and every worker reads.

The main process asks the log for its ends, waits until the index holds all before them, and only then writes the
moment at which it asked. So the row says: whatever was in the log at that moment is in the tables. A worker believes
the tables for M after that moment. This is a plain freshness check, not yet the lease of DESIGN section 7: a checker
that is cut off serves for up to M more, and nobody who revokes a key is told when that is over.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Final

import msgspec
import structlog

from schemas.times import Clock, wall_clock_ms
from schemas.topics import LIFECYCLE, PARTITIONS
from services.auth_checker.key_index import TABLES, KeyIndex
from services.ledger.lmdb_chain import CHAIN_TABLES, LmdbChain, LmdbHandler
from services.ledger.log import Log, LogUnavailable
from services.ledger.records import TopicPartition
from services.ledger.seal import LedgerKeys
from services.ledger.store import Store, Transaction

TABLE: Final = "status"
FOLLOWED: Final = tuple(TopicPartition(LIFECYCLE, number) for number in range(PARTITIONS))
EVERY_S: Final = 0.25
_ASK_TIMEOUT_S: Final = 2.0
_NS_PER_MS: Final = 1_000_000
_ROW: Final = b"follower"
_log = structlog.get_logger("keyledger.auth_checker")


class Status(msgspec.Struct, frozen=True, array_like=True):
    """`asked_ns` is CLOCK_BOOTTIME and `as_of_ms` wall time of the same moment: the ends were asked for then.

    `counts` are records by outcome since the main process started, `lag` the records that were missing at that moment.
    """

    boot_id: str
    asked_ns: int
    as_of_ms: int
    lag: int
    halted_orgs: int
    counts: dict[str, int]

    def is_fresh(self, boot_id: str, now_ns: int, max_staleness_ms: int) -> bool:
        """Whether the tables may be believed now."""
        return self.boot_id == boot_id and 0 <= now_ns - self.asked_ns <= max_staleness_ms * _NS_PER_MS

    def age_s(self, now_ns: int) -> float:
        """Seconds since the ends were asked for."""
        return max(0, now_ns - self.asked_ns) / 1e9


_decode = msgspec.msgpack.Decoder(Status).decode


def open_index(state_dir: Path, *, read_only: bool = False) -> Store:
    """The store of this checker. The main process opens it first, the workers read it."""
    return Store(state_dir / "index", (*CHAIN_TABLES, *TABLES, TABLE), read_only=read_only)


def read(txn: Transaction) -> Status | None:
    """The row; None while the follower has not caught up since its start."""
    value = txn.get(TABLE, _ROW)
    return None if value is None else _decode(value)


def forget(store: Store) -> None:
    """The first act at start: whatever an earlier process wrote vouches for nothing."""
    with store.write() as txn:
        txn.delete(TABLE, _ROW)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Wall time in milliseconds since 1970, CLOCK_BOOTTIME in nanoseconds, and which boot that clock is of."""

    wall_ms: Clock
    boot_ns: Callable[[], int]
    boot_id: str


def machine_clocks() -> Clocks:
    """This machine's. CLOCK_BOOTTIME is the same in every process, runs on while the machine sleeps, begins at boot."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Clocks(wall_clock_ms, lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME), boot_id)


class IndexHandler(LmdbHandler):
    """Folds the ledger into the index; `counts` are records by outcome since the start."""

    def __init__(self, store: Store, keys: LedgerKeys) -> None:
        self.counts: Counter[str] = Counter()
        super().__init__(store, keys, KeyIndex, self.counts.update)


class Watch:
    """A thread that keeps the row.

    `reached` tells the offset before which all records of a partition are in the store, as `Follower.next_offsets` does:
    after a cut it must tell nothing before the store is emptied.
    """

    def __init__(
        self,
        log: Log,
        store: Store,
        handler: IndexHandler,
        reached: Callable[[], Mapping[TopicPartition, int]],
        clocks: Clocks,
        max_staleness_ms: int,
    ) -> None:
        self._log, self._store, self._handler, self._clocks = log, store, handler, clocks
        self._reached, self._max_staleness_ms = reached, max_staleness_ms
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the thread."""
        self._stopping.set()
        self._thread.join()

    def look(self) -> bool:
        """Ask for the ends, wait until the index holds all before them, write the row. Raises LogUnavailable.

        False when that took longer than M, after which the row would vouch for nothing, or was stopped.
        """
        asked_ns, as_of_ms = self._clocks.boot_ns(), self._clocks.wall_ms()
        ends = self._log.end_offsets(FOLLOWED, _ASK_TIMEOUT_S)
        lag = self._missing(ends)
        give_up_s = time.monotonic() + self._max_staleness_ms / 1000
        while self._missing(ends):
            if time.monotonic() > give_up_s or self._stopping.wait(0.005):
                return False
        with self._store.write() as txn:
            # Asked again inside the transaction: nobody can empty the tables between the question and the row.
            if self._missing(ends):
                return False
            halted, counts = len(LmdbChain(txn).halted()), dict(self._handler.counts)
            row = Status(self._clocks.boot_id, asked_ns, as_of_ms, lag, halted, counts)
            txn.put(TABLE, _ROW, msgspec.msgpack.encode(row))
        return True

    def _missing(self, ends: Mapping[TopicPartition, int]) -> int:
        reached = self._reached()
        return sum(max(0, end - reached.get(at, 0)) for at, end in ends.items())

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except LogUnavailable as error:
                _log.warning("log_unavailable", error=str(error))
            except Exception as error:  # noqa: BLE001 - a thread that ended could never end the answer STALE.
                _log.error("watch_failed", exc_info=error)
            self._stopping.wait(EVERY_S)
