"""Figures for Prometheus. Every worker process writes its own to a small file; whichever is asked adds them all up.

A counter never goes back while the main process lives: the file of a worker that ended stays. Figures of other
workers are as old as their last file, a quarter of a second.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.auth_checker.index_reader import IndexReader
from services.auth_checker.spool import Spool
from services.auth_checker.uses import Uses

EVERY_S: Final = 0.25
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Figures(msgspec.Struct):
    """What one worker counted since it started; `waiting`, windows in its memory, is a gauge."""

    codes: dict[str, int]
    uses: dict[str, int]


def forget(folder: Path) -> None:
    """Begin anew, before the workers start."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.json"):
        file.unlink()


class Metrics(Collector):
    """The figures of all workers and of the follower."""

    def __init__(self, folder: Path, name: str, uses: Uses, reader: IndexReader, spool: Spool) -> None:
        self._file, self._uses, self._reader, self._spool = folder / f"{name}.json", uses, reader, spool
        self._stopping = Event()
        self._writing = Lock()
        self._thread = Thread(target=self._run, name="figures", daemon=True)

    def start(self) -> None:
        """Begin writing the file."""
        self._thread.start()

    def stop(self) -> None:
        """Write the file once more."""
        self._stopping.set()
        self._thread.join()
        self.write()

    def write(self) -> None:
        """Write this worker's file."""
        # The thread and whoever asks for the figures would take the draft from under each other.
        with self._writing:
            codes, uses = self._uses.counts()
            draft = self._file.with_suffix(".draft")
            draft.write_bytes(msgspec.json.encode(Figures(codes, uses)))
            draft.replace(self._file)

    def spool(self) -> dict[str, float]:
        """See Spool.figures."""
        return self._spool.figures()

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        self.write()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        codes, uses = self._added_up()
        yield _counter("validations", "Answers by code.", "code", codes)
        yield CounterMetricFamily("keyledger_uses", "Uses of keys counted.", value=uses["uses"])
        yield GaugeMetricFamily("keyledger_usage_windows_waiting", "Uses in memory.", value=uses["waiting"])
        spool = self._spool.figures()
        yield CounterMetricFamily("keyledger_usage_windows", "KeyUsed records acknowledged.", value=spool["sent"])
        yield GaugeMetricFamily("keyledger_spool_records", "KeyUsed to be sent.", value=spool["records"])
        yield GaugeMetricFamily("keyledger_spool_bytes", "Size of those.", value=spool["bytes"])
        yield GaugeMetricFamily("keyledger_spool_fill", "The part of the spool that they fill.", value=spool["fill"])
        yield GaugeMetricFamily("keyledger_spool_age_seconds", "For how long one waits by now.", value=spool["age_s"])
        yield from self._following()

    def _following(self) -> Iterator[Metric]:
        with self._reader.read() as (_, current):
            pass
        now_ns = self._reader.clocks.boot_ns()
        yield _gauge("fresh", "1 when keys are judged, 0 when all is STALE.", float(self._reader.is_fresh(current)))
        left_ms = 0.0 if current is None else max(0.0, (current.lease.until_boot_ns - now_ns) / 1e6)
        yield _gauge("lease_left_ms", "For how long answers could be given if no further pulse were counted.", left_ms)
        if current is not None:
            age_s = max(0, now_ns - current.lease.begun_boot_ns) / 1e9
            yield _gauge("follower_lag_seconds", "Age of what the answers rest on.", age_s)
        progress = self._reader.progress()
        if progress is None:
            return
        told_s = max(0, now_ns - progress.told_ns) / 1e9
        yield _gauge("follower_told_seconds", "Time since the follower was heard of.", told_s)
        yield _gauge(
            "follower_starts", "Followers, each an incarnation, since the main process began.", progress.starts
        )
        if progress.lag is not None:
            yield _gauge("follower_lag_records", "Records missing.", progress.lag)
        yield _gauge("orgs_halted", "Organisations that are closed.", progress.halted_orgs)
        yield _counter("ledger_records", "Records followed since the start, by outcome.", "outcome", progress.counts)
        yield _counter("pulses", "Pulses of this incarnation; and foreign records.", "outcome", progress.pulses)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            self.write()

    def _added_up(self) -> tuple[Counter[str], Counter[str]]:
        codes: Counter[str] = Counter()
        uses: Counter[str] = Counter()
        for file in sorted(self._file.parent.glob("*.json")):
            figures = msgspec.json.decode(file.read_bytes(), type=Figures)
            codes.update(figures.codes)
            uses.update(figures.uses)
        return codes, uses


def _counter(name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"keyledger_{name}", text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"keyledger_{name}", text, value=value)
