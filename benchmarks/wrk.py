"""The client of all servers of one comparison: wrk, which is cheap, asks at random and looks at every answer."""

import re
import resource
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.measure import NotMeasured

CONNECTIONS: Final = 32
WARM_UP_S: Final = 1.0
_SCRIPT: Final = Path(__file__).with_name("wrk.lua")
_LINE: Final = re.compile(
    r"answers=(?P<answers>\d+) seconds=(?P<seconds>[\d.]+) wrong=(?P<wrong>\d+) failed=(?P<failed>\d+)"
    r" p50_us=(?P<p50>\d+) p99_us=(?P<p99>\d+) example=(?P<example>.*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Load:
    """Answers as expected per second, latencies, answers that were not, and how much of its core the client used."""

    per_s: float
    p50_ms: float
    p99_ms: float
    wrong: int
    client_busy: float


def check() -> None:
    """Raises NotMeasured when wrk is missing."""
    if shutil.which("wrk") is None:
        raise NotMeasured("wrk, the client, is not on this machine: apt-get install wrk")


def ask(port: int, requests: Sequence[bytes], expected: str, seconds: float, file: Path) -> Load:
    """Ask over 32 connections for so long, after a second of warm-up; `file` is written. Raises NotMeasured.

    Every answer must have the status 200 and contain `expected`.
    """
    file.touch(mode=0o600)
    file.write_bytes(b"\0".join(requests))
    _run(port, file, expected, min(WARM_UP_S, seconds))
    return _run(port, file, expected, seconds)


def _run(port: int, file: Path, expected: str, seconds: float) -> Load:
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(_SCRIPT)]
    command = ["wrk", *options, f"http://127.0.0.1:{port}", "--", str(file), expected]
    used, began = _cpu_s(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    busy = (_cpu_s() - used) / (time.perf_counter() - began)
    return read(done.stdout + done.stderr, busy)


def read(said: str, busy: float) -> Load:
    """The figures in what wrk said. Raises NotMeasured when there are none, or there was no good answer."""
    found = _LINE.search(said)
    if found is None:
        raise NotMeasured(f"wrk gave no figures: {said[-300:]}")
    answers, wrong, failed, p50_us, p99_us = (int(found[name]) for name in ("answers", "wrong", "failed", "p50", "p99"))
    if answers <= wrong:
        raise NotMeasured(
            f"no answer was as expected; {failed} connections failed; the last: {found['example'].strip()}"
        )
    return Load(
        per_s=round((answers - wrong) / float(found["seconds"]), 1),
        p50_ms=p50_us / 1000,
        p99_ms=p99_us / 1000,
        wrong=wrong + failed,
        client_busy=round(busy, 2),
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
