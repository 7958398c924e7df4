"""The checker's side of `checker-status`: says how far it is, reads that back, and writes the lease it has then.

`Pulses` sends: every 250 ms, and at once when the store is past an event that takes rights away, because a command API
waits for that. `Listener` reads the topic, floors and own pulses in their order, and asks `lease.Lessee` what each means.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from threading import Event, Lock, Thread
from typing import Final

import msgspec
import structlog

from schemas import checker_status
from schemas.checker_status import BadStatus, Floor, Said
from schemas.topics import CHECKER_STATUS
from services.auth_checker import status
from services.auth_checker.lease import Granted, Lessee
from services.auth_checker.status import Clocks, Status
from services.ledger.log import Log, LogUnavailable, Message
from services.ledger.records import Batch, Place, Places, Record, TopicPartition
from services.ledger.seal import LedgerKeys
from services.ledger.store import Store, Transaction

TOPIC: Final = TopicPartition(CHECKER_STATUS, checker_status.PARTITION)
_LOOK_EVERY_S: Final = 0.01
_FLOORS: Final = b"floors"
_PLACE: Final = b"place"
_decode_floors = msgspec.msgpack.Decoder(dict[int, int]).decode
_decode_place = msgspec.msgpack.Decoder(Place).decode
_log = structlog.get_logger("keyledger.auth_checker")


class Pulses:
    """A thread that sends pulses, and all that this incarnation has said and heard. Thread-safe.

    `may_begin` tells whether the ends of the ledger asked for at the start were reached: the thread says nothing before.
    """

    def __init__(
        self, log: Log, store: Store, keys: LedgerKeys, lessee: Lessee, clocks: Clocks, every_s: float, timeout_s: float
    ) -> None:
        self._log, self._store, self._keys, self._clocks = log, store, keys, clocks
        self._every_s, self._timeout_s = every_s, timeout_s
        self._lock = Lock()
        self._lessee = lessee
        self._wanted: dict[int, int] = {}
        self._sent: dict[int, int] = {}
        self._wake, self._stopping = Event(), Event()
        self._came_round_at = time.monotonic()
        self._is_failing = False
        self.counts: Counter[str] = Counter(sent=0, failed=0, counted=0, foreign=0)
        self.may_begin: Callable[[], bool] = lambda: True
        self._thread = Thread(target=self._run, name="pulses", daemon=True)

    def start(self) -> None:
        """Begin sending."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the thread."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def stuck_s(self) -> float:
        """Seconds since the thread last came round."""
        return time.monotonic() - self._came_round_at

    def applied(self, taken: Mapping[int, int]) -> None:
        """The store moved on; `taken` are the offsets, by partition, of events that took rights away."""
        self._want(taken)
        if self._wanted:
            self._wake.set()

    def read(self, said: Said) -> Granted | None:
        """The next record of `checker-status`; see Lessee.read."""
        if isinstance(said, Floor):
            self._want(said.offsets)
            self._wake.set()
        with self._lock:
            return self._lessee.read(said)

    def floors(self) -> dict[int, int]:
        """For each partition the highest offset of all floors read."""
        with self._lock:
            return dict(self._lessee.floors)

    def beat(self) -> bool:
        """Send a pulse. False when it was not acknowledged."""
        t0 = self._clocks.now()  # First of all: whatever the pulse says of the store was true then or later.
        positions = self._positions()
        with self._lock:
            pulse = self._lessee.begin(t0, positions)
        value = checker_status.encode(pulse)
        key, headers = checker_status.message_key(pulse), self._keys.seal(value)
        try:
            self._log.append(Message(*TOPIC, key, value, headers), self._timeout_s)
        except LogUnavailable as error:
            self.counts["failed"] += 1
            if not self._is_failing:
                _log.warning("pulse_not_sent", error=str(error))
            self._is_failing = True
            return False
        self.counts["sent"] += 1
        self._is_failing = False
        self._said(positions)
        return True

    def _run(self) -> None:
        due_s = 0.0
        while not self._stopping.is_set():
            self._came_round_at = time.monotonic()
            self._wake.clear()
            try:
                if not self.may_begin():
                    self._wake.wait(_LOOK_EVERY_S)
                    continue
                if time.monotonic() >= due_s or self._is_waited_for():
                    due_s = time.monotonic() + self._every_s
                    self.beat()
            except Exception as error:  # noqa: BLE001  # A thread that ended could never end the answer STALE.
                _log.error("pulse_failed", exc_info=error)
            self._wake.wait(max(0.0, due_s - time.monotonic()))

    def _is_waited_for(self) -> bool:
        """Whether the store is past something that others want to hear of, and they were not told yet."""
        with self._lock:
            wanted = dict(self._wanted)
        if not wanted:
            return False
        reached = self._positions()
        return any(reached.get(partition, 0) > offset for partition, offset in wanted.items())

    def _want(self, offsets: Mapping[int, int]) -> None:
        with self._lock:
            for partition, offset in offsets.items():
                if self._sent.get(partition, 0) <= offset:
                    self._wanted[partition] = max(offset, self._wanted.get(partition, offset))

    def _said(self, positions: Mapping[int, int]) -> None:
        with self._lock:
            self._sent = dict(positions)
            self._wanted = {at: offset for at, offset in self._wanted.items() if positions.get(at, 0) <= offset}

    def _positions(self) -> dict[int, int]:
        with self._store.read() as txn:
            return status.positions(txn)


class Listener:
    """The handler of `checker-status`: stores floors, the place, and what a counted pulse vouches for."""

    def __init__(self, store: Store, keys: LedgerKeys, pulses: Pulses, incarnation: str) -> None:
        self._store, self._keys, self._pulses, self._incarnation = store, keys, pulses, incarnation

    def resume_from(self) -> Places:
        """The stored place, which goes with the stored floors; none in an empty store, then all there is is read."""
        with self._store.read() as txn:
            value = txn.get(status.TABLE, _PLACE)
        return {} if value is None else {TOPIC: _decode_place(value)}

    def apply(self, batch: Batch) -> None:
        """See Handler. Raises LogWasCut when the store is not ours any more."""
        granted: Granted | None = None
        for record in batch.records:
            said = self._decode(record)
            if said is not None:
                granted = self._pulses.read(said) or granted
        with self._store.write() as txn:
            status.check_owner(txn, self._incarnation)
            txn.put(status.TABLE, _FLOORS, msgspec.msgpack.encode(self._pulses.floors()))
            txn.put(status.TABLE, _PLACE, msgspec.msgpack.encode(batch.places[TOPIC]))
            # Asked in the transaction that writes the lease: nobody can empty the tables in between.
            if granted is not None and _holds(txn, granted.positions):
                status.write(txn, Status(granted.lease))
                self._pulses.counts["counted"] += 1

    def log_was_cut(self, why: str) -> None:
        """Read what there is from its beginning; the floors that were heard stay."""
        _log.error("checker_status_was_cut", why=why)
        with self._store.write() as txn:
            txn.delete(status.TABLE, _PLACE)

    def lost(self, at: TopicPartition, next_offset: int, first_offset: int) -> None:
        """The topic is kept for an hour: after a longer pause all that is there is read."""
        _log.info("checker_status_expired", next=next_offset, first=first_offset)

    def _decode(self, record: Record) -> Said | None:
        try:
            if not self._keys.is_sealed(record):
                raise BadStatus("has no valid seal")
            return checker_status.decode(record.value)
        except BadStatus as error:
            self._pulses.counts["foreign"] += 1
            _log.warning("foreign", topic=CHECKER_STATUS, why=str(error)[:200], offset=record.offset)
            return None


def stored_floors(store: Store) -> dict[int, int]:
    """The floors that go with the stored place."""
    with store.read() as txn:
        value = txn.get(status.TABLE, _FLOORS)
    return {} if value is None else _decode_floors(value)


def _holds(txn: Transaction, positions: Mapping[int, int]) -> bool:
    reached = status.positions(txn)
    return all(reached.get(partition, 0) >= offset for partition, offset in positions.items())
