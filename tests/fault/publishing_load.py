"""Uses as two services tell them, in every way there is, and what must come of them; see `test_publishers`."""

import json
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from random import Random

from keyledger.publish import Publisher
from schemas import key_text, times
from schemas.topics import EXTERNAL_USAGE, PARTITIONS
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import Message
from services.ledger.records import Record, TopicPartition
from tests.end_to_end.system import System

HTTP_AT_ONCE = 250
SERVICES = ("invoices", "reports")
_HOUR_MS = 3_600_000
_OUTCOMES = ("VALID", "VALID", "VALID", "REVOKED", "INSUFFICIENT_SCOPE")
_SENT_S = 60.0
Place = tuple[str, str, str, str]
"""Organisation, key, hour (`2026-11-24T05`) and outcome."""


@dataclass(frozen=True)
class Owned:
    """A key and whose it is."""

    org_id: str
    user_id: str
    key_id: str


@dataclass(frozen=True)
class Use:
    """`count` uses of a key at one moment."""

    key: Owned
    at_ms: int
    outcome: str
    count: int

    @property
    def place(self) -> Place:
        """Where it counts."""
        return self.key.org_id, self.key.key_id, times.to_text(self.at_ms)[:13], self.outcome


class Uses:
    """Makes uses of the last hours; one in a hundred is of the day before yesterday, so late and out of order."""

    def __init__(self, random: Random) -> None:
        self._random, self._now_ms = random, times.wall_clock_ms()

    def of(self, keys: Sequence[Owned], count: int) -> list[Use]:
        """So many, of keys drawn from these."""
        return [self._one(self._random.choice(keys)) for _ in range(count)]

    def unknown(self, like: Owned, count: int) -> list[Use]:
        """Of keys that nobody has."""
        ids = ("0" + "".join(self._random.choices(key_text.ALPHABET, k=key_text.ID_LENGTH - 1)) for _ in range(count))
        return [self._one(Owned(like.org_id, like.user_id, key_id)) for key_id in ids]

    def misplaced(self, keys: Sequence[Owned], org_id: str, count: int) -> list[Use]:
        """Of these keys, in the name of an organisation that does not have them."""
        return self.of([Owned(org_id, key.user_id, key.key_id) for key in keys], count)

    def _one(self, key: Owned) -> Use:
        late_ms = 40 * _HOUR_MS if self._random.random() < 0.01 else 0
        at_ms = self._now_ms - late_ms - self._random.randrange(3 * _HOUR_MS)
        return Use(key, at_ms, self._random.choice(_OUTCOMES), self._random.randint(1, 3))


def fold(uses: Sequence[Use]) -> Counter[Place]:
    """What must be counted."""
    found: Counter[Place] = Counter()
    for use in uses:
        found[use.place] += use.count
    return found


def publish(bootstrap: str, uses: Sequence[Use], folder: Path | None) -> None:
    """By our publisher, both services in turn; with a file each where there is a folder."""
    with ExitStack() as stack:
        publishers = [
            stack.enter_context(Publisher(bootstrap, service, None if folder is None else folder / service))
            for service in SERVICES
        ]
        for number, use in enumerate(uses):
            key = use.key
            publishers[number % len(publishers)].used(
                key.key_id,
                org_id=key.org_id,
                user_id=key.user_id,
                outcome=use.outcome,
                at_ms=use.at_ms,
                ip=f"192.0.2.{number % 5}",
                count=use.count,
            )
        for publisher in publishers:
            publisher.flush(_SENT_S)


def post(system: System, key: str, uses: Sequence[Use]) -> None:
    """By `POST /v1/usage`, with this API key."""
    for first in range(0, len(uses), HTTP_AT_ONCE):
        body = [
            {
                "id": f"post-{first + number}",
                "key_id": use.key.key_id,
                "outcome": use.outcome,
                "at": times.to_text(use.at_ms),
                "count": use.count,
            }
            for number, use in enumerate(uses[first : first + HTTP_AT_ONCE])
        ]
        answer = system.call("command", "POST", "/v1/usage", body, key)
        assert answer.status == 202, answer


def send_cloud_events(log: KafkaLog, uses: Sequence[Use], random: Random) -> None:
    """By a producer that knows CloudEvents and nothing of ours: structured and binary mode, any offset, more attributes."""
    messages = []
    for number, use in enumerate(uses):
        at = datetime.fromtimestamp(use.at_ms / 1000, UTC).astimezone(
            timezone(timedelta(hours=random.randint(-11, 11)))
        )
        data = {"user_id": use.key.user_id, "key_id": use.key.key_id, "org_id": use.key.org_id, "count": use.count}
        data |= {"outcome": use.outcome, "last_at": at.isoformat(), "first_at": at.isoformat(timespec="microseconds")}
        attributes = {"type": "KeyUsed", "specversion": "1.0", "id": secrets.token_hex(8), "partitionkey": "any"}
        attributes |= {"source": f"gateway/{SERVICES[number % 2]}", "dataschema": "keyledger:KeyUsed:1"}
        headers: tuple[tuple[str, bytes | None], ...] = ()
        document: dict[str, object] = data
        if number % 2:
            headers = tuple((f"ce_{name}", text.encode()) for name, text in attributes.items())
            headers += (("content-type", b"application/json"),)
        else:
            document = attributes | {"datacontenttype": "application/json", "data": data}
        value = json.dumps(document, indent=1).encode()
        messages.append(Message(EXTERNAL_USAGE, number % PARTITIONS, use.key.key_id.encode(), value, headers))
    log.append_all(messages, _SENT_S)


def records(log: KafkaLog) -> Iterator[Record]:
    """All of `key-usage-external`."""
    partitions = [TopicPartition(EXTERNAL_USAGE, number) for number in range(PARTITIONS)]
    ends = log.end_offsets(partitions, 10)
    with closing(log.reader(log.first_offsets(partitions, 10))) as reader:
        while any(reader.positions()[at] < end for at, end in ends.items()):
            yield from reader.poll(100)


def send_again(log: KafkaLog, share: float, random: Random) -> int:
    """A share of all records once more, byte by byte, in another order; how many those are."""
    drawn = [record for record in records(log) if random.random() < share]
    random.shuffle(drawn)
    copies = [Message(one.topic, one.partition, one.key or b"", one.value or b"", one.headers) for one in drawn]
    log.append_all(copies, _SENT_S)
    return len(copies)
