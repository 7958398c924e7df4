"""Readers that ask the read API all the time and remember what they were told: no later answer may know less."""

import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any, Final

import urllib3

from schemas.validation import PLATFORM

_AGAIN_AFTER_S: Final = 0.02
_OPERATOR: Final = {
    "valid": True,
    "code": "VALID",
    "org_id": PLATFORM,
    "user_id": "operator",
    "role": "admin",
    "kind": "person",
    "revision": 1,
}
_MOST_TOLD: Final = 5


class Polling:
    """`expected` is, for each organisation that is asked for, what must be known of it at least: {name: number}."""

    def __init__(self, url: str, expected: Mapping[str, Mapping[str, int]]) -> None:
        self._url, self._orgs = url, list(expected)
        self._http = urllib3.PoolManager(maxsize=16, retries=False, timeout=10.0)
        self._seen = {(org, what): number for org, known in expected.items() for what, number in known.items()}
        self._lock = Lock()
        self.latencies_s: list[float] = []
        self.errors: list[str] = []
        self.holes: list[str] = []

    @contextmanager
    def going_on(self, readers: int) -> Iterator[None]:
        """So many readers ask one question after the other; `latencies_s`, `errors` and `holes` begin anew."""
        self.latencies_s, self.errors, self.holes = [], [], []
        ended = Event()
        threads = [Thread(target=self._poll, args=(ended, seed)) for seed in range(readers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def told(self) -> str:
        """The first faults."""
        return "; ".join([*self.errors[:_MOST_TOLD], *self.holes[:_MOST_TOLD]])

    def ask(self, org: str) -> None:
        """One question of each kind."""
        for path in (f"/v1/orgs/{org}", f"/v1/orgs/{org}/keys?state=all&limit=200"):
            self._ask(org, path)

    def _poll(self, ended: Event, seed: int) -> None:
        chosen = random.Random(seed)
        while not ended.wait(_AGAIN_AFTER_S):
            self.ask(chosen.choice(self._orgs))

    def _ask(self, org: str, path: str) -> None:
        with self._lock:
            before = dict(self._seen)
        began_s = time.perf_counter()
        try:
            answer = self._http.request("GET", self._url + path, headers={"Authorization": "Bearer operator"})
            found = _found(answer) if answer.status == 200 else {}
            wrong = "" if found else f"{path}: {answer.status} {answer.data[:200]!r}"
        except (urllib3.exceptions.HTTPError, ValueError, KeyError) as error:
            found, wrong = {}, f"{path}: {error!r}"
        with self._lock:
            self.latencies_s.append(time.perf_counter() - began_s)
            self.errors += [wrong] if wrong else []
            for what, number in found.items():
                known = before.get((org, what), 0)
                if number < known:
                    self.holes.append(f"{path}: {what} is {number} after {known}")
                self._seen[org, what] = max(number, self._seen.get((org, what), 0))


def _found(answer: Any) -> dict[str, int]:
    """What of an answer may only grow."""
    document, (_, _, revision) = answer.json(), answer.headers["Keyledger-Revision"].rpartition(":")
    if "items" in document:
        return {"revision": int(revision), "keys on the first page": len(document["items"])}
    return {"revision": int(revision), "active keys": document["active_keys"], "users": document["users"]}


@contextmanager
def any_caller_is_operator() -> Iterator[str]:
    """The address of a stand-in for the auth checker: what it costs to ask who is calling is not measured here."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Operator) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Operator(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(_OPERATOR).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""
