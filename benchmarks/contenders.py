"""The servers of the comparison, each with how it is started and what it is asked."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import wrk
from benchmarks.corpus import Corpus
from benchmarks.load import request
from benchmarks.measure import FOLDER, NotMeasured
from benchmarks.peers import Peer
from benchmarks.processes import System
from benchmarks.wrk import Load
from services.embedded.ports import free_ports

FLOOR: Final = "go_floor"
HOT: Final = 200
_GO: Final = Path(__file__).with_name("go_floor")
_PATH: Final = "/v1/validations"
Measure = Callable[[int], Load]
"""Measures the server on this port."""


@dataclass(frozen=True)
class Contender:
    """A server, and the rows that are measured while it runs."""

    name: str
    serving: Callable[[], AbstractContextManager[int]]
    rows: Mapping[str, Measure]


def contenders(system: System, corpus: Corpus, seconds: float) -> list[Contender]:
    """All of them. Everybody is asked about 200 keys of all, again and again; `…_random` about all of them."""
    keys, lines = [key.text for key in corpus.keys], _lines(system, corpus)
    ours, drf, better_auth = Checker(system), Peer(system, "drf", "gunicorn-gthread"), Peer(system, "better_auth")

    def asking(make: Callable[[str], bytes], texts: Callable[[], list[str]], expected: str = '"VALID"') -> Measure:
        # The texts of a peer are there only once it runs.
        return lambda port: wrk.ask(port, [*map(make, texts())], expected, seconds, system.folder / "requests")

    hot, random = asking(validation, lambda: keys[:HOT]), asking(validation, lambda: keys)
    constant = asking(_constant, lambda: keys[:HOT])
    in_process = partial(_in_process, system, ours, lines, seconds)
    asked_drf = asking(_drf, lambda: drf.keys[:HOT], '"valid":true')
    asked_better_auth = asking(_better_auth, lambda: better_auth.keys[:HOT], '"valid":true')
    return [
        Contender("Go", partial(_go, system, lines), {FLOOR: hot, f"{FLOOR}_random": random, "constant": constant}),
        Contender("ours", ours.serving, {"ours": hot, "ours_random": random, "ours_in_process": in_process}),
        Contender("bare WSGI", partial(_granian, system, lines, "constant"), {"constant_wsgi": hot}),
        Contender("bare Flask", partial(_granian, system, lines, "flask_view"), {"flask": hot}),
        Contender("DRF", drf.serving, {"drf": asked_drf}),
        Contender("better-auth", better_auth.serving, {"better_auth": asked_better_auth}),
    ]


class Checker:
    """Our checker, which reads the log the first time and goes on from its store in later rounds.

    Two on one port, of which one serves at a time, share the store; `module` is started in place of the service.
    """

    def __init__(self, system: System, port: int = 0, module: str = "") -> None:
        self._system, self._module, self.port = system, module, port or free_ports()[0]
        self.state_dir = system.state_dir("auth_checker", self.port)

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Serve while the block runs; gives the port."""
        self._system.start("auth_checker", self._module, KEYLEDGER_PORT=str(self.port))
        try:
            yield self.port
        finally:
            self._system.stop(self.port)


def _lines(system: System, corpus: Corpus) -> Path:
    """The keys in a file, for those who have them in a map."""
    file = system.folder / "keys"
    file.touch(mode=0o600)
    file.write_text("".join(f"{key.text} {key.key_id} {key.org_id} {key.user_id}\n" for key in corpus.keys))
    return file


def validation(text: str) -> bytes:
    """Asks our checker, and whoever speaks as it does, about a key."""
    return request("POST", _PATH, json.dumps({"key": text, "ip": "192.0.2.7"}).encode())


def _constant(text: str) -> bytes:
    return validation(text).replace(_PATH.encode(), b"/constant", 1)


def _drf(text: str) -> bytes:
    return f"GET /check HTTP/1.1\r\nHost: bench\r\nAuthorization: Api-Key {text}\r\n\r\n".encode()


def _better_auth(text: str) -> bytes:
    return request("POST", "/verify", json.dumps({"key": text}).encode())


def _in_process(system: System, ours: Checker, lines: Path, seconds: float, _: int) -> Load:
    """In a program of its own, on the core where the checker's follower goes on."""
    command = [sys.executable, "-m", "benchmarks.in_process", str(ours.state_dir), str(lines), str(seconds)]
    done = subprocess.run(system.pinned(command), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotMeasured(done.stderr)
    return Load(**json.loads(done.stdout))


@contextmanager
def _go(system: System, lines: Path) -> Iterator[int]:
    if shutil.which("go") is None:
        raise NotMeasured("Go is not on this machine")
    FOLDER.mkdir(parents=True, exist_ok=True)
    program, port = (FOLDER / "go_floor").absolute(), free_ports()[0]
    settings = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    build = ["go", "build", "-o", str(program), "."]
    done = subprocess.run(build, cwd=_GO, env=settings, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotMeasured(done.stderr)
    with system.serving("go_floor", [str(program), f"127.0.0.1:{port}", str(lines)], port, {}):
        yield port


@contextmanager
def _granian(system: System, lines: Path, factory: str) -> Iterator[int]:
    """The server that our checker uses, with as many workers and threads."""
    port = free_ports()[0]
    options = ["--interface", "wsgi", "--port", str(port), "--workers", "1", "--blocking-threads", "4", "--factory"]
    command = [sys.executable, "-m", "granian", *options, f"benchmarks.bare:{factory}"]
    with system.serving(factory, command, port, {"BENCH_KEYS": str(lines)}):
        yield port
