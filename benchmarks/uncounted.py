"""Our checker, but it counts nothing: `python -m benchmarks.uncounted`. Beside the other, it shows what counting costs."""

import runpy
from unittest.mock import patch

from services.auth_checker import worker
from services.auth_checker.config import Config
from services.auth_checker.fast_lane import FastLane
from services.auth_checker.uses import Uses

_load_app = worker.load_app


class Uncounted(Uses):
    """Takes every use, and forgets it at once."""

    def record(self, *_: object) -> bool:
        """See Uses."""
        return True


def load_app(config: Config) -> FastLane:
    """In granian's worker process."""
    with patch.object(worker, "Uses", Uncounted):
        return _load_app(config)


if __name__ == "__main__":
    with patch.object(worker, "load_app", load_app):
        runpy.run_module("services.auth_checker", run_name="__main__")
