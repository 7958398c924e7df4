"""One Kafka broker on this machine, broker and controller in one process, its data in a folder of ours."""

import base64
import signal
import socket
import struct
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from services.embedded.kafka_jars import IMAGE, VERSION, jars
from services.embedded.ports import holder, is_taken
from services.embedded.progress import CannotStart, dying_with_us, end, say, wait_until

_START_S = 120.0
_STOP_S = 20.0
# ApiVersions, version 0, correlation 1, no client id: answered only once the broker takes requests.
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_CONTAINER_DATA = "/var/lib/kafka/data"
_LOGGING = [
    f"-Dorg.slf4j.simpleLogger.{setting}"
    for setting in ("defaultLogLevel=warn", "showDateTime=true", "dateTimeFormat=HH:mm:ss.SSS")
]


class Broker:
    """A broker that keeps its data in `folder` and listens on 127.0.0.1:`port`; the port after it is the controller's.

    Start, stop or kill it as often as you like: data and addresses stay the same. It stops when the thread that
    started it ends.
    """

    def __init__(self, folder: Path, port: int, more: Mapping[str, str] | None = None) -> None:
        """`more` are further settings of the broker, by Kafka's own names."""
        self.folder = folder.absolute()
        self.port = port
        self._more = dict(more or {})
        self.bootstrap = f"127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._container: str | None = None

    @property
    def pid(self) -> int:
        """The process id of the broker (with Docker: of its client); RuntimeError when it was never started."""
        return self._running().pid

    def start(self) -> None:
        """Starts the broker and returns when it answers requests; CannotStart says why it does not."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Starts the process and returns at once, so that other things can start meanwhile."""
        for port in (self.port, self.port + 1):
            if is_taken(port):
                raise CannotStart(f"Kafka: port {port} is in use by {holder(port)}")
        libs = jars()
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        command = self._docker_command(data) if libs is None else self._java_command(libs, data)
        say(f"Kafka {VERSION}: starting on {self.bootstrap}")
        with (self.folder / "broker.log").open("ab") as log:
            # Its own session: a Ctrl-C in the terminal is for the launcher, which stops the services first.
            self._process = subprocess.Popen(dying_with_us(command), stdout=log, stderr=log, start_new_session=True)

    def wait_ready(self) -> None:
        """Returns when the broker answers; CannotStart with its last lines when it ended or took too long."""
        wait_until(self._answers, "Kafka: starting", _START_S, lambda: f"(log: {self.folder / 'broker.log'})")

    def check(self) -> None:
        """CannotStart with its last lines when the process has ended."""
        if self._running().poll() is not None:
            tail = (self.folder / "broker.log").read_text(errors="replace")[-2000:]
            raise CannotStart(f"Kafka ended with exit code {self._running().returncode}; its last lines:\n{tail}")

    def stop(self) -> None:
        """Stops in order, or kills after 20 s."""
        end(self._running(), "Kafka", signal.SIGTERM, _STOP_S)

    def kill(self) -> None:
        """Ends it as a crash would: SIGKILL."""
        if self._container:
            subprocess.run(["docker", "kill", self._container], check=True, capture_output=True)
        self._running().kill()
        self._running().wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this broker was never started")
        return self._process

    def _answers(self) -> bool:
        self.check()
        return answers(self.port)

    def _java_command(self, libs: Path, data: Path) -> list[str]:
        settings = self.folder / "server.properties"
        lines = self._settings("127.0.0.1", str(data))
        settings.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        java = ["java", "-cp", f"{libs}/*"]
        if not (data / "meta.properties").exists():
            _run([*java, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(settings)])
        return [*java, "-Xmx512m", "-XX:+UseSerialGC", *_LOGGING, "kafka.Kafka", str(settings)]

    def _docker_command(self, data: Path) -> list[str]:
        data.chmod(0o777)  # The image runs as a user of its own.
        self._container = f"keyledger-kafka-{self.port}"
        settings = self._settings("0.0.0.0", _CONTAINER_DATA)  # noqa: S104 -- inside the container; the port is published on loopback only
        given = [f"--env=KAFKA_{name.upper().replace('.', '_')}={value}" for name, value in settings.items()]
        published = f"--publish=127.0.0.1:{self.port}:{self.port}"
        volume = f"--volume={data}:{_CONTAINER_DATA}"
        return ["docker", "run", "--rm", f"--name={self._container}", published, volume, *given, IMAGE]

    def _settings(self, host: str, data: str) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.port + 1}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{host}:{self.port},CONTROLLER://127.0.0.1:{self.port + 1}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": data,
            # A topic with the wrong retention must never come to be by a typing error.
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            # After a crash the controller waits this long before it believes that the old broker is gone (else 9 s).
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            **self._more,
        }


def answers(port: int) -> bool:
    """Whether a broker on 127.0.0.1:`port` takes requests now."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(_API_VERSIONS)
            return bool(connection.recv(4))
    except OSError:
        return False


@contextmanager
def running_kafka(folder: Path, port: int) -> Iterator[str]:
    """A broker for the length of a `with`; gives its bootstrap address."""
    broker = Broker(folder, port)
    broker.start()
    try:
        yield broker.bootstrap
    finally:
        broker.stop()


def _cluster_id() -> str:
    # The prefix keeps it from beginning with "-", which the format tool would take for an option.
    return "kl" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[2:22]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise CannotStart(f"Kafka's data folder could not be formatted:\n{said}")
