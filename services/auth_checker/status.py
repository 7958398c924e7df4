"""What the follower writes into the store for the workers beside the tables: its lease, and how far it is.

A worker believes the tables while the lease covers its clocks (see `lease`). The lease stands in the same store as the
tables, so that one read transaction sees a key together with what vouches for it.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

import msgspec

from schemas import events
from schemas.times import Clock, wall_clock_ms
from schemas.topics import LIFECYCLE, PARTITIONS, partition_of
from services.auth_checker.key_index import TABLES, KeyIndex
from services.auth_checker.lease import Lease, Moment
from services.ledger.fold import Fold
from services.ledger.lmdb_chain import CHAIN_TABLES, LmdbHandler, places
from services.ledger.log import LogWasCut
from services.ledger.records import Batch, TopicPartition
from services.ledger.seal import LedgerKeys
from services.ledger.store import Store, Transaction

TABLE: Final = "status"
FOLLOWED: Final = tuple(TopicPartition(LIFECYCLE, number) for number in range(PARTITIONS))
TAKES_RIGHTS_AWAY: Final = (
    events.KeyRevoked,
    events.OrgKeysDisabled,
    events.UserDisabled,
    events.UserRoleChanged,
    events.PersonErased,
)
_LEASE: Final = b"lease"
_OWNER: Final = b"owner"
_PROGRESS: Final = b"progress"


class Status(msgspec.Struct, frozen=True, array_like=True):
    """What vouches for the tables."""

    lease: Lease

    @property
    def as_of_ms(self) -> int:
        """Wall time at which the tables held all of the ledger that could matter."""
        return self.lease.begun_wall_ms


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """How the follower is doing, for readiness and metrics; `told_ns` is CLOCK_BOOTTIME when it wrote this.

    `lag` counts the records that are missing, None until the log told its ends; `counts` are records of the ledger by
    outcome, `pulses` those `sent`, `failed` and `counted`, and `foreign` records of `checker-status`, all since this
    follower began; it is the one of that number, `starts`, since the main process began.
    """

    told_ns: int
    starts: int
    caught_up: bool
    lag: int | None
    halted_orgs: int
    counts: dict[str, int]
    pulses: dict[str, int]


# Workers read this row for every answer, and it changes a few times a second: the same bytes are decoded once.
_decode = lru_cache(4)(msgspec.msgpack.Decoder(Status).decode)
_last: tuple[bytes, Status] | None = None
_decode_progress = msgspec.msgpack.Decoder(Progress).decode


def open_index(state_dir: Path, *, read_only: bool = False) -> Store:
    """The store of this checker. The follower writes it; workers open it after it was opened for writing once."""
    return Store(state_dir / "index", (*CHAIN_TABLES, *TABLES, TABLE), read_only=read_only)


def read(txn: Transaction) -> Status | None:
    """What vouches for the tables; None while the follower has not caught up since its start."""
    global _last  # noqa: PLW0603  # The row changes a few times a second; the pair is swapped whole, so no lock is needed.
    value = txn.get(TABLE, _LEASE)
    if value is None:
        return None
    kept = _last
    if kept is None or kept[0] != value:
        kept = _last = (value, _decode(value))
    return kept[1]


def write(txn: Transaction, row: Status) -> None:
    """Vouch for the tables as this transaction sees them."""
    txn.put(TABLE, _LEASE, msgspec.msgpack.encode(row))


def read_progress(txn: Transaction) -> Progress | None:
    """How the follower is doing; None before it ever began."""
    value = txn.get(TABLE, _PROGRESS)
    return None if value is None else _decode_progress(value)


def write_progress(txn: Transaction, progress: Progress) -> None:
    """Tell how the follower is doing."""
    txn.put(TABLE, _PROGRESS, msgspec.msgpack.encode(progress))


def forget(store: Store) -> None:
    """The first act at start: whatever an earlier process wrote vouches for nothing, and it may write no more."""
    claim(store, "")


def claim(store: Store, incarnation: str) -> None:
    """`forget`, and make this incarnation the store's only writer."""
    with store.write() as txn:
        txn.delete(TABLE, _LEASE)
        txn.delete(TABLE, _PROGRESS)
        txn.put(TABLE, _OWNER, incarnation.encode())


def check_owner(txn: Transaction, incarnation: str) -> None:
    """Raises LogWasCut when the store was emptied, or claimed by another incarnation, since this one claimed it."""
    if (txn.get(TABLE, _OWNER) or b"") != incarnation.encode():
        raise LogWasCut("the store is not this incarnation's any more")


def positions(txn: Transaction) -> dict[int, int]:
    """The next offset of each partition of the ledger: all before it is in the tables."""
    stored = places(txn)
    return {at.partition: stored[at].next_offset if at in stored else 0 for at in FOLLOWED}


@dataclass(frozen=True, slots=True)
class Clocks:
    """Wall time in milliseconds since 1970, CLOCK_BOOTTIME in nanoseconds, and which boot that clock is of."""

    wall_ms: Clock
    boot_ns: Callable[[], int]
    boot_id: str

    def now(self) -> Moment:
        """Both clocks."""
        return Moment(self.boot_ns(), self.wall_ms())


def machine_clocks() -> Clocks:
    """This machine's. CLOCK_BOOTTIME is the same in every process, runs on while the machine sleeps, begins at boot."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Clocks(wall_clock_ms, partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME), boot_id)


class IndexHandler(LmdbHandler):
    """Folds the ledger into the index; `counts` are records by outcome since the start.

    `on_applied` is told after each transaction, by partition, the offset of the last event in it that took rights away.
    """

    def __init__(
        self,
        store: Store,
        keys: LedgerKeys,
        incarnation: str = "",
        on_applied: Callable[[Mapping[int, int]], None] = lambda _: None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._incarnation, self._on_applied = incarnation, on_applied
        self._taken: dict[int, int] = {}
        super().__init__(store, keys, self._owned_fold, self.counts.update)

    def apply(self, batch: Batch) -> None:
        """See LmdbHandler. Raises LogWasCut when the store is not ours any more."""
        self._taken = {}
        super().apply(batch)
        self._on_applied(self._taken)

    def log_was_cut(self, why: str) -> None:
        """Empty the store, lease included, and raise LogWasCut: the follower begins anew, as another incarnation."""
        super().log_was_cut(why)
        raise LogWasCut(why)

    def _owned_fold(self, txn: Transaction) -> Fold:
        check_owner(txn, self._incarnation)
        return _Noticing(KeyIndex(txn), self._taken)


class _Noticing:
    """The index as a Fold that notes which events take rights away."""

    def __init__(self, index: KeyIndex, taken: dict[int, int]) -> None:
        self._index, self._taken = index, taken

    def evolve(self, envelope: events.Envelope, offset: int) -> None:
        self._index.evolve(envelope, offset)
        if isinstance(envelope.event, TAKES_RIGHTS_AWAY):
            partition = partition_of(envelope.org)
            # The end of a halt folds old events after newer ones of the same partition.
            self._taken[partition] = max(offset, self._taken.get(partition, offset))
