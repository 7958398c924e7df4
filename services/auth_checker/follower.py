"""The follower: a process of its own that keeps the index, holds the checker's lease and sends the spool.

It ends as soon as one of its threads cannot go on; the main process then starts another one, a new incarnation.
"""

import os
import secrets
import signal
import time
from threading import Event
from typing import Final

import structlog

from services.auth_checker import status
from services.auth_checker.config import Config
from services.auth_checker.lease import Lessee
from services.auth_checker.process import end_with_parent, log_json
from services.auth_checker.publisher import Publisher
from services.auth_checker.pulses import TOPIC, Listener, Pulses, stored_floors
from services.auth_checker.spool import Spool
from services.auth_checker.status import Clocks, IndexHandler, Progress
from services.ledger.follow import Follower
from services.ledger.kafka_log import KafkaLog
from services.ledger.lmdb_chain import LmdbChain
from services.ledger.log import Log
from services.ledger.seal import LedgerKeys, load_or_make
from services.ledger.store import Store

_EVERY_S: Final = 0.1
_TELL_EVERY_S: Final = 0.25
_STUCK_S: Final = 30.0
"""Nothing a thread waits for takes half as long; one that does not come round hangs in a call of the Kafka client."""
_PUBLISH_S: Final = 5.0
_LONGEST_SEND_S: Final = 5.0
_log = structlog.get_logger("keyledger.auth_checker")


class Following:
    """Keeps the index in `store`, and the lease. `starts` numbers the followers of one main process.

    Claims the store at once: whatever an earlier incarnation wrote vouches for nothing from here on.
    """

    def __init__(
        self,
        log: Log,
        store: Store,
        keys: LedgerKeys,
        clocks: Clocks,
        *,
        checker: str,
        max_staleness_ms: int,
        pulse_ms: int,
        starts: int = 1,
    ) -> None:
        self._store, self._clocks, self._starts = store, clocks, starts
        incarnation = secrets.token_hex(16)
        status.claim(store, incarnation)
        lessee = Lessee(checker, incarnation, clocks.boot_id, max_staleness_ms, stored_floors(store))
        send_s = min(max_staleness_ms / 1000, _LONGEST_SEND_S)  # A pulse as old as M would be of no use.
        self._pulses = Pulses(log, store, keys, lessee, clocks, pulse_ms / 1000, send_s)
        self._handler = IndexHandler(store, keys, incarnation, self._pulses.applied)
        self._ledger = Follower(log, status.FOLLOWED, self._handler, "auth-checker")
        self._pulses.may_begin = self._ledger.caught_up
        self._listening = Follower(log, (TOPIC,), Listener(store, keys, self._pulses, incarnation), "checker-status")

    def start(self) -> None:
        """Begin."""
        self._ledger.start()
        self._listening.start()
        self._pulses.start()

    def stop(self) -> None:
        """End, and wait for the threads; the lease runs out by itself."""
        self._pulses.stop()
        self._listening.stop()
        self._ledger.stop()

    def failure(self) -> str | None:
        """Why this cannot go on, None while it can."""
        for name, follower in (("key-lifecycle", self._ledger), ("checker-status", self._listening)):
            if follower.failure is not None:
                return f"following {name}: {follower.failure}"
            if follower.stuck_s() > _STUCK_S:
                return f"following {name}: stuck for {follower.stuck_s():.0f} s"
        return f"pulses: stuck for {self._pulses.stuck_s():.0f} s" if self._pulses.stuck_s() > _STUCK_S else None

    def tell(self) -> None:
        """Write how it is going into the store."""
        lags = self._ledger.lag()
        with self._store.write() as txn:
            progress = Progress(
                told_ns=self._clocks.boot_ns(),
                starts=self._starts,
                caught_up=self._ledger.caught_up(),
                lag=sum(lags.values()) if lags else None,
                halted_orgs=len(LmdbChain(txn).halted()),
                counts=dict(self._handler.counts),
                pulses=dict(self._pulses.counts),
            )
            status.write_progress(txn, progress)


def run(config: Config, starts: int) -> None:
    """The whole life of the process: until SIGTERM, or until something in it cannot go on; then its exit code is 1."""
    stopping = Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends us last.
    log_json()
    end_with_parent()
    store = status.open_index(config.state_dir)
    log = KafkaLog(config.kafka, "auth-checker")
    spool = Spool(config.state_dir / "spool", config.spool_bytes)
    publisher = Publisher(log, spool)
    following = Following(
        log,
        store,
        load_or_make(config.ledger_keys),
        status.machine_clocks(),
        checker=config.checker_id,
        max_staleness_ms=config.max_staleness_ms,
        pulse_ms=config.pulse_ms,
        starts=starts,
    )
    following.start()
    publisher.start()
    _log.info("following", pid=os.getpid(), starts=starts)
    _watch(following, stopping)
    following.stop()
    publisher.stop(_PUBLISH_S)
    spool.close()
    log.close()
    store.close()


def _watch(following: Following, stopping: Event) -> None:
    told_at = 0.0
    while not stopping.wait(_EVERY_S):
        why = following.failure()
        if why is not None:
            # What hangs cannot be stopped in order, and nothing needs it: the store and the spool outlive a kill.
            _log.critical("follower_cannot_go_on", why=why)
            os._exit(1)
        if time.monotonic() - told_at >= _TELL_EVERY_S:
            told_at = time.monotonic()
            following.tell()
