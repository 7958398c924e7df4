"""Keeps the follower process alive: starts it, and starts another one when it ended by itself or was killed."""

import multiprocessing
import time
from threading import Event, Thread
from typing import Final

import structlog

from services.auth_checker import follower
from services.auth_checker.config import Config

_BACKOFF_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0)
_LIVED_S: Final = 30.0
"""One that lived so long did not die of what the one before it died of."""
_STOP_S: Final = 12.0
_log = structlog.get_logger("keyledger.auth_checker")


class Supervisor:
    """One follower process at a time, from `start` to `stop`. Needs multiprocessing's start method to be spawn."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the follower in order, and wait for it; kill it when it takes too long."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        starts = in_a_row = 0
        while not self._stopping.is_set():
            starts += 1
            began_s = time.monotonic()
            process = multiprocessing.Process(target=follower.run, args=(self._config, starts), name="follower")
            process.start()
            while process.is_alive() and not self._stopping.is_set():
                process.join(0.1)
            if self._stopping.is_set():
                _end(process)
                return
            in_a_row = 1 if time.monotonic() - began_s > _LIVED_S else in_a_row + 1
            wait_s = _BACKOFF_S[min(in_a_row, len(_BACKOFF_S)) - 1]
            _log.error("follower_ended", exit_code=process.exitcode, in_a_row=in_a_row, again_in_s=wait_s)
            self._stopping.wait(wait_s)


def _end(process: multiprocessing.Process) -> None:
    process.terminate()
    process.join(_STOP_S)
    if process.is_alive():
        _log.error("follower_killed", after_s=_STOP_S)
        process.kill()
        process.join()
