"""Our checker with 1,000,000 keys beside one with 100,000: start, restart, disk and latency."""

import random
import time
from pathlib import Path
from typing import Final

from benchmarks import wrk
from benchmarks.contenders import validation
from benchmarks.corpus import Corpus, Plan, send
from benchmarks.measure import Row
from benchmarks.processes import System, pinning, split_cores
from benchmarks.wrk import Load
from schemas import times
from schemas.topics import TOPICS
from services.ledger.preflight import prepare

FEW: Final = 100_000
MANY: Final = 1_000_000
ASKED: Final = 100_000
"""So many keys, drawn from all, are asked about: as many as wrk holds without trouble."""
SECONDS: Final = 10.0
KEYS_PER_ORG: Final = 200


def run(scale: float) -> list[Row]:
    """Each size in a system of its own, one after the other."""
    wrk.check()
    rows: list[Row] = []
    loads = []
    for keys in (FEW, MANY):
        with split_cores() as core, System(core) as system:
            print(f"  {pinning(core)}", flush=True)
            measured, load = _measure(system, max(KEYS_PER_ORG, int(keys * scale)), max(1.0, SECONDS * scale))
            rows += measured
            loads.append(load)
    few, many = loads
    return [*rows, Row("p99 with ten times as many keys", round(many.p99_ms / few.p99_ms, 2), "times")]


def _measure(system: System, keys: int, seconds: float) -> tuple[list[Row], Load]:
    corpus = _written(system, keys)
    began = time.perf_counter()
    port = system.start("auth_checker")
    cold_s = time.perf_counter() - began
    system.stop(port)
    # Closed in order, so all of it is on the disk.
    size = _allocated(system.state_dir("auth_checker", port) / "index")
    began = time.perf_counter()
    system.start("auth_checker", KEYLEDGER_PORT=str(port))
    restart_s = time.perf_counter() - began
    drawn = random.Random(keys).sample([key.text for key in corpus.keys], min(ASKED, keys))
    load = wrk.ask(port, [*map(validation, drawn)], '"VALID"', seconds, system.folder / "requests")
    named = f"{keys:,} keys"
    rows = [
        Row(f"cold start, {named}", round(cold_s, 2), "s", note=f"{keys / cold_s:,.0f} keys/s"),
        Row(f"restart, {named}", round(restart_s, 2), "s"),
        Row(f"disk, {named}", round(size / keys, 1), "bytes a key", note=f"{size / 1e6:,.0f} MB allocated"),
        Row(f"validate at random, {named}", load.per_s, "requests/s", load.p50_ms, load.p99_ms, f"{load.wrong} wrong"),
    ]
    for row in rows:
        print(f"  {row.name}: {row.value:,} {row.unit}", flush=True)
    return rows, load


def _written(system: System, keys: int) -> Corpus:
    plan = Plan(orgs=keys // KEYS_PER_ORG, users=4, keys=KEYS_PER_ORG, revoked=0, uses=0)
    corpus = Corpus(plan, system.ledger_keys, times.wall_clock_ms(), with_texts=True)
    prepare(system.kafka, TOPICS)
    print(f"  writing the history of {keys:,} keys …", flush=True)
    events, seconds = send(system.kafka, corpus.lifecycle())
    print(f"  {events:,} events in {seconds:.0f} s", flush=True)
    return corpus


def _allocated(folder: Path) -> int:
    """Bytes of disk that the files of a folder take: a sparse file takes less than it is long."""
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir())
