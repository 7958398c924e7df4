"""Appending at the ledger itself, no HTTP: decide on a head, write, wait until our own follower has applied it."""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.corpus import Corpus, Plan, write
from benchmarks.measure import Row, rate
from benchmarks.processes import System, wait_until
from schemas import times
from schemas.events import OrgKeysEnabled
from schemas.topics import LIFECYCLE, PARTITIONS
from services.command_api.handler import TABLES, CommandFold
from services.command_api.minting import Sources
from services.ledger.append import Appender, Cause
from services.ledger.follow import Follower
from services.ledger.kafka_log import KafkaLog
from services.ledger.lmdb_chain import CHAIN_TABLES, LmdbHandler
from services.ledger.records import TopicPartition
from services.ledger.store import Store

ORGS = 500


def run(scale: float) -> list[Row]:
    """One thread, then 32, over 500 organisations; `scale` 1 is the full size."""
    with System() as system:
        corpus = Corpus(Plan(orgs=ORGS, users=1, keys=0, uses=0), system.ledger_keys, times.wall_clock_ms())
        write(system.kafka, corpus)
        log = KafkaLog(system.kafka, "bench-append")
        store = Store(system.folder / "state", (*CHAIN_TABLES, *TABLES))
        handler = LmdbHandler(store, system.ledger_keys, CommandFold)
        follower = Follower(log, [TopicPartition(LIFECYCLE, n) for n in range(PARTITIONS)], handler, "bench")
        follower.start()
        try:
            wait_until(follower.caught_up, "the follower has read the log")
            appender = Appender(log, store, follower, system.ledger_keys, "keyledger/bench", Sources())
            return [_measure(appender, list(corpus.users), threads, int(2000 * scale)) for threads in (1, 32)]
        finally:
            follower.stop()
            log.close()
            store.close()


def _measure(appender: Appender, orgs: list[str], threads: int, count: int) -> Row:
    def one(number: int) -> float:
        cause = Cause("bench", "user", secrets.token_hex(32), "0" * 64)
        began = time.perf_counter()
        appender.execute(orgs[number % len(orgs)], cause, lambda *_: OrgKeysEnabled())
        return time.perf_counter() - began

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(threads * 3)))  # Connections and caches are warm from here on.
        began = time.perf_counter()
        latencies = list(pool.map(one, range(count)))
        seconds = time.perf_counter() - began
    return rate(f"append, {threads} threads, {len(orgs)} organisations", count, seconds, "appends/s", latencies)
