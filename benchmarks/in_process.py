"""Validations inside a Python service, without HTTP: `python -m benchmarks.in_process STATE_DIR KEYS SECONDS`.

Prints one JSON object. One validation in fifty is timed, for to time each would slow them down.
"""

import json
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.contenders import HOT
from benchmarks.measure import percentile
from keyledger.local_checker import LocalChecker

_BLOCK: Final = 50


def main() -> int:
    """One thread, 200 keys in turn."""
    state_dir, lines, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    keys = [line.split()[0] for line in lines.read_text().splitlines()[:HOT]]
    checker = LocalChecker(state_dir)
    latencies_s: list[float] = []
    done, began = 0, time.perf_counter()
    finish = began + seconds
    while (now := time.perf_counter()) < finish:
        _must_be_valid(checker, keys[done % len(keys)])
        latencies_s.append(time.perf_counter() - now)
        for number in range(done + 1, done + _BLOCK):
            _must_be_valid(checker, keys[number % len(keys)])
        done += _BLOCK
    took_s = time.perf_counter() - began
    checker.close()
    latencies_s.sort()
    p50_ms, p99_ms = (round(percentile(latencies_s, share) * 1000, 4) for share in (0.5, 0.99))
    print(
        json.dumps({"per_s": round(done / took_s, 1), "p50_ms": p50_ms, "p99_ms": p99_ms, "wrong": 0, "client_busy": 0})
    )
    return 0


def _must_be_valid(checker: LocalChecker, key: str) -> None:
    answer = checker.validate(key, ip="192.0.2.7")
    if not answer.valid:
        raise SystemExit(f"an answer was {answer.code}")


if __name__ == "__main__":
    sys.exit(main())
