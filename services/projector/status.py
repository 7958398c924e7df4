"""How the follower is doing: its process writes a small file once a second, the process that serves HTTP reads it.

A file, because it tells the truth while PostgreSQL is away too. Up to when the log is in the tables is written to
PostgreSQL beside it, since the reads of one process serve the partitions of all.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import psycopg
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from schemas.times import Clock
from schemas.topics import LIFECYCLE
from services.ledger.follow import Follower
from services.ledger.records import TopicPartition
from services.projector.database import Writer
from services.projector.projector import Projector
from services.projector.quarantine import BEFORE_CREATION, FUTURE, WAITING

EVERY_S: Final = 1.0
_MOST_BEHIND_S: Final = 15.0
_SILENT_MS: Final = 5000
_log = structlog.get_logger("keyledger.projector")


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """`counts` are by outcome since the follower started, `lag` is records behind by `topic/partition`.

    `orgs_halted` counts those of its partitions. `as_of_ms` is the moment up to which everything in the log was in the tables, None before that was so once.
    """

    written_ms: int
    caught_up: bool
    failure: str | None
    as_of_ms: int | None
    counts: dict[str, int]
    lag: dict[str, int]
    orgs_halted: int


class Reporter:
    """Tells in a thread of its own how a follower is doing. `connect` opens a session for it, `judged` gives what else
    was counted than what the projector counts.
    """

    def __init__(
        self,
        follower: Follower,
        projector: Projector,
        connect: Callable[[], Writer],
        path: Path,
        clock: Clock,
        judged: Callable[[], Counter[str]] = Counter,
    ) -> None:
        self._follower, self._projector, self._connect, self._judged = follower, projector, connect, judged
        self._path, self._clock = path, clock
        self._session: Writer | None = None
        self._as_of: dict[int, int] = {}
        self._partitions: set[int] = set()
        self._orgs_halted = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def start(self) -> None:
        """Begin reporting."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the thread."""
        self._stopping.set()
        self._thread.join()
        if self._session is not None:
            self._session.close()

    def report(self) -> None:
        """Report once. Raises psycopg.OperationalError when PostgreSQL is away; the file is written before."""
        lag, now_ms, idle_s = self._follower.lag(), self._clock(), self._follower.idle_s()
        self._partitions = {at.partition for at in lag if at.topic == LIFECYCLE}
        behind = {at.partition for at, records in lag.items() if records}
        if lag:
            self._as_of.update(dict.fromkeys(self._partitions - behind, now_ms - round(idle_s * 1000)))
        self._write_file(lag, now_ms)
        if self._session is not None and self._session.broken:
            self._session.close()
            self._session = None
        if self._session is None:
            self._session = self._connect()
        self._session.execute(
            "INSERT INTO freshness SELECT * FROM unnest(%s::integer[], %s::bigint[])"
            " ON CONFLICT (partition) DO UPDATE SET as_of_ms = GREATEST(freshness.as_of_ms, EXCLUDED.as_of_ms)",
            [list(self._as_of), list(self._as_of.values())],
        )
        [(self._orgs_halted,)] = self._session.execute(
            "SELECT count(*) FROM heads WHERE halt_why IS NOT NULL AND partition = ANY (%s)", [list(self._partitions)]
        )

    def _write_file(self, lag: Mapping[TopicPartition, int], now_ms: int) -> None:
        failure = self._follower.failure or self._projector.stopped
        complete = self._partitions and self._partitions <= self._as_of.keys()
        status = Status(
            written_ms=now_ms,
            caught_up=self._follower.caught_up(),
            failure=None if failure is None else str(failure),
            as_of_ms=min(self._as_of.values()) if complete else None,
            counts=dict(self._projector.counts + self._judged()),
            lag={f"{at.topic}/{at.partition}": records for at, records in lag.items()},
            orgs_halted=self._orgs_halted,
        )
        draft = self._path.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(status))
        draft.replace(self._path)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            try:
                self.report()
            except (psycopg.Error, OSError) as error:
                _log.warning("report_failed", error=str(error))


class StatusFile:
    """The status as the process that serves HTTP sees it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Status | None:
        """The newest status; None before the first."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Status)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def not_ready(self, now_ms: int) -> str | None:
        """Why the tables are not up to date; None when they are."""
        status = self.read()
        if status is None or now_ms - status.written_ms > _SILENT_MS:
            return "the follower does not say how it is doing"
        if status.failure is not None:
            return status.failure
        if not status.caught_up or status.as_of_ms is None:
            return "catching up with the log"
        behind_s = (now_ms - status.as_of_ms) / 1000
        return f"the tables last held the whole log {behind_s:.0f} s ago" if behind_s > _MOST_BEHIND_S else None

    def metrics(self, now_ms: int) -> bytes:
        """In Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(_Collector(self.read(), now_ms))
        return generate_latest(registry)


class _Collector:
    def __init__(self, status: Status | None, now_ms: int) -> None:
        self._status, self._now_ms = status, now_ms

    def collect(self) -> list[CounterMetricFamily | GaugeMetricFamily]:
        status = self._status
        if status is None:
            return []
        counters = {
            "batches": "Batches that were committed.",
            "gaps": "Ranges of numbers of a checker's KeyUsed that were missing when a later one came.",
            "released": "Uses that waited for their key and were counted.",
            "lost": "Usage records that expired before they were read.",
        }
        families = [
            CounterMetricFamily(f"keyledger_projector_{name}", text, value=status.counts.get(name, 0))
            for name, text in counters.items()
        ]
        records = CounterMetricFamily("keyledger_projector_records", "Records by outcome.", labels=["outcome"])
        for outcome in ("applied", "void", "foreign", "broken", "halted", "usage", "duplicates"):
            records.add_metric([outcome], status.counts.get(outcome, 0))
        held = CounterMetricFamily(
            "keyledger_projector_quarantined_uses", "Uses not counted, by reason.", labels=["reason"]
        )
        for reason in (WAITING, FUTURE, BEFORE_CREATION):
            held.add_metric([reason], status.counts.get(reason, 0))
        lag = GaugeMetricFamily("keyledger_projector_lag_records", "Records behind.", labels=["topic", "partition"])
        for at, behind in status.lag.items():
            lag.add_metric(at.split("/"), behind)
        gauges = {
            "report_age_seconds": ("Since the follower last reported.", (self._now_ms - status.written_ms) / 1000),
            "orgs_halted": ("Organisations that are halted.", float(status.orgs_halted)),
            "stopped": ("1 when the follower has stopped for good.", float(status.failure is not None)),
        }
        if status.as_of_ms is not None:
            age_s = max(0, self._now_ms - status.as_of_ms) / 1000
            gauges["lag_seconds"] = ("Since the tables last held the whole log.", age_s)
        return [
            *families,
            records,
            held,
            lag,
            *(GaugeMetricFamily(f"keyledger_projector_{name}", *described) for name, described in gauges.items()),
        ]
