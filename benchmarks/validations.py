"""Asking the auth checker about 100,000 keys over 32 connections."""

import json
import random

from benchmarks.corpus import Corpus, Plan, write
from benchmarks.load import closed_loop, request
from benchmarks.measure import Row, rate
from benchmarks.processes import System
from schemas import times

KEYS_PER_ORG = 200
ORGS = 500
SECONDS = 10.0


def run(scale: float) -> list[Row]:
    """One connection, then 32; every answer must be VALID."""
    with System() as system:
        plan = Plan(orgs=max(1, int(ORGS * scale)), users=4, keys=KEYS_PER_ORG, revoked=0, uses=0)
        corpus = Corpus(plan, system.ledger_keys, times.wall_clock_ms(), with_texts=True)
        write(system.kafka, corpus)
        port = system.start("auth_checker")
        asked = [
            request("POST", "/v1/validations", json.dumps({"key": key.text, "ip": "192.0.2.7"}).encode())
            for key in corpus.keys
        ]
        return [_measure(port, connections, asked, SECONDS * scale) for connections in (1, 32)]


def _measure(port: int, connections: int, asked: list[bytes], seconds: float) -> Row:
    chance = random.Random(connections)
    load = closed_loop([port], connections, lambda _: asked[int(chance.random() * len(asked))], b'"VALID"', seconds)
    if load.others:
        print(f"  answers that were not VALID: {dict(load.others)}", flush=True)
    name = f"validate, {connections} connection(s), {len(asked):,} keys"
    return rate(name, len(load.latencies_s), load.seconds, "validations/s", load.latencies_s)
