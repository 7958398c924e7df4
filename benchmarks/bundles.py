"""Verifying a bundle offline, beside what it costs only to hash its bytes."""

import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import msgspec

from benchmarks.corpus import Corpus, Plan
from benchmarks.measure import NotMeasured, Row
from schemas import times
from services.auditor.checkpoints import sign
from services.auditor.export import complete
from services.auditor.signing_key import SigningKey, open_signing_key
from services.auditor.verify_bundle import Head, digest_of, read_keys, verify
from services.ledger import seal

_ROUNDS = 3


def run(scale: float) -> list[Row]:
    """100,000 keys of 50 organisations: events per second, the best of three rounds each, in turn."""
    plan = Plan(orgs=50, keys=max(1, round(2000 * scale)))
    corpus = Corpus(plan, seal.new_keys(), times.wall_clock_ms())
    with tempfile.TemporaryDirectory() as temporary:
        bundle, key = Path(temporary) / "bundle", open_signing_key(Path(temporary) / "signing-key")
        events = _lay_out(bundle, corpus, key)
        public = read_keys(key.public_keys())

        def verified() -> None:
            report = verify(bundle, public, [], want_all=True)
            if report.faults or sum(report.records.values()) != events:
                raise NotMeasured(f"the bundle does not verify: {report.faults[:1]}")

        def hashed() -> None:
            for path in bundle.rglob("*.jsonl"):
                digest_of(path)

        rounds = [(_seconds(verified), _seconds(hashed)) for _ in range(_ROUNDS)]
    ours_s, floor_s = (min(column) for column in zip(*rounds, strict=True))
    note = f"{events:,} events; Python {sys.version_info.major}.{sys.version_info.minor}, one core"
    return [
        Row("verify", round(events / ours_s, 1), "events/s", note=note),
        Row("only_hash", round(events / floor_s, 1), "events/s", note="SHA-256 of each file"),
        Row("verify_to_hash", round(floor_s / ours_s, 3), "ratio"),
    ]


def _lay_out(bundle: Path, corpus: Corpus, key: SigningKey) -> int:
    """A bundle as `services.auditor.export` writes it; how many events it holds."""
    heads: dict[str, Head] = {}
    for part in ("records", "headers"):
        (bundle / part).mkdir(parents=True)
    for org, messages in groupby(corpus.lifecycle(), lambda message: message.key.decode()):
        written = list(messages)
        values = [message.value for message in written]
        (bundle / "records" / f"{org}.jsonl").write_bytes(b"".join(value + b"\n" for value in values))
        headers = b"".join(msgspec.json.encode(message.headers) + b"\n" for message in written)
        (bundle / "headers" / f"{org}.jsonl").write_bytes(headers)
        heads[org] = Head(len(values), sha256(values[-1]).hexdigest())
    complete(bundle, sign(key, heads, times.to_text(corpus.now_ms)), heads, True, key.fingerprint)
    return sum(head.revision for head in heads.values())


def _seconds(job: Callable[[], None]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began
