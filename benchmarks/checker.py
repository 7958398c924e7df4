"""Validations by our checker beside other servers: one run, one machine, as many keys each, one client.

Every server has one core with all its processes, ours with its follower and publisher; the client, Kafka and PostgreSQL
have another. One server runs at a time, all of them in each round; a figure is the median of its rounds.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import psycopg

from benchmarks import wrk
from benchmarks.contenders import FLOOR, Contender, Measure, contenders
from benchmarks.corpus import Corpus, Plan, write
from benchmarks.measure import NotMeasured, Row, not_run
from benchmarks.processes import System, pinning, split_cores
from benchmarks.wrk import Load
from schemas import times
from services.embedded.progress import CannotStart

ORGS: Final = 500
KEYS_PER_ORG: Final = 200
ROUNDS: Final = 3
SECONDS: Final = 4.0
_FAILURES: Final = (NotMeasured, CannotStart, RuntimeError, OSError, psycopg.Error)


def run(scale: float) -> list[Row]:
    """Every row, whether it could be measured or not: None and the reason where it could not."""
    wrk.check()
    with split_cores() as core, System(core) as system:
        print(f"  {pinning(core)}", flush=True)
        corpus = written(system, scale)
        return measure(contenders(system, corpus, max(1.0, SECONDS * scale)), ROUNDS if scale >= 1 else 1)


def written(system: System, scale: float) -> Corpus:
    """100,000 keys with their texts, at scale 1, in the log."""
    plan = Plan(orgs=max(1, int(ORGS * scale)), users=4, keys=KEYS_PER_ORG, revoked=0, uses=0)
    corpus = Corpus(plan, system.ledger_keys, times.wall_clock_ms(), with_texts=True)
    write(system.kafka, corpus)
    return corpus


def measure(contenders: Sequence[Contender], rounds: int) -> list[Row]:
    """All rounds; what failed once is not tried again."""
    loads: dict[str, list[Load]] = defaultdict(list)
    reasons: dict[str, str] = {}
    for number in range(1, rounds + 1):
        for contender in contenders:
            left = {name: each for name, each in contender.rows.items() if name not in reasons}
            for name, load in _measured(contender, left, reasons):
                print(f"  round {number} of {rounds}: {name} {load.per_s:,.0f}/s", flush=True)
                loads[name].append(load)
    floors = {name: _median(loads[name]) for name in (FLOOR, f"{FLOOR}_random") if loads[name]}
    return [_row(name, loads[name], reasons.get(name, ""), floors) for each in contenders for name in each.rows]


def _measured(contender: Contender, rows: Mapping[str, Measure], reasons: dict[str, str]) -> Iterator[tuple[str, Load]]:
    if not rows:
        return
    try:
        with contender.serving() as port:
            for name, each in rows.items():
                try:
                    yield name, each(port)
                except NotMeasured as error:
                    reasons[name] = not_run(name, error)
    except _FAILURES as error:
        reasons |= dict.fromkeys(rows, not_run(contender.name, error))


def _row(name: str, loads: Sequence[Load], reason: str, floors: Mapping[str, float]) -> Row:
    if not loads:
        return Row(name, None, "requests/s", note=reason)
    floor = floors.get(f"{FLOOR}_random" if name.endswith("_random") else FLOOR)
    notes = [f"{_median(loads) / floor:.3f} of the Go floor"] if floor else []
    notes.append("rounds " + " ".join(f"{load.per_s:,.0f}" for load in loads))
    notes.append(f"client {max(load.client_busy for load in loads):.0%} busy")
    wrong = sum(load.wrong for load in loads)
    notes += [f"{wrong} answers not as expected"] if wrong else []
    p50_ms, p99_ms = (statistics.median(getattr(load, name) for load in loads) for name in ("p50_ms", "p99_ms"))
    return Row(name, _median(loads), "requests/s", p50_ms, p99_ms, "; ".join(notes))


def _median(loads: Sequence[Load]) -> float:
    return statistics.median(load.per_s for load in loads)
