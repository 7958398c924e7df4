"""A rebuild of the read tables beside a live projector and readers: how fast it is, and whether anybody notices.

From Kafka, then from the archive, over the same log, while one organisation goes on creating keys and keys are used.
Readers ask the read API all the time; an answer is wrong when it is none, or has a hole: fewer keys or users, or an
earlier head, than there must be or were answered before. In the end everything that was sent is counted, once.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from threading import Event, Thread
from typing import Any, Final, LiteralString, Self

import psycopg

from benchmarks.corpus import Corpus, Plan, send
from benchmarks.measure import Row, rate
from benchmarks.polling import Polling, any_caller_is_operator
from benchmarks.processes import System, wait_until
from schemas import times
from schemas.topics import LIFECYCLE, TOPICS, USAGE
from services.embedded.progress import dying_with_us
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import LogUnavailable
from services.ledger.preflight import prepare

EVENTS: Final = 1_000_000
READERS: Final = 4
_WATCHED: Final = 20
"""So many organisations are asked for, and the one that grows."""
_PLAN: Final = Plan(users=5, keys=100, uses=8, burst=5)
_OF_AN_ORG: Final = 917
"""So many events are of each organisation with this plan, roughly."""
_WRITE_EVERY_S: Final = 0.02
_LOOK_S: Final = 0.05
_STEP: Final = 50_000
_PROJECTED: Final = "SELECT coalesce(sum(next_offset), 0)::bigint FROM read.checkpoints"
_REBUILT: Final = "SELECT coalesce(sum(next_offset), 0)::bigint FROM read_new.checkpoints"
_THERE: Final = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('read.checkpoints')"
_Session = psycopg.Connection[tuple[Any, ...]]
Look = tuple[float, int]
"""When, and how many records were in the rebuilt tables."""


def run(scale: float) -> list[Row]:
    """On a system of its own; `scale` 1 is a million events."""
    with System() as system, any_caller_is_operator() as checker_url:
        plan = replace(_PLAN, orgs=max(2, round(EVENTS * scale / _OF_AN_ORG)))
        corpus = Corpus(plan, system.ledger_keys, times.wall_clock_ms())
        prepare(system.kafka, TOPICS)
        port = system.launch("projector", CHECKER_URL=checker_url)
        count, _ = send(system.kafka, chain(corpus.lifecycle(), corpus.usage()))
        with psycopg.connect(system.database_url, autocommit=True) as session:
            _wait_projected(system, session, port, count)
            session.execute("ANALYZE")  # Which PostgreSQL does by itself, within minutes of the rows.
            with _Writer(system, corpus) as writer:
                wait_until(lambda: _head(session, writer.org) > 0, "the organisation that grows is there")
                polling = Polling(f"http://127.0.0.1:{port}", {**_watched(corpus), writer.org: {}})
                rows = [row for source in ("kafka", "archive") for row in _measure(system, polling, source, count)]
            wait_until(lambda: _head(session, writer.org) == writer.written[LIFECYCLE], "what was written is projected")
            wanted = plan.uses * len(corpus.keys) + writer.written[USAGE]
            wait_until(lambda: _uses(session) >= wanted, f"all {wanted:,} uses are counted")
            if _uses(session) != wanted:
                raise AssertionError(f"{_uses(session):,} uses are counted, {wanted:,} were sent")
        return rows


def _measure(system: System, polling: Polling, source: str, count: int) -> list[Row]:
    looks: list[Look] = [(time.perf_counter(), 0)]
    with polling.going_on(READERS), _looking(system.database_url, looks):
        began_s = time.perf_counter()
        told = _rebuild(system, source)
        took_s = time.perf_counter() - began_s
    (first_s, first), (last_s, last) = _ends(looks, count)
    ordered = sorted(polling.latencies_s)
    what = "rebuild from Kafka" if source == "kafka" else "rebuild from the archive"
    return [
        replace(rate(f"{what}, {count:,} events", count, took_s, "events/s"), note=f"{took_s:.1f} s; {told}"),
        rate(f"{what}: of it, projecting", last - first, last_s - first_s, "events/s"),
        replace(rate(f"{what}: polls", len(ordered), took_s, "polls/s", ordered), note=f"{len(ordered):,} polls"),
        Row(f"{what}: the longest answer", round(ordered[-1] * 1000, 1), "ms"),
        Row(f"{what}: errors", len(polling.errors), "answers", note="; ".join(polling.errors[:3])),
        Row(f"{what}: holes", len(polling.holes), "answers", note="; ".join(polling.holes[:3])),
    ]


def _rebuild(system: System, source: str) -> str:
    """Run the command as an operator does; gives its last line. Raises RuntimeError when it has not switched."""
    command = [sys.executable, "-m", "keyledger.cli", "projector", "rebuild", "--from", source]
    environment = {
        "KEYLEDGER_LEDGER_KEYS": str(system.folder / "ledger-keys"),
        "KAFKA_BOOTSTRAP_SERVERS": system.kafka,
        "DATABASE_URL": system.database_url,
    }
    told: list[str] = []
    with subprocess.Popen(
        dying_with_us(command),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line.rstrip())
            print(f"  {told[-1]}", flush=True)
    if process.returncode != 0:
        raise RuntimeError(f"it ended with {process.returncode}: {told[-3:]}")
    return told[-1]


class _Writer:
    """Goes on writing while it is open: keys of an organisation of its own, and uses of keys of the corpus."""

    def __init__(self, system: System, corpus: Corpus) -> None:
        plan = Plan(orgs=1, users=2, keys=1_000_000, revoked=0.0, uses=1000, burst=1, seed=2)
        keys = [key for key in corpus.keys[:1000] if not key.revoked]
        self._uses = Corpus(replace(plan, seed=3), system.ledger_keys, corpus.now_ms, keys=keys).usage()
        self._events = Corpus(plan, system.ledger_keys, corpus.now_ms).lifecycle()
        self._first = next(self._events)
        self.org = self._first.key.decode()
        self.written: Counter[str] = Counter()
        self._failure: Exception | None = None
        self._log, self._ended = KafkaLog(system.kafka, "bench-writer"), Event()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop. Raises what has stopped it before."""
        self._ended.set()
        self._thread.join()
        self._log.close()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            for event, use in zip(chain([self._first], self._events), self._uses, strict=False):
                if self._ended.wait(_WRITE_EVERY_S):
                    return
                self._log.append_all([event, use], 10)
                self.written.update([event.topic, use.topic])
        except LogUnavailable as error:
            self._failure = error


def _watched(corpus: Corpus) -> Mapping[str, Mapping[str, int]]:
    """What must be known of some organisations, whose last events are long gone by."""
    keys = {org: [key for key in corpus.keys if key.org_id == org] for org in list(corpus.users)[:_WATCHED]}
    return {
        org: {
            "revision": corpus.heads[org],
            "active keys": sum(not key.revoked for key in found),
            "keys on the first page": min(200, len(found)),
            "users": len(corpus.users[org]),
        }
        for org, found in keys.items()
    }


@contextmanager
def _looking(database_url: str, looks: list[Look]) -> Iterator[None]:
    """Note again and again how many records the rebuilt tables stand on."""
    ended = Event()

    def look() -> None:
        with psycopg.connect(database_url, autocommit=True) as session:
            while not ended.wait(_LOOK_S):
                with suppress(psycopg.errors.UndefinedTable):  # Not yet, or not any more.
                    looks.append((time.perf_counter(), _number(session, _REBUILT)))

    thread = Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _ends(looks: Sequence[Look], count: int) -> tuple[Look, Look]:
    """From the first records that were seen to the last ones, so that starting a process is not counted."""
    last = next((one for one in looks if one[1] >= count), looks[-1])
    first = next(one for one in looks if one[1] > 0)
    return (first if first[1] < last[1] else looks[0]), last


def _wait_projected(system: System, session: _Session, port: int, count: int) -> None:
    """In steps, each of which may take as long as anything else."""
    wait_until(lambda: system.is_ready(port) or _number(session, _THERE) > 0, "the projector has begun")
    for wanted in [*range(_STEP, count, _STEP), count]:
        wait_until(lambda wanted=wanted: _number(session, _PROJECTED) >= wanted, f"{wanted:,} events are projected")  # type: ignore[misc]
    wait_until(lambda: system.is_ready(port), "the projector is ready")


def _head(session: _Session, org: str) -> int:
    return _number(session, "SELECT coalesce(max(revision), 0) FROM read.heads WHERE org_id = %s", org)


def _uses(session: _Session) -> int:
    return _number(session, "SELECT coalesce(sum(uses), 0)::bigint FROM read.key_usage")


def _number(session: _Session, query: LiteralString, *values: str) -> int:
    found = session.execute(query, values).fetchone()
    return int(found[0]) if found else 0
