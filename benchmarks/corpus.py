"""Writes sealed, chained ledgers and uses straight to the log: millions of events without the command API.

`python -m benchmarks.corpus --help` for a log of your own. Values are made by formatting canonical bytes; the first of
each type are checked against `schemas`, so that what is written is what the services would have written.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from pathlib import Path

from kafka import KafkaProducer

from schemas import decoder, key_text, times
from schemas.codec import encode, encode_usage
from schemas.topics import LIFECYCLE, TOPICS, USAGE, partition_of
from services.ledger.chain import ROOT
from services.ledger.log import Message
from services.ledger.preflight import prepare
from services.ledger.seal import LedgerKeys, load_or_make

CHECKED = 20
PAST_MS = 40 * 24 * 3600 * 1000
_ENVELOPE = (
    '{"authid":"%s","authtype":"user","commandhash":"%s","commandid":"%s","data":%s,"dataschema":"keyledger:%s:1",'
    '"id":"%s","org":"%s","parent":"%s","revision":%d,"source":"keyledger/corpus","specversion":"1.0","subject":"%s",'
    '"time":"%s","type":"%s"}'
)
_USE = (
    '{"data":{"count":1,"first_at":"%s","ip":"192.0.2.%d","key_id":"%s","last_at":"%s","org_id":"%s","outcome":"%s",'
    '"user_agent":"corpus/1","user_id":"%s"},"dataschema":"keyledger:KeyUsed:1","id":"%s","sequence":"%020d",'
    '"source":"%s","specversion":"1.0","subject":"%s","time":"%s","type":"KeyUsed"}'
)
_USED = (("ce_type", b"KeyUsed"),)


@dataclass(frozen=True)
class Plan:
    """How much to write; `revoked` is the share of keys (0 to 1), `uses` are per key.

    So many as `collected` of the keys belong to the first user of their organisation, the others to all in turn.
    `burst` uses of a key follow one another, so many of one hour; 1 makes nearly every use one of an hour of its own.
    The same seed gives the same ids.
    """

    orgs: int = 100
    users: int = 5
    keys: int = 20
    collected: int = 0
    revoked: float = 0.1
    uses: int = 10
    burst: int = 5
    seed: int = 1


@dataclass(frozen=True)
class MadeKey:
    """A key that the corpus created; `text` is what its user would hold, empty where no texts were asked for."""

    org_id: str
    user_id: str
    key_id: str
    text: str
    revoked: bool


@dataclass
class Corpus:
    """Makes the records of a plan. `keys`, `users` and `heads` fill up as `lifecycle` is read to its end.

    Making the texts of keys takes half the time, so they are made only when asked for; without, nobody can use a key.
    """

    plan: Plan
    ledger_keys: LedgerKeys
    now_ms: int
    with_texts: bool = False
    keys: list[MadeKey] = field(default_factory=list)
    users: dict[str, list[str]] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.plan.seed)
        self._checked: Counter[str] = Counter()

    def lifecycle(self) -> Iterator[Message]:
        """The ledgers, one organisation after another; the first user of each is its admin."""
        for _ in range(self.plan.orgs):
            org, users = self._id(), [self._id() for _ in range(self.plan.users)]
            self.users[org] = users
            yield from self._ledger(org, users[0], self._events(org, users))

    def usage(self, span_ms: int = PAST_MS // 2) -> Iterator[Message]:
        """Uses of all keys, by one checker that lost nothing, over the last `span_ms` milliseconds."""
        source, last, first_ms = f"keyledger/auth-checker/{self._id()}", Counter[int](), self.now_ms - span_ms
        total = self.plan.uses * len(self.keys)
        for number in range(total):
            key = self.keys[number // self.plan.burst % len(self.keys)]
            partition = partition_of(key.key_id)
            last[partition] += 1
            at = times.to_text(first_ms + number * span_ms // total)
            outcome = "REVOKED" if key.revoked else "VALID"
            used = (at, number % 200 + 1, key.key_id, at, key.org_id, outcome, key.user_id)
            value = (_USE % (*used, self._uuid(), last[partition], source, key.key_id, at)).encode()
            self._check("KeyUsed", value)
            yield Message(USAGE, partition, key.key_id.encode(), value, _USED)

    def _events(self, org: str, users: list[str]) -> Iterator[tuple[str, str, str]]:
        """(type, subject, data as JSON), in order."""
        yield "OrgRegistered", org, '{"name":"Corpus"}'
        for number, user in enumerate(users):
            role = "member" if number else "admin"
            yield "UserAdded", user, f'{{"kind":"person","role":"{role}","user_id":"{user}"}}'
        yield "OrgKeysEnabled", org, "{}"
        for number in range(self.plan.keys):
            key = self._key(org, users[0 if number < self.plan.collected else number % len(users)])
            digest = key_text.digest(key.text) if key.text else self._hex()
            last4 = key.text[-4:] or digest[-4:]
            data = f'"digest":"{digest}","key_id":"{key.key_id}","last4":"{last4}","name":"key {number}"'
            yield "KeyCreated", key.key_id, f'{{{data},"user_id":"{key.user_id}"}}'
            if key.revoked:
                yield "KeyRevoked", key.key_id, f'{{"key_id":"{key.key_id}","reason":"unused"}}'

    def _ledger(self, org: str, admin: str, events: Iterable[tuple[str, str, str]]) -> Iterator[Message]:
        parent, revision, key, partition = ROOT, 0, org.encode(), partition_of(org)
        time_ms = self.now_ms - PAST_MS
        for revision, (kind, subject, data) in enumerate(events, 1):
            at, command = times.to_text(time_ms + revision * 100), self._hex()
            made = (admin, command, command, data, kind, self._uuid(), org, parent, revision, subject, at, kind)
            value = (_ENVELOPE % made).encode()
            parent = sha256(value).hexdigest()
            self._check(kind, value)
            yield Message(LIFECYCLE, partition, key, value, (("ce_type", kind.encode()), *self.ledger_keys.seal(value)))
        self.heads[org] = revision

    def _key(self, org: str, user: str) -> MadeKey:
        key_id = self._id()
        text = key_text.compose(key_id, self._random.randbytes(32)) if self.with_texts else ""
        made = MadeKey(org, user, key_id, text, self._random.random() < self.plan.revoked)
        self.keys.append(made)
        return made

    def _check(self, kind: str, value: bytes) -> None:
        if self._checked[kind] >= CHECKED:
            return
        self._checked[kind] += 1
        decoded = encode_usage(decoder.decode_usage(value)) if kind == "KeyUsed" else encode(decoder.decode(value))
        if decoded != value:
            raise AssertionError(f"the corpus does not write canonical bytes: {value!r}, not {decoded!r}")

    def _id(self) -> str:
        return "0" + "".join(self._random.choices(key_text.ALPHABET, k=key_text.ID_LENGTH - 1))

    def _uuid(self) -> str:
        digits = self._random.randbytes(16).hex()
        return f"{digits[:8]}-{digits[8:12]}-7{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"

    def _hex(self) -> str:
        return self._random.randbytes(32).hex()


def send(bootstrap: str, messages: Iterable[Message]) -> tuple[int, float]:
    """Append all, in order; (how many, seconds). Raises kafka.errors.KafkaError when one is not acknowledged."""
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=False,
        max_in_flight_requests_per_connection=1,
        linger_ms=5,
        batch_size=60_000,  # A batch may not be larger than the topics' max.message.bytes.
    )
    began, count, last = time.perf_counter(), 0, {}
    try:
        for _, some in groupby(enumerate(messages), lambda numbered: numbered[0] // 20_000):
            for count, message in some:  # noqa: B007  # Counts over all groups.
                last[message.topic, message.partition] = producer.send(
                    message.topic, message.value, message.key, list(message.headers), message.partition
                )
            for future in last.values():  # A bound on memory, and no partition may have failed.
                future.get(timeout=60)
        return count + bool(last), time.perf_counter() - began
    finally:
        producer.close()


def write(bootstrap: str, corpus: Corpus) -> dict[str, tuple[int, float]]:
    """Make the topics where they are missing and write everything; {topic: (events, seconds)}."""
    prepare(bootstrap, TOPICS)
    return {LIFECYCLE: send(bootstrap, corpus.lifecycle()), USAGE: send(bootstrap, corpus.usage())}


def keep_texts(corpus: Corpus, file: Path) -> None:
    """The keys with their texts, one JSON object a line, readable by this user only."""
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text("".join(json.dumps(vars(key)) + "\n" for key in corpus.keys))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("--bootstrap", default="127.0.0.1:8092")
    parser.add_argument("--ledger-keys", type=Path, required=True, help="the services' ledger-keys file")
    parser.add_argument("--texts", type=Path, help="also write the key texts to this file, mode 0600")
    for name, default in vars(Plan()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    arguments = parser.parse_args()
    plan = Plan(**{name: getattr(arguments, name) for name in vars(Plan())})
    keys = load_or_make(arguments.ledger_keys)
    corpus = Corpus(plan, keys, times.wall_clock_ms(), with_texts=arguments.texts is not None)
    for topic, (events, seconds) in write(arguments.bootstrap, corpus).items():
        print(f"{topic}: {events:,} events in {seconds:.1f} s, {events / max(seconds, 1e-9):,.0f}/s", flush=True)
    if arguments.texts:
        keep_texts(corpus, arguments.texts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
