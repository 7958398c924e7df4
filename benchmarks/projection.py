"""Projecting into PostgreSQL what is in the log already: the rate of a rebuild, and of catching up after an absence."""

import time

import psycopg

from benchmarks.corpus import Corpus, Plan, send
from benchmarks.measure import Row, rate
from benchmarks.processes import System, wait_until
from schemas import times
from schemas.topics import LIFECYCLE, TOPICS, USAGE
from services.ledger.preflight import prepare


def run(scale: float) -> list[Row]:
    """Lifecycle first, then uses; the projector is stopped while the log is written."""
    with System() as system:
        plan = Plan(orgs=max(1, int(500 * scale)), users=5, keys=100, uses=6)
        corpus = Corpus(plan, system.ledger_keys, times.wall_clock_ms())
        prepare(system.kafka, TOPICS)
        rows = []
        for topic, messages in ((LIFECYCLE, corpus.lifecycle()), (USAGE, corpus.usage())):
            written, _ = send(system.kafka, messages)
            rows.append(_measure(system, topic, written))
        return rows


def _measure(system: System, topic: str, written: int) -> Row:
    """From the first batch seen in PostgreSQL to the last, so that starting a process is not counted."""
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        seen = [(time.perf_counter(), 0)]

        def is_done() -> bool:
            system.is_ready(port)  # Raises when it has ended.
            seen.append((time.perf_counter(), _projected(connection, topic)))
            return seen[-1][1] >= written

        port = system.launch("projector")
        wait_until(is_done, f"{written} records of {topic} are projected")
    system.stop(port)
    began, first = next(one for one in seen if one[1] > 0)
    ended, last = seen[-1]
    if first == last:  # Too few for two looks: then from the start of the process on.
        (began, _), first = seen[0], 0
    return rate(f"{topic}, {written:,} events", last - first, ended - began, "events/s")


def _projected(connection: psycopg.Connection, topic: str) -> int:
    there = connection.execute("SELECT to_regclass('read.checkpoints')").fetchone()
    if there is None or there[0] is None:
        return 0
    query = "SELECT coalesce(sum(next_offset), 0) FROM read.checkpoints WHERE topic = %s"
    found = connection.execute(query, [topic]).fetchone()
    return int(found[0]) if found else 0
