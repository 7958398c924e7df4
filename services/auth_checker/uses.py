"""Uses on their way to the spool: counted in windows in memory, moved to the spool every 250 ms by a thread of its own.

What is in the spool is on this machine's disk and outlives every process; the publisher sends it. A process that is
killed loses the windows since its last move. While the spool fills, because the broker is away or slower than the
uses, windows are held longer, so that one takes the place of many: the table `PACES` says how long. When it is full
they stay in memory, get wider, and only then an answer is refused. An orderly stop moves what waits.
"""

import time
from threading import Event, Lock, Thread
from typing import Final, NamedTuple

import structlog

from schemas.validation import Code
from services.auth_checker.spool import Spool
from services.auth_checker.windows import Used, Width, Window, Windows

EVERY_S: Final = 0.25
MOST_WINDOWS: Final = 100_000
_AT_ONCE: Final = 250
_AGAIN_S: Final = 0.05
_log = structlog.get_logger("keyledger.auth_checker")


class Pace(NamedTuple):
    """For how long windows are held, and how wide they are, while less than this part of the spool is full."""

    below: float
    hold_s: float
    width: Width


PACES: Final = (
    Pace(0.25, EVERY_S, Width.SECOND),
    Pace(0.50, 1.0, Width.SECOND),
    Pace(0.75, 5.0, Width.HOUR),
    Pace(float("inf"), 30.0, Width.HOUR),
)


class Uses:
    """Counts uses and answers of one process. Thread-safe."""

    def __init__(self, spool: Spool, most_windows: int = MOST_WINDOWS) -> None:
        self._spool, self._most = spool, most_windows
        # Held for one use at a time, and for the swap of all windows; never while anything is encoded or written.
        self._lock = Lock()
        self._windows = Windows(most_windows)
        self._in_hand: list[Window] = []
        self._held_since_s = time.monotonic()
        self._pace = PACES[0]
        self._stopping = Event()
        self._give_up_s = float("inf")
        self._codes = dict.fromkeys(Code, 0)
        self._uses = 0
        self._thread = Thread(target=self._run, name="uses", daemon=True)

    def start(self) -> None:
        """Begin to move windows to the spool."""
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """Move what waits, for at most so many seconds; what finds no room then is lost, and logged."""
        self._give_up_s = time.monotonic() + within_s
        self._stopping.set()
        self._thread.join(within_s + 1)
        if lost := self.counts()[1]["waiting"]:
            _log.error("uses_lost", windows=lost)

    def record(self, code: Code, facts: Used | None, ip: str | None, user_agent: str | None, now_ms: int) -> bool:
        """An answer: counted, and where the key's whole text matched, counted as a use of that key.

        False when no further window can be kept: the answer must then not be given.
        """
        with self._lock:
            if facts is not None:
                if not self._windows.add(facts, code, ip, user_agent, now_ms):
                    return False
                self._uses += 1
            self._codes[code] += 1
        return True

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Answers by code; and `uses` counted since the start, and windows `waiting` in memory."""
        with self._lock:
            codes = {code.value: count for code, count in self._codes.items() if count}
            return codes, {"uses": self._uses, "waiting": len(self._windows) + len(self._in_hand)}

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            held_s = time.monotonic() - self._held_since_s
            # Half of them: the other half is room for what comes while these are moved.
            if held_s >= self._pace.hold_s - EVERY_S / 2 or 2 * len(self._windows) >= self._most:
                self._moved()
        while not self._moved() and time.monotonic() < self._give_up_s:
            time.sleep(_AGAIN_S)

    def _moved(self) -> bool:
        """Move all windows to the spool; False when that could not be done and they are kept."""
        try:
            fill = self._spool.figures()["fill"]
            self._pace = next(pace for pace in PACES if fill < pace.below)
            if fill < 1 and not self._in_hand:
                with self._lock:
                    self._in_hand, self._held_since_s = self._windows.take(self._pace.width), time.monotonic()
            while self._in_hand:
                # A few at once, so that neither the requests of this process nor the other processes wait for long.
                if not self._spool.put(self._in_hand[:_AT_ONCE]):
                    return False
                with self._lock:
                    del self._in_hand[:_AT_ONCE]
        except Exception as error:  # noqa: BLE001 - a thread that ended would keep every use in memory for ever.
            _log.error("spool_failed", exc_info=error)
            return False
        return not self._windows
