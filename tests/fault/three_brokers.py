"""A cluster of three brokers, of which one can be parted from the controller and from the others, not from its clients.

Such a deposed leader is the worst a log can do to its readers: for a while it goes on answering, from the past.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from kafka.admin import KafkaAdminClient

from services.embedded.kafka import Broker
from services.embedded.kafka_jars import jars
from services.embedded.ports import free_ports
from tests.end_to_end.system import System
from tests.fault.cable import Cable

BROKERS: Final = 3
_CONTROLLER: Final = 100
_CLUSTER_ID: Final = "klThreeBrokersInATest0"
_PROTOCOLS: Final = "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"


class Cluster:
    """One controller, three brokers; each broker reaches the controller, and is reached by the others, by cables."""

    def __init__(self, folder: Path) -> None:
        ports = iter(free_ports(2 + 5 * BROKERS))
        control, _ = next(ports), next(ports)
        self._controller = Broker(folder / "controller", control, _controller_settings(control))
        self.brokers: dict[int, Broker] = {}
        self._cables: dict[int, tuple[Cable, Cable]] = {}
        for number in range(1, BROKERS + 1):
            clients, far, near, to_controller, _ = (next(ports) for _ in range(5))
            settings = _broker_settings(number, clients, far, near, to_controller)
            self.brokers[number] = Broker(folder / f"broker-{number}", clients, settings)
            self._cables[number] = Cable(near, far), Cable(to_controller, control)

    @property
    def bootstrap(self) -> str:
        """The addresses for clients."""
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    def start(self) -> None:
        """Start all, and wait until they answer."""
        for cables in self._cables.values():
            for cable in cables:
                cable.start()
        for node in (self._controller, *self.brokers.values()):
            _format(node)
            node.launch()
        for node in (self._controller, *self.brokers.values()):
            node.wait_ready()

    def stop(self) -> None:
        """Stop the brokers, the controller last; none waits for another one to take over."""
        for node in (*self.brokers.values(), self._controller):
            node.kill()
        for cables in self._cables.values():
            for cable in cables:
                cable.stop()

    def launch(self) -> None:
        """As a broker has it; all is done by `wait_ready`."""

    def wait_ready(self) -> None:
        """As a broker has it."""
        self.start()

    def leader_of(self, topic: str, partition: int, besides: int | None = None) -> int:
        """Who leads this partition, by what the first broker other than `besides` says."""
        asked = next(broker for number, broker in self.brokers.items() if number != besides)
        admin = KafkaAdminClient(bootstrap_servers=asked.bootstrap)
        try:
            [described] = admin.describe_topics([topic])
        finally:
            admin.close()
        return next(int(one["leader_id"]) for one in described["partitions"] if one["partition_index"] == partition)

    def cut(self, number: int) -> None:
        """Part a broker from the controller and its followers."""
        for cable in self._cables[number]:
            cable.cut()

    def mend(self, number: int) -> None:
        """Put it back."""
        for cable in self._cables[number]:
            cable.mend()


@contextmanager
def clustered(var: Path, checkers: int, command_apis: int) -> Iterator[tuple[System, Cluster]]:
    """A running system whose log is a cluster, for the length of a `with`."""
    system, cluster = System(var, checkers, command_apis), Cluster(var / "cluster")
    system.broker = cast("Broker", cluster)  # It can do all that a System asks of its broker.
    try:
        system.start()
        yield system, cluster
    finally:
        system.stop()


def _controller_settings(port: int) -> dict[str, str]:
    address = f"CONTROLLER://127.0.0.1:{port}"
    return {
        "process.roles": "controller",
        "node.id": str(_CONTROLLER),
        "controller.quorum.voters": f"{_CONTROLLER}@127.0.0.1:{port}",
        "listeners": address,
        "advertised.listeners": address,
        "listener.security.protocol.map": _PROTOCOLS,
    }


def _broker_settings(number: int, clients: int, far: int, near: int, to_controller: int) -> dict[str, str]:
    return {
        "process.roles": "broker",
        "node.id": str(number),
        "controller.quorum.voters": f"{_CONTROLLER}@127.0.0.1:{to_controller}",
        "listeners": f"CLIENT://127.0.0.1:{clients},INTERNAL://127.0.0.1:{far}",
        "advertised.listeners": f"CLIENT://127.0.0.1:{clients},INTERNAL://127.0.0.1:{near}",
        "inter.broker.listener.name": "INTERNAL",
        "listener.security.protocol.map": _PROTOCOLS,
        "offsets.topic.replication.factor": "3",
    }


def _format(node: Broker) -> None:
    """Give the node's folder the id of this cluster, before it would take one of its own."""
    libs = jars()
    assert libs is not None, "three brokers need Java"
    data = node.folder / "data"
    data.mkdir(parents=True)
    settings = node.folder / "format.properties"
    lines = node._settings("127.0.0.1", str(data))
    settings.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    command = ["java", "-cp", f"{libs}/*", "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(settings)]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
