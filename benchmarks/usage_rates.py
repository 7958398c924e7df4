"""Uses per second from Kafka into PostgreSQL: our projector beside other ways, all over the same records.

Each begins at the first record, in a database of its own; a figure is the rate between the first batch that is seen in
PostgreSQL and the last. Nothing is pinned to a core: Kafka and PostgreSQL take part of both, whoever asks them.
"""

import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from signal import SIGKILL
from typing import Final, NamedTuple

import msgspec
import psycopg

from benchmarks import usage_loops
from benchmarks.corpus import Corpus, Plan, send
from benchmarks.measure import NotMeasured, Row, not_run
from benchmarks.peers import INSTALLED, script
from benchmarks.processes import System
from benchmarks.usage_loops import LOOPS
from schemas import times
from schemas.topics import PARTITIONS, TOPICS, USAGE
from services.embedded.ports import free_ports
from services.embedded.progress import CannotStart
from services.ledger.log import Message
from services.ledger.preflight import prepare

KEYS: Final = 10_000
USES_OF_A_KEY: Final = 40
HOURS: Final = 4
HOUR_MS: Final = 3600 * 1000
ROUNDS: Final = 3
SECONDS: Final = 20.0
"""Who is slow is watched for so long, and need not come to the end."""
FLOOR: Final = "batched_floor"
_KEYS_PER_ORG: Final = 100
_FEWEST_KEYS: Final = 1000
"""With fewer there is too little to see: all of it would be in one batch."""
_LOOK_S: Final = 0.02
_STARTS_S: Final = 60.0
_QUIX_S: Final = 240.0
"""With its installation, when it runs for the first time."""
_FLAT: Final = replace(next(topic for topic in TOPICS if topic.name == USAGE), name="bench-flat-uses")
NEXT_OFFSETS: Final = f"SELECT partition, next_offset FROM read.checkpoints WHERE topic = '{USAGE}'"
_QUIX: Final = re.compile(r"quix .* events/s (\d+)")
FAILURES: Final = (NotMeasured, CannotStart, RuntimeError, OSError, subprocess.TimeoutExpired, psycopg.Error)
_ALL: Final = ((*range(PARTITIONS),),)
_HALVES: Final = ((*range(PARTITIONS // 2),), (*range(PARTITIONS // 2, PARTITIONS),))


class Look(NamedTuple):
    """What is in PostgreSQL at a moment: records, of each process that was started."""

    at_s: float
    done: tuple[int, ...]


def rate(looks: Sequence[Look]) -> float:
    """Records per second, from when all processes had shown something until one of them had no more to do, or the end.

    So the time in which a process starts is not counted, nor that in which one works alone. Raises NotMeasured.
    """
    first = next((look for look in looks if all(look.done)), looks[-1])
    last = next(
        (look for look in looks if any(at == end for at, end in zip(look.done, looks[-1].done, strict=True))), first
    )
    if last.at_s <= first.at_s or last.done == first.done:
        raise NotMeasured(f"too little was seen: {looks[-1].done} records after {len(looks)} looks")
    return (sum(last.done) - sum(first.done)) / (last.at_s - first.at_s)


class Uses:
    """The records, in the log; and a database with everything but them, of which each contender gets a copy."""

    def __init__(self, system: System, scale: float) -> None:
        self.system = system
        keys = max(_FEWEST_KEYS, int(KEYS * scale))
        plan = Plan(keys // _KEYS_PER_ORG, users=5, keys=_KEYS_PER_ORG, revoked=0, uses=USES_OF_A_KEY, burst=1)
        self.corpus = Corpus(plan, system.ledger_keys, times.wall_clock_ms())
        prepare(system.kafka, (*TOPICS, _FLAT))
        send(system.kafka, self.corpus.lifecycle())
        system.stop(system.start("projector"))  # It is ready when it has read everything.
        messages = list(self.corpus.usage(HOURS * HOUR_MS))
        self.ends = {number: sum(one.partition == number for one in messages) for number in range(PARTITIONS)}
        self.count = len(messages)
        _, seconds = send(system.kafka, messages)
        print(f"  wrote {self.count:,} records in {seconds:.0f} s", flush=True)
        send(system.kafka, map(_flat, messages))

    @property
    def what(self) -> str:
        """The records in words."""
        plan, keys = self.corpus.plan, len(self.corpus.keys)
        return f"{self.count:,} records of {keys:,} keys, {plan.uses / HOURS:.0f} of a key and hour"

    def database(self, name: str, template: str = "postgres") -> str:
        """A new one, with what others left to be written on the disk first; gives its URL."""
        with psycopg.connect(self._url("template1"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
            connection.execute("CHECKPOINT")
        return self._url(name)

    def _url(self, name: str) -> str:
        return self.system.database_url.rpartition("/")[0] + f"/{name}"


Measure = Callable[[str], float]
"""Measures once, in a database of this name."""


def run(uses: Uses, scale: float) -> list[Row]:
    """Ours and the floor in turn, the others in the first round; every row, whether it could be measured or not."""
    print(f"  {uses.what}", flush=True)
    always: dict[str, Measure] = {
        FLOOR: partial(_loop, uses, FLOOR),
        "ours": partial(_ours, uses, _ALL),
        "ours_two_processes": partial(_ours, uses, _HALVES),
    }
    loops: dict[str, Measure] = {name: partial(_loop, uses, name) for name in LOOPS}
    first = loops | {"quix_exactly_once": partial(_quix, uses)} | always
    rates: dict[str, list[float]] = defaultdict(list)
    reasons: dict[str, str] = {}
    for number in range(1, (ROUNDS if scale >= 1 else 1) + 1):
        for name, measure in (first if number == 1 else always).items():
            found = rates[name]
            try:
                found.append(measure(f"{name}_{number}"))
                print(f"  round {number}: {name} {found[-1]:,.0f}/s", flush=True)
            except FAILURES as error:
                reasons[name] = not_run(name, error)
    floor = statistics.median(rates[FLOOR]) if rates[FLOOR] else None
    return [_row(name, rates[name], reasons.get(name, ""), floor) for name in rates]


def _row(name: str, rates: Sequence[float], reason: str, floor: float | None) -> Row:
    if not rates:
        return Row(name, None, "events/s", note=reason)
    value = statistics.median(rates)
    notes = [f"{value / floor:.2f} of the floor"] if floor else []
    notes += ["rounds " + " ".join(f"{one:,.0f}" for one in rates)] if len(rates) > 1 else []
    return Row(name, round(value, 1), "events/s", note="; ".join(notes))


def _ours(uses: Uses, parts: Sequence[Sequence[int]], name: str) -> float:
    database_url = uses.database(name)
    ports = []
    try:
        for part in parts:
            partitions = f"{part[0]}-{part[-1]}"
            ports.append(uses.system.launch("projector", DATABASE_URL=database_url, KEYLEDGER_PARTITIONS=partitions))
        return rate(_watch(uses, ports, database_url, NEXT_OFFSETS, "read.key_usage", parts))
    finally:
        for port in ports:
            uses.system.stop(port)


def _loop(uses: Uses, loop: str, name: str) -> float:
    database_url = uses.database(name, "template0")
    with psycopg.connect(database_url) as connection:
        connection.execute(usage_loops.TABLES)
    port = free_ports()[0]  # It listens nowhere; the number is its name.
    command = [sys.executable, "-m", "benchmarks.usage_loops", loop, uses.system.kafka]
    uses.system.launch_other(loop, command, port, {"DATABASE_URL": database_url})
    try:
        return rate(_watch(uses, [port], database_url, usage_loops.NEXT_OFFSETS, "last_used", _ALL))
    finally:
        uses.system.stop(port)


def _watch(
    uses: Uses, ports: Sequence[int], database_url: str, query: str, table: str, parts: Sequence[Sequence[int]]
) -> list[Look]:
    """Look until all is there, or for SECONDS once something is; `query` gives the next offset by partition.

    Raises RuntimeError when a process has ended, when nothing comes, or when `table` does not hold just the uses before those offsets.
    """
    looks: list[Look] = []
    ends = tuple(sum(uses.ends[number] for number in part) for part in parts)
    deadline = time.perf_counter() + _STARTS_S
    with psycopg.connect(database_url, autocommit=True) as connection:
        while time.perf_counter() < deadline:
            found: dict[int, int] = dict(connection.execute(query).fetchall())
            looks.append(Look(time.perf_counter(), tuple(sum(found.get(n, 0) for n in part) for part in parts)))
            if looks[-1].done == ends:
                break
            if found and not any(looks[-2].done):
                deadline = looks[-1].at_s + SECONDS
            for port in ports:
                uses.system.check(port)
            time.sleep(_LOOK_S)
        if not any(looks[-1].done):
            raise RuntimeError(f"nothing came to PostgreSQL:\n{uses.system.last_words(ports[0])}")
        exact = f"SELECT (SELECT sum(uses) FROM {table}), (SELECT sum(next_offset) FROM ({query}) AS found)"
        counted = connection.execute(exact).fetchone()
    if counted is None or counted[0] != counted[1]:
        raise RuntimeError(f"the uses counted and the records read are {counted}")
    return looks


def _quix(uses: Uses, name: str) -> float:
    """Its own script measures, from its first record until all are seen in PostgreSQL."""
    folder, database_url = (INSTALLED / "quix").absolute(), uses.database(name, "template0")
    command = ["bash", str(script("quix")), str(folder), _FLAT.name, str(uses.count), database_url]
    environment = {**os.environ, "KAFKA": uses.system.kafka}
    with (uses.system.folder / "quix").open("w+") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
        try:
            process.wait(_QUIX_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, SIGKILL)  # What the script started too.
        said.seek(0)
        text = said.read()
    found = _QUIX.search(text)
    if found is None:
        raise NotMeasured(f"quix ended with {process.returncode}: {text[-1000:]}")
    return float(found[1])


def _flat(message: Message) -> Message:
    """The same use as that peer reads it."""
    used = msgspec.json.decode(message.value)["data"]
    value = msgspec.json.encode({name: used[name] for name in ("key_id", "org_id", "ip")} | {"time": used["last_at"]})
    return Message(_FLAT.name, message.partition, message.key, value)
