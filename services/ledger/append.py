"""Append with optimistic concurrency: decide on a head, write, and see in the log whether the write was first.

No lock and no transaction: of two writers on one head the first in the log wins, the other's event is void, and it
decides again (DESIGN section 1, "Appending").
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Final, Protocol

from schemas import times
from schemas.codec import encode
from schemas.events import AuthType, Envelope, LedgerEvent
from schemas.topics import LIFECYCLE, partition_of
from services.ledger.chain import Head
from services.ledger.follow import Follower
from services.ledger.lmdb_chain import LmdbChain
from services.ledger.log import Log, LogUnavailable, Message, OutcomeUnknown
from services.ledger.records import TopicPartition
from services.ledger.seal import LedgerKeys
from services.ledger.store import Store, Transaction

RACE_S: Final = 3.0
"""A command that loses races for longer than this is told that the organisation is busy."""
WAIT_S: Final = 5.0
"""So long we wait for an acknowledgement, and again for our own follower."""
QUIET_S: Final = 2.0
"""A log that has not told its ends for longer is taken to be away: who then waits for others is not told "busy"."""


class Busy(Exception):
    """Others were first for three seconds."""


class Refusal(Exception):
    """`decide` says no. Rests on ledger state, so it is given only after the end of the log was reached."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Who asked for what, as it stands in the envelope. `commandhash` is the SHA-256 (hex) of the canonical body."""

    authid: str
    authtype: AuthType
    commandid: str
    commandhash: str
    authkey: str | None = None
    authrevision: int | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Our event is applied: it is history."""

    revision: int
    hash: str
    time: str
    event: LedgerEvent


Decide = Callable[[Transaction, str], LedgerEvent | None]
"""Looks at the state, given the time (RFC 3339 text) that the event will bear, and gives an event, or None when
nothing needs to happen, or raises a Refusal."""


class Sources(Protocol):
    """Where time, ids and chance come from."""

    def now_ms(self) -> int:
        """Wall time, milliseconds since 1970."""

    def new_id(self) -> str:
        """A fresh UUIDv7 as text."""

    def jitter_s(self) -> float:
        """How long to step back after a lost race."""


class Appender:
    """Writes to ledgers by way of a reader's own store and follower. Thread-safe."""

    def __init__(  # Callers pass them in this order.
        self, log: Log, store: Store, follower: Follower, keys: LedgerKeys, source: str, sources: Sources
    ) -> None:
        self._log, self._store, self._follower, self._keys = log, store, follower, keys
        self._source, self._sources = source, sources
        # Striped: a lock per name that anybody can send would grow without bound.
        self._locks = tuple(Lock() for _ in range(1024))
        self.races_lost = 0

    def execute(self, org: str, cause: Cause, decide: Decide) -> Appended | None:
        """Decide and append until it is applied; None when the decision was that nothing needs to happen.

        A refusal, or None, is given only after the end of the partition was reached and the decision was the same.
        Raises what `decide` raises, Busy, OutcomeUnknown (an append may have happened) and LogUnavailable (none did).
        """
        deadline = time.monotonic() + RACE_S
        at_end = False
        while True:
            with self._alone(org, deadline):
                try:
                    head, now, event = self._decide(org, decide)
                except Refusal:
                    if at_end:
                        raise
                    event = None
                if event is not None and (appended := self._append(org, head, now, event, cause)) is not None:
                    return appended
            if event is None:
                if at_end:
                    return None
                self._follower.reach_end(TopicPartition(LIFECYCLE, partition_of(org)), WAIT_S)
                at_end = True
                continue
            self.races_lost += 1
            if time.monotonic() > deadline:
                raise Busy(org)
            time.sleep(self._sources.jitter_s())

    def _decide(self, org: str, decide: Decide) -> tuple[Head, str, LedgerEvent | None]:
        with self._store.read() as txn:
            head = LmdbChain(txn).head(org)
            # A ledger's times never run backwards, whatever the clocks of its writers do.
            now = max(times.to_text(self._sources.now_ms()), head.time)
            return head, now, decide(txn, now)

    @contextmanager
    def _alone(self, org: str, deadline: float) -> Iterator[None]:
        """Keep this process's own threads from racing each other for one organisation."""
        lock = self._locks[hash(org) % len(self._locks)]
        if not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            if self._follower.idle_s() > QUIET_S:
                raise LogUnavailable("an earlier command of this organisation still waits for the log")
            raise Busy(org)
        try:
            yield
        finally:
            lock.release()

    def _append(self, org: str, head: Head, now: str, event: LedgerEvent, cause: Cause) -> Appended | None:
        """Write one event on this head. None when another one was first."""
        envelope = self._envelope(org, head, now, event, cause)
        value = encode(envelope)
        headers = (("ce_type", type(event).__name__.encode()), *self._keys.seal(value))
        if cause.traceparent is not None:
            headers = (*headers, ("traceparent", cause.traceparent.encode()))
        at = TopicPartition(LIFECYCLE, partition_of(org))
        offset = self._log.append(Message(at.topic, at.partition, org.encode(), value, headers), WAIT_S)
        if not self._follower.wait_for(at, offset + 1, WAIT_S):
            raise OutcomeUnknown("written, but not read back in time")
        mine = sha256(value).hexdigest()
        with self._store.read() as txn:
            applied = LmdbChain(txn).hash_at(org, envelope.revision)
        return Appended(envelope.revision, mine, envelope.time, event) if applied == mine else None

    def _envelope(self, org: str, head: Head, now: str, event: LedgerEvent, cause: Cause) -> Envelope:
        return Envelope(
            id=self._sources.new_id(),
            source=self._source,
            subject=getattr(event, "key_id", None) or getattr(event, "user_id", None) or org,
            time=now,
            org=org,
            revision=head.revision + 1,
            parent=head.hash,
            authid=cause.authid,
            authtype=cause.authtype,
            authkey=cause.authkey,
            authrevision=cause.authrevision,
            commandid=cause.commandid,
            commandhash=cause.commandhash,
            event=event,
        )
