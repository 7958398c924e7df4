"""How far PostgreSQL is behind while uses come in steadily: from the moment of sending to the moment of being there."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from threading import Event, Thread
from typing import Final, NamedTuple

import psycopg
from kafka import KafkaProducer

from benchmarks.measure import Row, percentile
from benchmarks.processes import wait_until
from benchmarks.usage_rates import HOUR_MS, NEXT_OFFSETS, Uses
from services.ledger.log import Message

PER_S: Final = 10_000
SECONDS: Final = 20.0
LIMIT_MS: Final = 1000
_TICK_S: Final = 0.02
_LOOK_S: Final = 0.05


class Seen(NamedTuple):
    """At a moment: by partition, the offset of the next record, to be sent or to be projected."""

    at_s: float
    next_offsets: Mapping[int, int]


def lags_s(sent: Iterable[Seen], projected: Iterable[Seen]) -> list[float]:
    """At each look at what is projected: how long ago the oldest record was sent that is missing, 0 when none is."""
    waiting, lags = deque(sent), []
    for look in projected:
        while waiting and _has_all(look, waiting[0]):
            waiting.popleft()
        lags.append(max(0.0, look.at_s - waiting[0].at_s) if waiting else 0.0)
    return lags


def run(uses: Uses, scale: float) -> Row:
    """The projector has read everything that was there before."""
    database_url = uses.database("lag", "postgres")
    port = uses.system.start("projector", DATABASE_URL=database_url)
    messages = list(islice(uses.corpus.usage(HOUR_MS), int(PER_S * max(2.0, SECONDS * scale))))
    looks: list[Seen] = []
    ended = Event()
    looking = Thread(target=_look, args=(database_url, looks, ended), daemon=True)
    looking.start()
    sent = _send(uses.system.kafka, messages, uses.ends)
    wait_until(lambda: bool(looks) and _has_all(looks[-1], sent[-1]), "everything that was sent is projected")
    ended.set()
    looking.join()
    uses.system.stop(port)
    took_s = sent[-1].at_s - sent[0].at_s
    lags = sorted(lags_s(sent, (look for look in looks if sent[0].at_s <= look.at_s <= sent[-1].at_s)))
    p50_ms, p99_ms, most_ms = (round(percentile(lags, share) * 1000, 1) for share in (0.5, 0.99, 1.0))
    note = f"limit {LIMIT_MS}: {'met' if most_ms <= LIMIT_MS else 'missed'}; {len(messages) / took_s:,.0f}/s were sent for {took_s:.0f} s"
    return Row("lag_under_10000_per_s", most_ms, "ms, at most", p50_ms, p99_ms, note)


def _send(bootstrap: str, messages: Sequence[Message], ends: Mapping[int, int]) -> list[Seen]:
    """So many a second, a few at a time; gives what was sent when."""
    producer = KafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=False, linger_ms=5, batch_size=60_000
    )
    producer.partitions_for(messages[0].topic)  # Connected before the clock runs.
    following, sent, done = Counter(ends), [], 0
    began_s = time.perf_counter()
    while done < len(messages):
        due = min(len(messages), int((time.perf_counter() - began_s) * PER_S))
        sent.append(Seen(time.perf_counter(), {}))
        for message in messages[done:due]:
            producer.send(message.topic, message.value, message.key, list(message.headers), message.partition)
            following[message.partition] += 1
        sent[-1] = Seen(sent[-1].at_s, dict(following))
        done = due
        time.sleep(_TICK_S)
    producer.close()
    return sent


def _look(database_url: str, looks: list[Seen], ended: Event) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        while not ended.wait(_LOOK_S):
            looks.append(Seen(time.perf_counter(), dict(connection.execute(NEXT_OFFSETS).fetchall())))


def _has_all(projected: Seen, sent: Seen) -> bool:
    return all(projected.next_offsets.get(number, 0) >= offset for number, offset in sent.next_offsets.items())
