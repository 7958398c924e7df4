"""Projecting into PostgreSQL what is in the log already: the rate of a rebuild, and of catching up after an absence."""

import time
from collections.abc import Iterable
from dataclasses import replace

import psycopg

from benchmarks.corpus import Corpus, Plan, send
from benchmarks.measure import Row, rate
from benchmarks.processes import System, wait_until
from schemas import times
from schemas.topics import LIFECYCLE, TOPICS, USAGE
from services.ledger.log import Message
from services.ledger.preflight import prepare


def run(scale: float) -> list[Row]:
    """Lifecycle first, then uses; the projector is stopped while the log is written."""
    with System() as system:
        plan = Plan(orgs=max(1, int(500 * scale)), users=5, keys=100, uses=6, burst=1)
        corpus = Corpus(plan, system.ledger_keys, times.wall_clock_ms())
        prepare(system.kafka, TOPICS)
        rows = [_measure(system, LIFECYCLE, corpus.lifecycle(), "events")]
        rows.append(_measure(system, USAGE, corpus.usage(), "uses, each of another key and hour"))
        corpus.plan = replace(plan, uses=10, burst=10)
        rows.append(_measure(system, USAGE, corpus.usage(), "uses, ten of a key and hour"))
        return rows


def _measure(system: System, topic: str, messages: Iterable[Message], what: str) -> Row:
    """From the first batch seen in PostgreSQL to the last, so that starting a process is not counted."""
    count, _ = send(system.kafka, messages)
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        before = _projected(connection, topic)
        seen = [(time.perf_counter(), before)]

        def is_done() -> bool:
            system.is_ready(port)  # Raises when it has ended.
            seen.append((time.perf_counter(), _projected(connection, topic)))
            return seen[-1][1] >= before + count

        port = system.launch("projector")
        wait_until(is_done, f"{count} records of {topic} are projected")
    system.stop(port)
    began, first = next(one for one in seen if one[1] > before)
    ended, last = seen[-1]
    if first == last:  # Too few for two looks: then from the start of the process on.
        began, first = seen[0]
    return rate(f"{topic}, {count:,} {what}", last - first, ended - began, "events/s")


def _projected(connection: psycopg.Connection, topic: str) -> int:
    there = connection.execute("SELECT to_regclass('read.checkpoints')").fetchone()
    if there is None or there[0] is None:
        return 0
    query = "SELECT coalesce(sum(next_offset), 0) FROM read.checkpoints WHERE topic = %s"
    found = connection.execute(query, [topic]).fetchone()
    return int(found[0]) if found else 0
