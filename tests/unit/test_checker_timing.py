"""How long the answer took tells nobody whether a key id exists."""

import json
import math
import random
import statistics
import time
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from services.auth_checker.fast_lane import FastLane
from tests.unit.checker_site import lanes
from tests.unit.checker_story import BEGINNING, Asking, asking, created, key_of

__all__ = ["asking"]  # A fixture, asked for by its name.
PAIRS = 20_000
KEYS = 500
_ALWAYS = {
    "REQUEST_METHOD": "POST",
    "PATH_INFO": "/v1/validations",
    "QUERY_STRING": "",
    "CONTENT_TYPE": "application/json",
    "REMOTE_ADDR": "127.0.0.1",
}


def took_ns(app: FastLane, body: bytes) -> int:
    """How long one answer takes."""
    environ: dict[str, Any] = {**_ALWAYS, "CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}
    began = time.perf_counter_ns()
    [answer] = app(environ, lambda *_: None)
    took = time.perf_counter_ns() - began
    assert answer == b'{"valid":false,"code":"NOT_FOUND"}'
    return took


def test_an_unknown_id_and_a_wrong_secret_take_the_same_time(asking: Asking, tmp_path) -> None:
    asking.index.tell("org", *BEGINNING, *(created(number, name=str(number)) for number in range(1, KEYS + 1)))
    app, _ = lanes(asking, tmp_path)
    rng = random.Random(5)
    # Every id is used about as often for one as for the other kind of question, so that no cache tells them apart.
    wrong = [json.dumps({"key": key_of(number, rng.randbytes(32))}).encode() for number in range(1, KEYS + 1)]
    unknown = [json.dumps({"key": key_of(10_000 + number, rng.randbytes(32))}).encode() for number in range(KEYS)]
    times: dict[str, list[int]] = {"wrong": [], "unknown": []}
    for _ in range(PAIRS):
        pair = [("wrong", rng.choice(wrong)), ("unknown", rng.choice(unknown))]
        rng.shuffle(pair)
        for kind, body in pair:
            times[kind].append(took_ns(app, body))
    shorter, difference, welch = compared(times["wrong"], times["unknown"])
    print(
        f"{PAIRS} pairs: P(wrong secret < unknown id) = {shorter:.3f}, difference of medians {difference:+.2%}, "
        f"Welch's t of the middle 90 % = {welch:+.1f}; medians "
        f"{statistics.median(times['wrong']) / 1000:.1f} and {statistics.median(times['unknown']) / 1000:.1f} us"
    )
    assert abs(difference) < 0.05
    assert 0.35 < shorter < 0.65


def compared(first: Sequence[int], second: Sequence[int]) -> tuple[float, float, float]:
    """P(first < second), (median of second - median of first) / median, and Welch's t of the middle 90 %."""
    ranked = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    seen = smaller = 0
    for _, kind in ranked:
        seen += kind == 0
        smaller += seen * (kind == 1)
    medians = statistics.median(first), statistics.median(second)
    middles = [sorted(values)[len(values) // 20 : -len(values) // 20] for values in (first, second)]
    means = [statistics.fmean(values) for values in middles]
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in middles))
    return smaller / (len(first) * len(second)), medians[1] / medians[0] - 1, (means[1] - means[0]) / error


def test_the_comparison_finds_a_difference_where_there_is_one() -> None:
    rng = random.Random(1)
    times = [round(rng.gauss(10_000, 500)) for _ in range(2000)]
    slower = [round(value * 1.1) for value in times]
    shorter, difference, welch = compared(times, slower)
    assert (shorter > 0.9, round(difference, 2), welch > 50) == (True, 0.1, True)
    shorter, difference, welch = compared(times, rng.sample(times, len(times)))
    assert (0.45 < shorter < 0.55, difference, round(welch, 6)) == (True, 0, 0)
