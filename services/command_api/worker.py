"""What runs in granian's worker process: constructs everything a command API is made of.

It is a module of its own because a spawned process cannot load anything from a package's `__main__`.
"""

import multiprocessing
import os
import sys
from functools import partial
from multiprocessing.util import Finalize
from threading import Thread
from typing import Any
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from schemas import tokens
from schemas.topics import LIFECYCLE, PARTITIONS
from services.command_api.app import Parts, create_app
from services.command_api.callers import Callers, Checker, fetch_jwks
from services.command_api.config import Config
from services.command_api.effects import Effects
from services.command_api.handler import TABLES, CommandFold, CommandHandler
from services.command_api.minting import Sources
from services.command_api.usage_intake import UsageIntake
from services.ledger.append import Appender
from services.ledger.follow import Follower
from services.ledger.kafka_log import KafkaLog
from services.ledger.lmdb_chain import CHAIN_TABLES, LmdbHandler
from services.ledger.records import TopicPartition
from services.ledger.seal import load_or_make
from services.ledger.store import Store


def load_app(config: Config) -> Any:
    """Make the app, and start following the log."""
    log_json()
    Thread(target=_end_with_parent, daemon=True).start()
    store = open_store(config)
    log = KafkaLog(config.bootstrap, "command-api")
    parts, follower = build(config, store, log)
    follower.start()
    parts.effects.start()
    Thread(target=log.warm_patiently, daemon=True).start()
    Finalize(None, partial(_stop, parts.effects, follower, log, store), exitpriority=10)
    return create_app(parts)


def open_store(config: Config) -> Store:
    """The store of this command API; one process at a time opens it."""
    return Store(config.state_dir / "ledger", (*CHAIN_TABLES, *TABLES))


def build(config: Config, store: Store, log: KafkaLog) -> tuple[Parts, Follower]:
    """All parts of a command API, not started yet."""
    registry = CollectorRegistry()
    keys = load_or_make(config.ledger_keys)
    records = Counter("keyledger_records_total", "Lifecycle records by outcome.", ("outcome",), registry=registry)
    reader = LmdbHandler(store, keys, CommandFold, partial(_count, records))
    partitions = [TopicPartition(LIFECYCLE, partition) for partition in range(PARTITIONS)]
    follower = Follower(log, partitions, reader, "command-api")
    sources = Sources()
    appender = Appender(log, store, follower, keys, f"keyledger/command-api/{uuid4()}", sources)
    # Half of the threads: the others go on serving while a checker is away and every revocation waits for M.
    effects = Effects(log, store, keys, config.max_staleness_ms, max(1, config.threads // 2))
    _expose(registry, follower, appender, log, effects)
    key_set = tokens.KeySet(fetch_jwks(config.console_url))
    parts = Parts(
        handler=CommandHandler(appender, store, follower, config.most_keys),
        callers=Callers(key_set, Checker(config.checker_url, config.checker_token), store),
        usage=UsageIntake(log, store, follower, sources),
        effects=effects,
        store=store,
        sources=sources,
        registry=registry,
        key_prefix=config.key_prefix,
        not_ready=partial(_not_ready, follower, config.max_staleness_ms / 1000),
    )
    return parts, follower


def _count(records: Counter, counts: dict[str, int]) -> None:
    for outcome, count in counts.items():
        records.labels(outcome).inc(count)


def _expose(
    registry: CollectorRegistry, follower: Follower, appender: Appender, log: KafkaLog, effects: Effects
) -> None:
    gauges = {
        "keyledger_follower_lag_records": lambda: sum(follower.lag().values()),
        "keyledger_follower_lag_seconds": follower.lag_s,
        "keyledger_follower_idle_seconds": follower.idle_s,
        "keyledger_races_lost": lambda: appender.races_lost,
        "keyledger_producers_replaced": lambda: log.producers_replaced,
        "keyledger_effects_pending": effects.pending,
        "keyledger_floors_unacknowledged": effects.floors.unacknowledged,
        "keyledger_checker_status_idle_seconds": effects.listener.idle_s,
        "keyledger_checker_status_foreign": lambda: effects.listener.foreign,
    }
    for name, value in gauges.items():
        Gauge(name, name.removeprefix("keyledger_").replace("_", " "), registry=registry).set_function(value)


def _not_ready(follower: Follower, most_idle_s: float) -> str | None:
    if follower.failure is not None:
        return str(follower.failure)
    if not follower.caught_up():
        return "catching up with the log"
    if follower.idle_s() > most_idle_s:
        return f"the log has not told its ends for {follower.idle_s():.1f} s"
    return None


def _stop(effects: Effects, follower: Follower, log: KafkaLog, store: Store) -> None:
    effects.stop()
    follower.stop()
    log.close()
    store.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        os.setpgrp()  # Ctrl-C goes to a whole group; told twice to stop, by it and by the parent, the server hangs.
        parent.join()
        os._exit(1)  # Nobody would restart an orphan, and it would hold the port.


def log_json() -> None:
    """What is logged is one JSON line on standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
