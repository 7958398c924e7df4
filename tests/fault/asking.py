"""Questions to one checker at a steady pace, whatever happens to it; see `hunter`.

A checker that stands still is asked on, over ever more connections, so that when it goes on there are questions
waiting for it that began at many moments. Nobody gives up on an answer: it counts whenever it comes.
"""

import json
import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import NamedTuple

NO_ANSWER = "no answer"
_FEW, _MOST = 8, 160
"""So many connections are opened at once when they are needed, and so many in all, one every `_OPEN_EVERY_S`."""
_OPEN_EVERY_S = 0.1
_BEHIND_S = 1.0
_CODE = re.compile(rb'"code":\s*"([A-Za-z_]+)"')
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Prey(NamedTuple):
    """A key that is asked about: `text` is what its user holds."""

    key_id: str
    text: str


class Said(NamedTuple):
    """One validation: when its question was sent and its answer received (CLOCK_MONOTONIC, seconds), and its code."""

    checker: str
    key_id: str
    began: float
    ended: float
    code: str


@dataclass
class _Line:
    """A connection, and the question that is under way on it."""

    socket: socket.socket
    prey: Prey | None = None
    began: float = 0.0
    received: bytes = b""


class Asker:
    """A thread that asks `checker` on `port` about what `choose` gives, `per_s` times a second.

    `heard` gets every answer; questions whose connection ended without one are heard as NO_ANSWER.
    """

    def __init__(
        self, checker: str, port: int, per_s: float, choose: Callable[[], Prey], heard: Callable[[Said], None]
    ) -> None:
        self.checker, self._port, self._every_s = checker, port, 1 / per_s
        self._choose, self._heard = choose, heard
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Line] = []
        self._open = 0
        self._opened_at = float("-inf")
        self._stopping = Event()
        self._thread = Thread(target=self._run, name=f"asks {checker}", daemon=True)
        self.codes: Counter[str] = Counter()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; what is not answered by now stays unanswered."""
        self._stopping.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            self._drop(key.data)
        self._selector.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            if time.monotonic() >= due:
                self._ask()
                due = max(due + self._every_s, time.monotonic() - _BEHIND_S)
            for ready, _ in self._selector.select(max(0.0, due - time.monotonic())):
                self._receive(ready.data)

    def _ask(self) -> None:
        line = self._idle.pop() if self._idle else self._another()
        if line is None:
            return
        line.prey, line.received = self._choose(), b""
        body = json.dumps({"key": line.prey.text}).encode()
        line.began = time.monotonic()
        try:
            line.socket.sendall(
                b"POST /v1/validations HTTP/1.1\r\nHost: checker\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
        except OSError:
            self._end(line, NO_ANSWER)
            self._drop(line)

    def _another(self) -> _Line | None:
        now = time.monotonic()
        if self._open >= _MOST or (self._open >= _FEW and now - self._opened_at < _OPEN_EVERY_S):
            return None
        self._opened_at = now
        try:
            made = socket.create_connection(("127.0.0.1", self._port), timeout=0.2)
        except OSError:
            self.codes["no connection"] += 1
            return None
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = _Line(made)
        self._open += 1
        self._selector.register(made, selectors.EVENT_READ, line)
        return line

    def _receive(self, line: _Line) -> None:
        try:
            more = line.socket.recv(65536)
        except OSError:
            more = b""
        if not more:
            self._end(line, NO_ANSWER)
            self._drop(line)
            return
        line.received += more
        head, found, body = line.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if found and length is not None and len(body) >= int(length[1]):
            code = _CODE.search(body)
            self._end(line, "no code" if code is None else code[1].decode())
            self._idle.append(line)

    def _end(self, line: _Line, code: str) -> None:
        if line.prey is not None:
            self.codes[code] += 1
            self._heard(Said(self.checker, line.prey.key_id, line.began, time.monotonic(), code))
        line.prey = None

    def _drop(self, line: _Line) -> None:
        if line in self._idle:
            self._idle.remove(line)
        self._selector.unregister(line.socket)
        line.socket.close()
        self._open -= 1
