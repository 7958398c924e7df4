"""What the projector's tests share: organisations that write sealed events to a log, and a projector that reads it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import dict_row

from schemas import codec, events
from schemas.key_text import id_text
from schemas.topics import EXTERNAL_USAGE, LIFECYCLE, USAGE, partition_of
from services.ledger import seal
from services.ledger.chain import ROOT
from services.ledger.log import Log, Message
from services.ledger.memory_log import MemoryLog
from services.ledger.records import Batch, Place, Record, TopicPartition, value_hash
from services.projector.checkpoints import Checkpoints
from services.projector.database import Writer, connect, make_tables
from services.projector.projector import PROJECTED, Projector
from services.projector.status import Status

KEYS = seal.new_keys()
PARTITIONS = [TopicPartition(topic, partition) for topic in PROJECTED for partition in range(12)]
ORG, OTHER = "org_a", "org_b"
ADMIN, MEMBER, AUDITOR, ROBOT = "user_admin", "user_member", "user_auditor", "user_robot"
DAY = "2026-11-20T"


def key_id(number: int) -> str:
    return id_text(UUID(int=number))


@dataclass
class Ledger:
    """One organisation's writer: each event extends its own idea of the head."""

    log: Log
    org: str
    revision: int = 0
    parent: str = ROOT
    values: list[bytes] = field(default_factory=list)

    def value(self, event: events.LedgerEvent, **changes: Any) -> bytes:
        """The bytes of an event that extends the head, or is changed not to."""
        number = self.revision + 1
        envelope = events.Envelope(
            id=f"00000000-0000-7000-8000-{number:012d}",
            source="keyledger/test",
            subject=str(getattr(event, "key_id", self.org)),
            time=f"{DAY}{10 + number // 60:02d}:{number % 60:02d}:00.000Z",
            org=self.org,
            revision=number,
            parent=self.parent,
            authid=ADMIN,
            authtype="user",
            commandid="ab" * 32,
            commandhash="cd" * 32,
            event=event,
        )
        return codec.encode(replace(envelope, **changes))

    def write(self, *written: events.LedgerEvent) -> None:
        """Append events that extend the head."""
        for event in written:
            self.append(self.take(self.value(event)))

    def take(self, value: bytes) -> bytes:
        """These bytes are the head now."""
        self.revision, self.parent = self.revision + 1, hashlib.sha256(value).hexdigest()
        self.values.append(value)
        return value

    def append(self, value: bytes, partition: int | None = None, headers: seal.Headers | None = None) -> int:
        """Append sealed bytes; gives the offset."""
        at = partition_of(self.org) if partition is None else partition
        return self.log.append(
            Message(LIFECYCLE, at, self.org.encode(), value, KEYS.seal(value) if headers is None else headers), 1
        )


def used(number: int, outcome: str = "VALID", **changes: Any) -> events.KeyUsed:
    event = events.KeyUsed(
        key_id=key_id(number),
        org_id=ORG,
        user_id=MEMBER,
        outcome=outcome,
        count=1,
        first_at=f"{DAY}12:30:00.000Z",
        last_at=f"{DAY}12:30:00.500Z",
        ip="192.0.2.7",
    )
    return replace(event, **changes)


def use(log: Log, event: events.KeyUsed, sequence: int, partition: int = 0, source: str = "checker-1") -> None:
    """A checker sends a use."""
    envelope = events.UsageEnvelope("u" * 8, source, event.key_id, event.last_at, event, sequence)
    value = codec.encode_usage(envelope)
    log.append(Message(USAGE, partition, event.key_id.encode(), value), 1)


def use_elsewhere(
    log: Log, event: events.KeyUsed, id_: str, source: str = "their-service", sequence: int | None = None
) -> None:
    """Another service sends a use."""
    value = new_use(event, id_, source, sequence)
    log.append(Message(EXTERNAL_USAGE, 3, event.key_id.encode(), value), 1)


def new_use(event: events.KeyUsed, id_: str, source: str = "their-service", sequence: int | None = None) -> bytes:
    """The value of a record that tells of a use."""
    return codec.encode_usage(events.UsageEnvelope(id_, source, event.key_id, event.last_at, event, sequence))


def created(number: int, owner: str = MEMBER, **changes: Any) -> events.KeyCreated:
    event = events.KeyCreated(key_id(number), owner, f"key {number}", "5f" * 32, f"{number:04d}")
    return replace(event, **changes)


def tell_story(log: Log) -> tuple[Ledger, Ledger]:
    """Two organisations; keys 1 to 4 of the first: used, expired, revoked, never used."""
    ledger, other = Ledger(log, ORG), Ledger(log, OTHER)
    ledger.write(
        events.OrgRegistered(name="Example"),
        events.UserAdded(ADMIN, "person", "admin"),
        events.UserAdded(MEMBER, "person", "member"),
        events.UserAdded(AUDITOR, "person", "auditor"),
        events.UserAdded(ROBOT, "service_account", "member"),
        events.OrgKeysEnabled(),
        created(1, scopes=("keys:read",), cidrs=("192.0.2.0/24",)),
        created(2, expires_at=f"{DAY}12:00:00.000Z"),
        created(3),
        created(4, owner=ROBOT),
        events.KeyRenamed(key_id(1), "renamed"),
        events.KeyRevoked(key_id(3), "user_request"),
    )
    other.write(events.OrgRegistered(), events.UserAdded("user_other", "person", "admin"), events.OrgKeysEnabled())
    use(log, used(1, count=2), 1)
    use(log, used(1, last_at=f"{DAY}12:30:00.900Z", ip="192.0.2.9"), 2)
    use(log, used(3, "REVOKED"), 3)
    use_elsewhere(log, used(1, count=5, ip=None), "id-1")
    return ledger, other


def new_projector(database: str, partitions: Iterable[TopicPartition] = PARTITIONS) -> Projector:
    """A projector on the tables of a database, as after a start of the process."""
    with open_session(database) as session:
        make_tables(session)
    mine = list(partitions)
    checkpoints = Checkpoints(mine, dict.fromkeys(PROJECTED, "topic-id"))
    return Projector(lambda: open_session(database), KEYS, checkpoints, [at.partition for at in mine])


def open_session(database: str) -> Writer:
    return connect(database, "keyledger-test")


def new_records(log: Log, projector: Projector) -> list[Record]:
    """What the projector has not read yet, as its follower would bring it."""
    places = projector.resume_from()
    ends = log.end_offsets(PARTITIONS, 1)
    starts = {at: places.get(at, Place()).next_offset for at in PARTITIONS}
    if ends == starts:
        return []
    return log.reader(starts).poll(1000)


def apply_all(log: Log, projector: Projector, at_once: int = 1000) -> None:
    """Bring everything new to the projector in batches of so many records."""
    records = new_records(log, projector)
    for first in range(0, len(records), at_once):
        projector.apply(batch_of(records[first : first + at_once]))


def batch_of(records: list[Record]) -> Batch:
    places = {record.at: Place(record.offset + 1, value_hash(record)) for record in records}
    return Batch(tuple(records), places)


def rows(database: str, query: str, *values: Any) -> list[dict[str, Any]]:
    with psycopg.connect(database, row_factory=dict_row, options="-c search_path=read") as connection:
        return connection.execute(query, values).fetchall()


def write_status(path: Path, status: Status) -> None:
    path.write_bytes(msgspec.json.encode(status))


def at_of(ledger: Ledger) -> TopicPartition:
    """The partition of an organisation's ledger."""
    return TopicPartition(LIFECYCLE, partition_of(ledger.org))


TABLES = (
    *("checkpoints", "heads", "halting_records", "waiting_events", "ledger_records", "orgs", "users", "keys"),
    *("key_usage", "key_usage_hours", "usage_sources", "usage_gaps", "external_usage_ids"),
    "usage_quarantine",
)


def everything(database: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, in a fixed order."""
    found = {table: rows(database, f"SELECT * FROM {table}") for table in TABLES}
    return {table: sorted(content, key=repr) for table, content in found.items()}


def projected(database: str, log: MemoryLog) -> Projector:
    """A projector that has read the log so far."""
    projector = new_projector(database)
    apply_all(log, projector)
    return projector
