"""The notary: follows every ledger by itself, with the chain rule and nothing else, and signs where each one stands.

It never signs a head that does not continue what it signed before: then two of its signatures would contradict each
other, and nobody could trust either.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from schemas.events import Envelope
from schemas.times import Clock, to_ms, to_text
from schemas.topics import CHECKPOINTS, LIFECYCLE, PARTITIONS
from services.auditor import checkpoints
from services.auditor.checkpoints import Session, Signed
from services.auditor.signing_key import SigningKey
from services.auditor.verify_bundle import Head
from services.ledger.chain import Applied, Link, Sorted, Void
from services.ledger.follow import Follower
from services.ledger.lmdb_chain import LmdbChain, LmdbHandler
from services.ledger.log import Log, LogUnavailable, Message
from services.ledger.records import Record, TopicPartition
from services.ledger.seal import LedgerKeys
from services.ledger.store import Store

_LIFECYCLE: Final = tuple(TopicPartition(LIFECYCLE, partition) for partition in range(PARTITIONS))
_ASK_S: Final = 10.0
_STEP_S: Final = 0.5
_SILENCE_S: Final = 60.0


class Contradiction(Exception):
    """The log does not continue what was signed before; nothing was signed. The message names organisation and revision."""


class _NoState:
    """The Fold of a notary: it judges chains, not what the events say."""

    def evolve(self, envelope: Envelope, offset: int) -> None:
        """See Fold."""


class _Watch:
    """An Archive that compares every applied record with what was signed of its organisation.

    It raises, so that nothing from there on is stored: whoever looks next finds the same.
    """

    def __init__(self, signed: Mapping[str, Head]) -> None:
        self._signed = signed
        self.found: Contradiction | None = None

    def sorted(self, record: Record, outcome: Sorted) -> None:
        """See Archive. Raises Contradiction."""
        if isinstance(outcome, Applied):
            self._compare(outcome.link)

    def resorted(self, org: str, offset: int, outcome: Applied | Void) -> None:
        """See Archive. Raises Contradiction."""
        if isinstance(outcome, Applied):
            self._compare(outcome.link)

    def _compare(self, link: Link) -> None:
        signed = self._signed.get(link.org)
        if signed is not None and link.revision == signed.revision and link.hash != signed.hash:
            self.found = Contradiction(_contradiction(link.org, signed, f"is {link.hash} in the log"))
            raise self.found


class Notary:
    """`folder` has its own copies of what it signed; `tell` hears how many records are read and how many there are."""

    def __init__(
        self,
        log: Log,
        store: Store,
        keys: LedgerKeys,
        session: Session,
        key: SigningKey,
        folder: Path,
        clock: Clock,
        tell: Callable[[int, int], None] = lambda done, of: None,
    ) -> None:
        self._log, self._store, self._keys, self._session = log, store, keys, session
        self._key, self._folder, self._clock, self._tell = key, folder, clock, tell

    def sign(self) -> tuple[Signed, Path]:
        """Follow to the end of the log and sign all heads; the last checkpoint again where nothing has changed since.

        Gives its file too. Raises Contradiction, Unverified for a last checkpoint that is not ours, LogUnavailable, OSError
        and psycopg.Error.
        """
        checkpoints.make_table(self._session)
        before = self._before()
        known = before.heads if before else {}
        self._follow(_Watch(known))
        with self._store.read() as txn:
            chain = LmdbChain(txn)
            heads = {org: Head(head.revision, head.hash) for org, head in chain.heads() if head.revision}
            _must_continue(chain, heads, known)
        if before is not None and heads == known:
            return before, checkpoints.keep(self._session, self._folder, before)
        # The newest is known by its time, so none may be older than the one before, whatever the clock says.
        now_ms = max(self._clock(), to_ms(before.time) + 1 if before else 0)
        signed = checkpoints.sign(self._key, heads, to_text(now_ms))
        self._log.append(Message(CHECKPOINTS, 0, self._key.origin.encode(), signed.note), _ASK_S)
        return signed, checkpoints.keep(self._session, self._folder, signed)

    def _before(self) -> Signed | None:
        """The newest that was signed: rows can be removed by whoever has SQL, and files by whoever has this machine."""
        keys = self._key.public_keys()
        kept = (checkpoints.newest(self._session, keys), checkpoints.newest_file(self._folder, keys))
        return max(filter(None, kept), key=lambda signed: signed.time, default=None)

    def _follow(self, watch: _Watch) -> None:
        handler = LmdbHandler(self._store, self._keys, lambda _: _NoState(), archive=watch)
        ends = self._log.end_offsets(_LIFECYCLE, _ASK_S)
        follower = Follower(self._log, _LIFECYCLE, handler, "notary")
        follower.start()
        try:
            for at, end in ends.items():
                self._wait(follower, watch, at, end, sum(ends.values()))
        finally:
            follower.stop()

    def _wait(self, follower: Follower, watch: _Watch, at: TopicPartition, end: int, total: int) -> None:
        moved_at, read = time.monotonic(), -1
        while not follower.wait_for(at, end, _STEP_S):
            if watch.found is not None:
                raise watch.found
            done = sum(follower.next_offsets().values())
            if done != read:
                moved_at, read = time.monotonic(), done
                self._tell(done, total)
            if time.monotonic() > moved_at + _SILENCE_S:
                raise LogUnavailable(
                    f"no record came for {_SILENCE_S:.0f} s; {at.topic}/{at.partition} is not read to {end}"
                )


def _must_continue(chain: LmdbChain, heads: Mapping[str, Head], known: Mapping[str, Head]) -> None:
    for org, signed in known.items():
        head = heads.get(org, Head(0, ""))
        if head.revision < signed.revision:
            raise Contradiction(_contradiction(org, signed, f"is gone: the log ends at revision {head.revision}"))
        # What is no longer remembered here was compared when it was read.
        if chain.hash_at(org, signed.revision) not in (None, signed.hash):
            raise Contradiction(_contradiction(org, signed, "is another one in the log"))


def _contradiction(org: str, signed: Head, what: str) -> str:
    return f"{org}: revision {signed.revision}, which was signed as {signed.hash}, {what}; nothing was signed"
