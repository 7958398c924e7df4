"""A cable of ours between one client of Kafka and the broker, which can be cut without either side being told."""

import contextlib
import socket
from threading import Event, Thread

from services.embedded.ports import is_taken
from tests.waiting import eventually


def ports(kafka_port: int) -> tuple[int, int]:
    """The broker's second listener, and our end of the cable, in the plan of ports of a system."""
    return kafka_port + 2, kafka_port + 3


def listeners(kafka_port: int) -> dict[str, str]:
    """Settings of a broker: whoever came through the cable is told to come through it again."""
    far, near = ports(kafka_port)
    plain, cabled = f"PLAINTEXT://127.0.0.1:{kafka_port}", "CABLED://127.0.0.1"
    return {
        "listeners": f"{plain},{cabled}:{far},CONTROLLER://127.0.0.1:{kafka_port + 1}",
        "advertised.listeners": f"{plain},{cabled}:{near}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CABLED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
    }


class Cable:
    """Passes bytes from 127.0.0.1:`near` to 127.0.0.1:`far` and back.

    While it is cut nothing passes and no connection ends; what was under way arrives when it is mended, as with TCP.
    """

    def __init__(self, near: int, far: int) -> None:
        self.bootstrap, self._near, self._far = f"127.0.0.1:{near}", near, far
        self._whole, self._stopped = Event(), Event()
        self._whole.set()

    def start(self) -> None:
        """Begin to listen."""
        eventually(lambda: not is_taken(self._near), 5, "the port of the cable to be free")
        self._listener = socket.create_server(("127.0.0.1", self._near))
        Thread(target=self._accept, name="cable", daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        self._stopped.set()
        self._whole.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self) -> None:
        """Nothing passes from now on."""
        self._whole.clear()

    def mend(self) -> None:
        """All passes again."""
        self._whole.set()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        self._whole.wait()
        try:
            broker = socket.create_connection(("127.0.0.1", self._far), timeout=5)
        except OSError:
            client.close()  # The broker is away: its clients see what they would see without us.
            return
        broker.settimeout(None)
        for one in (client, broker):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Thread(target=self._pass, args=(client, broker), daemon=True).start()
        self._pass(broker, client)

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                some = source.recv(65536)
                self._whole.wait()
                if not some:
                    break
                sink.sendall(some)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
