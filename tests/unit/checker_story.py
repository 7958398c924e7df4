"""Tells the ledger's story to a log, sealed and chained as the command API does it, and folds it for the checker."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schemas import codec, events, key_text
from schemas.times import to_text
from schemas.topics import LIFECYCLE, partition_of
from services.auth_checker import status
from services.auth_checker.bodies import Answer, Asked
from services.auth_checker.handler import Checker
from services.auth_checker.index_reader import IndexReader
from services.auth_checker.lease import Lessee
from services.auth_checker.pulses import TOPIC, Listener, Pulses
from services.auth_checker.spool import Spool
from services.auth_checker.status import Clocks, IndexHandler, Progress
from services.auth_checker.uses import Uses
from services.ledger.log import Log, Message
from services.ledger.memory_log import MemoryLog
from services.ledger.records import Batch, Place, Record
from services.ledger.seal import LedgerKeys, new_keys

M_MS = 2000
NOW_MS = 1_795_428_000_000
"""The time at which most stories are told."""


def key_id(number: int = 1) -> str:
    return key_text.id_text(UUID(int=(0x0193F0A1 << 96) + number))


def key_of(number: int = 1, secret: bytes = bytes(range(32))) -> str:
    """The whole text of a key."""
    return key_text.compose(key_id(number), secret)


def created(number: int = 1, user_id: str = "ann", **more: Any) -> events.KeyCreated:
    text = key_of(number)
    fields: dict[str, Any] = {"name": "nightly import", "digest": key_text.digest(text), "last4": text[-4:], **more}
    return events.KeyCreated(key_id=key_id(number), user_id=user_id, **fields)


REGISTERED = events.OrgRegistered(name="Example")
ENABLED = events.OrgKeysEnabled()
ANN = events.UserAdded(user_id="ann", kind="person", role="admin")
BEGINNING = (REGISTERED, ANN, ENABLED)


class Teller:
    """Appends events to their organisation's chain."""

    def __init__(self, log: Log, keys: LedgerKeys | None = None) -> None:
        self.log, self.keys = log, keys or new_keys()
        self.heads: dict[str, tuple[int, str]] = {}

    def message(self, org: str, event: events.LedgerEvent, time_ms: int = NOW_MS) -> Message:
        """The next record of the organisation's chain."""
        revision, parent = self.heads.get(org, (0, "0" * 64))
        envelope = events.Envelope(
            id=f"0193f0a1-b2c3-7d4e-8f60-{revision + 1:012d}",
            source="keyledger/command-api",
            subject=org,
            time=to_text(time_ms),
            org=org,
            revision=revision + 1,
            parent=parent,
            authid="ann",
            authtype="user",
            commandid="ab" * 32,
            commandhash="cd" * 32,
            event=event,
        )
        value = codec.encode(envelope)
        self.heads[org] = (revision + 1, hashlib.sha256(value).hexdigest())
        headers = (("ce_type", type(event).__name__.encode()), *self.keys.seal(value))
        return Message(LIFECYCLE, partition_of(org), org.encode(), value, headers)

    def tell(self, org: str, *told: events.LedgerEvent, time_ms: int = NOW_MS) -> None:
        """Append these events."""
        self.log.append_all([self.message(org, event, time_ms) for event in told], 10)


class Clock:
    """Clocks that stand still until they are moved."""

    def __init__(self) -> None:
        self.wall_ms, self.boot_ns = NOW_MS, 1_000_000_000

    def advance(self, by_ms: int) -> None:
        self.wall_ms += by_ms
        self.boot_ns += by_ms * 1_000_000

    def clocks(self) -> Clocks:
        return Clocks(lambda: self.wall_ms, lambda: self.boot_ns, "this boot")


class Index:
    """An index in a folder, folded from an in-memory log when it is told to catch up."""

    def __init__(self, folder: Path) -> None:
        self.log, self.clock = MemoryLog(), Clock()
        self.teller = Teller(self.log)
        self.store = status.open_index(folder)
        self.handler = IndexHandler(self.store, self.teller.keys)
        lessee = Lessee("checker", "incarnation", "this boot", M_MS, {})
        self.pulses = Pulses(self.log, self.store, self.teller.keys, lessee, self.clock.clocks(), 0.25, 1.0)
        self.listener = Listener(self.store, self.teller.keys, self.pulses, "")

    def tell(self, org: str, *told: events.LedgerEvent, time_ms: int = NOW_MS) -> None:
        """Append, fold and vouch for it."""
        self.teller.tell(org, *told, time_ms=time_ms)
        self.catch_up()

    def catch_up(self) -> None:
        """Fold all there is, and vouch for it."""
        self.fold()
        assert self.pulses.beat()
        self.listen()
        with self.store.write() as txn:
            counts, pulses = dict(self.handler.counts), dict(self.pulses.counts)
            status.write_progress(txn, Progress(self.clock.boot_ns, 1, True, 0, 0, counts, pulses))

    def listen(self) -> None:
        """Read all there is of `checker-status`."""
        place = self.listener.resume_from().get(TOPIC, Place())
        records = tuple(self.log.reader({TOPIC: place.next_offset}).poll(0))
        self.listener.apply(Batch(records, {TOPIC: Place(place.next_offset + len(records), b"")}))

    def fold(self) -> None:
        """Fold all there is without vouching for it."""
        places = self.handler.resume_from()
        starts = {at: places.get(at, Place()).next_offset for at in status.FOLLOWED}
        records = tuple(self.log.reader(starts).poll(0))
        if records:
            self.handler.apply(Batch(records, {record.at: Place(record.offset + 1, b"") for record in records}))

    def read(self, topic: str) -> list[Record]:
        """All records of a topic."""
        return self.log.reader({at._replace(topic=topic): 0 for at in status.FOLLOWED}).poll(0)


class Asking:
    """A checker over an index."""

    def __init__(self, folder: Path) -> None:
        self.index = Index(folder)
        self.spool = Spool(folder / "spool")
        self.uses = Uses(self.spool)
        self.reader = IndexReader(self.index.store, self.index.clock.clocks(), M_MS)
        self.checker = Checker(self.reader, self.uses)

    def ask(self, key: str | None = None, **more: Any) -> Answer:
        return self.checker.validate(Asked(key=key_of() if key is None else key, **more))

    def code(self, key: str | None = None, **more: Any) -> str:
        return self.ask(key, **more).code


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    asking = Asking(tmp_path / "index")
    yield asking
    asking.spool.close()
    asking.index.store.close()
