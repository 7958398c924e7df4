"""Writes straight onto `key-lifecycle` with a raw producer, past every service: what an intruder or a bug could do."""

import random
from collections.abc import Callable
from hashlib import sha256
from uuid import uuid4

from kafka import KafkaProducer

from schemas import codec, times
from schemas.events import Envelope, KeyRenamed, LedgerEvent
from schemas.topics import LIFECYCLE, PARTITIONS, partition_of
from services.ledger.seal import Headers, LedgerKeys, load_or_make
from tests.end_to_end.system import System
from tests.fault.readers import Ledgers

FOREIGN = (
    "garbage",
    "null",
    "foreign_json",
    "brackets",
    "sealed_brackets",
    "unsealed",
    "other_seal",
    "wrong_partition",
    "wrong_key",
    "not_canonical",
)
VOID = ("copy", "lost_race")


class Forger:
    """Knows the ledger keys, as a stolen copy of the file would."""

    def __init__(self, system: System, chance: random.Random) -> None:
        self._system, self._chance = system, chance
        self.keys = load_or_make(system.ledger_keys)
        self._producer = KafkaProducer(
            bootstrap_servers=system.broker.bootstrap, acks="all", enable_idempotence=False, linger_ms=0
        )

    def close(self) -> None:
        """Let go of the producer."""
        self._producer.close()

    def extend(self, org: str, *events: LedgerEvent) -> list[bytes]:
        """Events that extend the head of an organisation one after the other."""
        revision, parent = Ledgers(self._system).heads[org]
        values: list[bytes] = []
        for event in events:
            revision += 1
            values.append(event_value(org, revision, parent, event))
            parent = sha256(values[-1]).hexdigest()
        return values

    def put(self, org: str, value: bytes | None, headers: Headers = (), partition: int | None = None) -> int:
        """Append a record with the message key of an organisation; gives its offset."""
        at = partition_of(org) if partition is None else partition
        sent = self._producer.send(LIFECYCLE, value=value, key=org.encode(), headers=list(headers), partition=at)
        return int(sent.get(timeout=10).offset)

    def put_sealed(self, org: str, value: bytes, keys: LedgerKeys | None = None, partition: int | None = None) -> int:
        """The same with a seal, of the ledger key unless another one is given."""
        return self.put(org, value, (keys or self.keys).seal(value), partition)

    def inject(self, kind: str, org: str, key_id: str) -> None:
        """One record of a kind of FOREIGN or VOID, about a key of an organisation."""
        if kind in VOID:
            self.put_sealed(org, self._void(kind, org, key_id))
            return
        extends = self.extend(org, KeyRenamed(key_id, f"injected as {kind}"))[0]
        stolen_kid = LedgerKeys(self.keys.current, {self.keys.current: b"another key, of 32 bytes or more"})
        injections: dict[str, Callable[[], int]] = {
            "garbage": lambda: self.put(org, self._chance.randbytes(self._chance.randrange(1, 2000))),
            "null": lambda: self.put(org, None),
            "foreign_json": lambda: self.put(org, b'{"hello":"world"}'),
            "brackets": lambda: self.put(org, b"[" * 20_000),
            "sealed_brackets": lambda: self.put_sealed(org, b"[" * 20_000),
            "unsealed": lambda: self.put(org, extends),
            "other_seal": lambda: self.put_sealed(org, extends, stolen_kid),
            "wrong_partition": lambda: self.put_sealed(org, extends, partition=(partition_of(org) + 1) % PARTITIONS),
            "wrong_key": lambda: self.put(f"{org}-x", extends, self.keys.seal(extends), partition_of(org)),
            "not_canonical": lambda: self.put_sealed(org, extends.replace(b'"specversion":', b'"specversion": ')),
        }
        injections[kind]()

    def _void(self, kind: str, org: str, key_id: str) -> bytes:
        """A copy of an old record, or an event whose place another one took."""
        past = Ledgers(self._system).values(org)
        if kind == "copy":
            return self._chance.choice(past)
        revision = self._chance.randrange(2, len(past) + 1)
        parent = sha256(past[revision - 2]).hexdigest()
        return event_value(org, revision, parent, KeyRenamed(key_id, f"lost {uuid4()}"))


def event_value(org: str, revision: int, parent: str, event: LedgerEvent) -> bytes:
    """The canonical bytes of an event at a place of a ledger."""
    return codec.encode(
        Envelope(
            id=str(uuid4()),
            source="tests/forger",
            subject=str(getattr(event, "key_id", org)),
            time=times.to_text(times.wall_clock_ms()),
            org=org,
            revision=revision,
            parent=parent,
            authid="forger",
            authtype="user",
            commandid=str(uuid4()),
            commandhash="00" * 32,
            event=event,
        )
    )


def of_version_2(value: bytes) -> bytes:
    """The same event as a version that this software does not know."""
    changed = value.replace(b'"keyledger:KeyRenamed:1"', b'"keyledger:KeyRenamed:2"')
    assert changed != value
    return changed
