"""Beside: appends of the library `eventsourcing` to PostgreSQL, by the script that stands beside this repository."""

import re
import subprocess
from pathlib import Path

from benchmarks.measure import FOLDER, Row
from benchmarks.processes import System

SCRIPT = Path("../shared/peers/eventsourcing/run.sh")
_LINE = re.compile(r"eventsourcing (\w+ \d+ conn): appends/s (\d+) p50 ([\d.]+) p99 ([\d.]+) ms")


def run(scale: float) -> list[Row]:
    """Its own store and its whole application, 1 and 8 connections; nothing where the script is absent."""
    if not SCRIPT.exists():
        print(f"  not measured: {SCRIPT} is not there", flush=True)
        return []
    with System() as system:
        command = ["bash", str(SCRIPT), str((FOLDER / "peer").absolute()), system.database_url, str(int(2000 * scale))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"  not measured: {SCRIPT} ended with {done.returncode}:\n{done.stderr[-2000:]}", flush=True)
    return [
        Row(f"eventsourcing, {name}", float(value), "appends/s", float(p50), float(p99))
        for name, value, p50, p99 in _LINE.findall(done.stdout)
    ]
