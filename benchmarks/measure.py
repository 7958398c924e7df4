"""Figures: percentiles, the machine they were seen on, and the file `var/bench/<name>.json` that keeps them."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from services.embedded.kafka_jars import VERSION as KAFKA

FOLDER = Path("var/bench")
PACKAGES = ("kafka-python", "psycopg", "flask", "granian", "lmdb", "msgspec", "marshmallow")


class NotMeasured(Exception):
    """There is no figure; the message says why."""


@dataclass(frozen=True)
class Row:
    """One figure, None where it was not run; latencies in milliseconds where there were any; what to know beside it."""

    name: str
    value: float | None
    unit: str
    p50_ms: float | None = None
    p99_ms: float | None = None
    note: str = ""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the sorted values do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def not_run(name: str, error: Exception) -> str:
    """Why, in one line, after saying so."""
    reason = " ".join(str(error).replace(f"{Path.cwd()}/", "").split())[-300:]
    print(f"  {name} is not run: {reason}", flush=True)
    return reason


def rate(name: str, count: int, seconds: float, unit: str, latencies_s: Sequence[float] = ()) -> Row:
    """Something per second, with the percentiles of its latencies."""
    ordered = sorted(latencies_s)
    p50, p99 = (round(percentile(ordered, share) * 1000, 3) if ordered else None for share in (0.5, 0.99))
    return Row(name, round(count / seconds, 1), unit, p50, p99)


def write(name: str, rows: Sequence[Row]) -> Path:
    """Keep each figure under its name, and all that is known of it with what it was measured on."""
    figures = {row.name: row.value for row in rows}
    known = {"machine": machine(), "versions": versions(), "rows": [asdict(row) for row in rows]}
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps(figures | known, indent=1) + "\n")
    return file


def machine() -> dict[str, str | float]:
    """Processor, cores and memory; and how busy it was, for a figure from a busy machine says little."""
    processor = platform.processor()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    usable = len(os.sched_getaffinity(0))
    made: dict[str, str | float] = {"processor": processor, "cores": usable, "memory_mb": pages // 2**20}
    return made | {"system": platform.platform(), "load_1m": round(os.getloadavg()[0], 1)}


def versions() -> dict[str, str]:
    """What ran: the commit, Python, Kafka and the packages that matter."""
    found = {"commit": _commit(), "python": platform.python_version(), "kafka": KAFKA}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def table(results: dict[str, list[Row]]) -> str:
    """All rows for a person."""
    lines: list[tuple[str, ...]] = [("benchmark", "what", "value", "unit", "p50 ms", "p99 ms", "note")]
    for name, rows in results.items():
        for row in rows:
            latencies = ("" if value is None else f"{value:,.2f}" for value in (row.p50_ms, row.p99_ms))
            value = "not run" if row.value is None else f"{row.value:,.{0 if row.value >= 100 else 2}f}"
            lines.append((name, row.name, value, row.unit, *latencies, row.note))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ("<", "<", ">", "<", ">", ">", "<")
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, aligned, widths, strict=True)).rstrip()
        for line in lines
    )


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []  # Not every system has it; the platform's own word for the processor stands then.
