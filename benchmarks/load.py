"""A load generator that is cheaper than any server: raw sockets, keep-alive, one thread, no parsing but what is needed."""

import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Next = Callable[[int], bytes]
"""The whole HTTP request that the connection of this number sends next."""


@dataclass
class Load:
    """What came of it: latencies in seconds of the answers that were as expected, by what they were otherwise."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def request(method: str, path: str, body: bytes, token: str = "") -> bytes:
    """An HTTP/1.1 request with a JSON body."""
    credential = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{credential}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Connection:
    def __init__(self, number: int, port: int) -> None:
        self.number = number
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.sent_at = 0.0

    def send(self, request: bytes) -> None:
        self.received, self.sent_at = b"", time.perf_counter()
        self.socket.sendall(request)

    def answer(self) -> bytes | None:
        """The whole answer, or None while some of it is missing."""
        some = self.socket.recv(65536)
        if not some:
            raise ConnectionError("the server closed the connection")
        self.received += some
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        at = self.received.lower().find(b"content-length:")
        length = int(self.received[at + 15 : self.received.find(b"\r", at)]) if 0 <= at < end else 0
        return self.received if len(self.received) >= end + 4 + length else None


def closed_loop(ports: Sequence[int], connections: int, next_request: Next, expected: bytes, seconds: float) -> Load:
    """Each connection sends, waits for the answer and sends again, for so long after a tenth of it as warm-up.

    `expected` must be in an answer, else its status is counted in `others`. Connections are spread over `ports`.
    """
    load, chosen = Load(), selectors.DefaultSelector()
    begin = time.perf_counter() + seconds / 10
    finish = begin + seconds
    opened = [_Connection(number, ports[number % len(ports)]) for number in range(connections)]
    for connection in opened:
        chosen.register(connection.socket, selectors.EVENT_READ, connection)
        connection.send(next_request(connection.number))
    while (now := time.perf_counter()) < finish:
        for key, _ in chosen.select(timeout=1.0):
            connection = key.data
            answer = connection.answer()
            if answer is None:
                continue
            now = time.perf_counter()
            if expected not in answer:
                load.others[answer[9:12].decode()] += 1
            elif begin <= now < finish:
                load.latencies_s.append(now - connection.sent_at)
            connection.send(next_request(connection.number))
    for connection in opened:
        connection.socket.close()
    chosen.close()
    load.seconds = seconds
    return load
