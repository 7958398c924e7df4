"""Key use from end to end: projection beside other ways, lag, from a validation to the screen, and what counting costs.

One run on one machine; `rounds` are the figures of which the value is the median. What cannot be run is said to be so.
"""

from collections.abc import Callable

from benchmarks import counting, usage_lag, usage_latency, usage_rates
from benchmarks.measure import Row, not_run
from benchmarks.processes import System


def run(scale: float) -> list[Row]:
    """All of it, one after the other, each on a system of its own."""
    return [
        *_or_not("ours", _projection, scale),
        *_or_not("validation_to_last_used", usage_latency.run, scale),
        *_or_not("counting", counting.run, scale),
    ]


def _projection(scale: float) -> list[Row]:
    with System() as system:
        uses = usage_rates.Uses(system, scale)
        return [*usage_rates.run(uses, scale), usage_lag.run(uses, scale)]


def _or_not(name: str, part: Callable[[float], list[Row]], scale: float) -> list[Row]:
    """What a part measured; one row of this name, without a figure, when it could not be run at all."""
    try:
        return part(scale)
    except usage_rates.FAILURES as error:
        return [Row(name, None, "", note=not_run(name, error))]
