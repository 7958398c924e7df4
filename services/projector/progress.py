"""What a person is told during a long job: a bar on a terminal, else a line every few seconds. Both tell what is left."""

import io
import threading
from collections.abc import Callable
from typing import Final, NoReturn, Self, TextIO

from tqdm import tqdm

EVERY_S: Final = 3.0
_DRAW_EVERY_S: Final = 0.2
_LINE: Final = "{desc}: {n} of {total} records, {rate_noinv_fmt}, {remaining} left"
_UNCOUNTED: Final = "{desc} …"
# Bars are drawn by our own thread, and nobody shares them with another process.
tqdm.monitor_interval = 0
tqdm.set_lock(threading.RLock())


class _Nowhere(io.TextIOBase):
    """Where a bar is drawn that only counts."""

    def write(self, text: str, /) -> int:
        return len(text)


class Progress:
    """Results at once, and what is under way. Use it in a `with`. Thread-safe.

    `write` takes one line; `terminal`, where given, has the bar, and then `write` takes nothing but results.
    """

    def __init__(self, write: Callable[[str], None], every_s: float = EVERY_S, terminal: TextIO | None = None) -> None:
        self._write, self._terminal = write, terminal
        self._every_s = every_s if terminal is None else _DRAW_EVERY_S
        self._lock = threading.Lock()
        self._bar: tqdm[NoReturn] | None = None
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
        self._put_away()

    def say(self, line: str) -> None:
        """A result."""
        with self._lock, tqdm.external_write_mode(self._terminal):
            self._write(line)

    def doing(self, text: str, total: int | None = None) -> None:
        """What is under way from here on; `total` records, where that is known."""
        self._put_away()
        with self._lock:
            self._bar = self._drawn(text, total)

    def done(self, records: int, of: int | None = None) -> None:
        """So many records of what is under way are done by now; `of` so many, where that has changed."""
        with self._lock:
            if self._bar is not None:
                self._bar.total = self._bar.total if of is None else of
                self._bar.update(records - self._bar.n)

    def _drawn(self, text: str, total: int | None) -> "tqdm[NoReturn]":
        counted = None if self._terminal else _LINE
        return tqdm(
            desc=text,
            total=total,
            file=self._terminal or _Nowhere(),
            bar_format=_UNCOUNTED if total is None else counted,
            unit=" records",
            unit_scale=True,
            miniters=1,
            dynamic_ncols=self._terminal is not None,
            leave=False,
        )

    def _put_away(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            with self._lock:
                if self._bar is not None and self._terminal is not None:
                    self._bar.refresh()
                elif self._bar is not None:
                    self._write(str(self._bar))


def terminal(stream: TextIO) -> TextIO | None:
    """The stream, where a person looks at it."""
    return stream if stream.isatty() else None
