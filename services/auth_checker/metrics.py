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
from services.auth_checker.uses import Uses

EVERY_S: Final = 0.25
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Figures(msgspec.Struct):
    """What one worker counted since it started; `waiting` is a gauge."""

    codes: dict[str, int]
    uses: dict[str, int]


def forget(folder: Path) -> None:
    """Begin anew, before the workers start."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.json"):
        file.unlink()


class Metrics(Collector):
    """The figures of all workers and of the follower."""

    def __init__(self, folder: Path, name: str, uses: Uses, reader: IndexReader) -> None:
        self._file, self._uses, self._reader = folder / f"{name}.json", uses, reader
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
        yield CounterMetricFamily("keyledger_usage_windows", "KeyUsed records acknowledged.", value=uses["windows"])
        yield CounterMetricFamily("keyledger_usage_resends", "Batches of KeyUsed sent again.", value=uses["resends"])
        yield GaugeMetricFamily("keyledger_usage_windows_waiting", "KeyUsed to be sent.", value=uses["waiting"])
        with self._reader.read() as (_, current):
            pass
        fresh = GaugeMetricFamily("keyledger_fresh", "1 when keys are judged, 0 when all is STALE.")
        fresh.add_metric([], float(self._reader.is_fresh(current)))
        yield fresh
        if current is None:
            return
        age_s = current.age_s(self._reader.clocks.boot_ns())
        yield GaugeMetricFamily(
            "keyledger_follower_lag_records", "Records missing at the last look.", value=current.lag
        )
        yield GaugeMetricFamily("keyledger_follower_lag_seconds", "Age of what the answers rest on.", value=age_s)
        yield GaugeMetricFamily("keyledger_orgs_halted", "Organisations that are closed.", value=current.halted_orgs)
        yield _counter("ledger_records", "Records followed since the start, by outcome.", "outcome", current.counts)

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
