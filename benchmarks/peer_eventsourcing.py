"""Beside: appends of the library `eventsourcing` to PostgreSQL, by the script that stands beside this repository."""

import re
import subprocess

from benchmarks.measure import FOLDER, NotMeasured, Row
from benchmarks.peers import script
from benchmarks.processes import System

_LINE = re.compile(r"eventsourcing (\w+ \d+ conn): appends/s (\d+) p50 ([\d.]+) p99 ([\d.]+) ms")


def run(scale: float) -> list[Row]:
    """Its own store and its whole application, 1 and 8 connections; nothing where the script is absent."""
    try:
        run_sh = script("eventsourcing")
    except NotMeasured as reason:
        print(f"  not measured: {reason}", flush=True)
        return []
    with System() as system:
        command = ["bash", str(run_sh), str((FOLDER / "peer").absolute()), system.database_url, str(int(2000 * scale))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"  not measured: {run_sh} ended with {done.returncode}:\n{done.stderr[-2000:]}", flush=True)
    return [
        Row(f"eventsourcing, {name}", float(value), "appends/s", float(p50), float(p99))
        for name, value, p50, p99 in _LINE.findall(done.stdout)
    ]
