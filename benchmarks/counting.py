"""What it costs our checker to count uses: validations per second with counting and without, in turn, in one run."""

import re
import urllib.request
from collections.abc import Mapping
from functools import partial
from typing import Final

from benchmarks import wrk
from benchmarks.checker import ROUNDS, measure, written
from benchmarks.contenders import HOT, Checker, Contender, Measure, validation
from benchmarks.corpus import Corpus
from benchmarks.measure import Row
from benchmarks.processes import System, pinning, split_cores, wait_until
from benchmarks.wrk import Load

SECONDS: Final = 5.0
_WAITING: Final = re.compile(r"^keyledger_spool_records (\S+)$", re.MULTILINE)
_MODULES: Final = {"on": "", "off": "benchmarks.uncounted"}


def run(scale: float) -> list[Row]:
    """About 200 hot keys, and about all at random, in which case nearly each use is a record of its own."""
    wrk.check()
    with split_cores() as core, System(core) as system:
        print(f"  {pinning(core)}", flush=True)
        corpus = written(system, scale)
        rows = measure(_contenders(system, corpus, max(1.0, SECONDS * scale)), ROUNDS if scale >= 1 else 1)
    values = {row.name: row.value for row in rows}
    random = f"{len(corpus.keys):,} keys at random"
    return [*rows, _ratio(f"counting, {HOT} hot keys", "", values), _ratio(f"counting, {random}", "_random", values)]


def _contenders(system: System, corpus: Corpus, seconds: float) -> list[Contender]:
    requests = [validation(key.text) for key in corpus.keys]
    port = 0
    found = []
    for name, module in _MODULES.items():
        checker = Checker(system, port, module)
        port = checker.port
        rows: dict[str, Measure] = {}
        for kind, asked in (("", requests[:HOT]), ("_random", requests)):
            ask = partial(wrk.ask, requests=asked, expected='"VALID"', seconds=seconds, file=system.folder / "requests")
            rows[f"counting_{name}{kind}"] = partial(_measure, ask)
        found.append(Contender(f"counting {name}", checker.serving, rows))
    return found


def _measure(ask: Measure, port: int) -> Load:
    """What earlier uses left in the spool is sent first, so that nobody is measured while it works that off."""
    wait_until(lambda: _in_spool(port) == 0, "the spool is empty")
    load = ask(port)
    print(f"  {_in_spool(port):,.0f} records are left in the spool", flush=True)
    return load


def _in_spool(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found = _WAITING.search(answer.read().decode())
    assert found is not None
    return float(found[1])


def _ratio(name: str, kind: str, values: Mapping[str, float | None]) -> Row:
    counting, not_counting = (values[f"counting_{state}{kind}"] for state in _MODULES)
    if counting is None or not_counting is None:
        return Row(name, None, "of the rate without", note="one of them was not run")
    return Row(name, round(counting / not_counting, 3), "of the rate without")
