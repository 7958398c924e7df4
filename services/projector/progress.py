"""What a person at a terminal is told during a long job."""

import threading
from collections.abc import Callable
from typing import Final, Self

EVERY_S: Final = 3.0


class Progress:
    """Results at once, and every few seconds what is under way. Use it in a `with`; `write` takes one line."""

    def __init__(self, write: Callable[[str], None], every_s: float = EVERY_S) -> None:
        self._write, self._every_s = write, every_s
        self._doing = "beginning"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        """Begin telling."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop telling."""
        self._stopping.set()
        self._thread.join()

    def say(self, line: str) -> None:
        """A result."""
        self._write(line)

    def doing(self, text: str) -> None:
        """What is under way from here on."""
        self._doing = text

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._write(f"{self._doing} …")
