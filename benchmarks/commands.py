"""Creating keys through one and two command APIs, as signed-in people of 500 organisations do."""

import http.server
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.corpus import Corpus, Plan, write
from benchmarks.load import Next, closed_loop, request
from benchmarks.measure import Row, rate
from benchmarks.processes import System
from schemas import times, tokens

ORGS = 500
SECONDS = 10.0


def run(scale: float) -> list[Row]:
    """1 and 32 connections, to one API and to two."""
    key = Ed25519PrivateKey.generate()
    with System() as system, _jwks(key) as system.console_url:
        corpus = Corpus(Plan(orgs=ORGS, users=1, keys=0, uses=0), system.ledger_keys, times.wall_clock_ms())
        write(system.kafka, corpus)
        first = system.start("command_api", KEYLEDGER_MOST_KEYS="1000000")
        rows = [_measure([first], connections, corpus, key, scale) for connections in (1, 32)]
        ports = [first, system.start("command_api", KEYLEDGER_MOST_KEYS="1000000")]
        return [*rows, *(_measure(ports, connections, corpus, key, scale) for connections in (1, 32))]


def _measure(ports: list[int], connections: int, corpus: Corpus, key: Ed25519PrivateKey, scale: float) -> Row:
    load = closed_loop(ports, connections, _creates(corpus, key), b" 201 ", SECONDS * scale)
    if load.others:
        print(f"  answers that were no 201: {dict(load.others)}", flush=True)
    name = f"create key, {len(ports)} command API(s), {connections} connection(s), {ORGS} organisations"
    return rate(name, len(load.latencies_s), load.seconds, "commands/s", load.latencies_s)


def _creates(corpus: Corpus, key: Ed25519PrivateKey) -> Next:
    """Requests in turn over the organisations, each by its admin, each with a name of its own."""
    exp = int(time.time()) + tokens.LONGEST_LIFE_S
    people = [
        (f"/v1/orgs/{org}/keys", tokens.sign(tokens.Claims(users[0], org, corpus.heads[org], exp), key, "bench"))
        for org, users in corpus.users.items()
    ]
    begun, numbers = time.time_ns(), itertools.count()

    def following(_: int) -> bytes:
        number = next(numbers)
        path, token = people[number % len(people)]
        return request("POST", path, b'{"name":"bench %d %d"}' % (begun, number), token)

    return following


@contextmanager
def _jwks(key: Ed25519PrivateKey) -> Iterator[str]:
    """Stands in for the console, of which a command API asks its public keys once."""
    document = json.dumps({"keys": [tokens.jwk_of(key.public_key(), "bench")]}).encode()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
