"""`make run`: Kafka and PostgreSQL unless given, then the services, until Ctrl-C or until one of them ends."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import FrameType

import urllib3

from services.embedded.config import Config
from services.embedded.kafka import Broker
from services.embedded.ports import holder, is_taken
from services.embedded.postgres import Server
from services.embedded.processes import addresses, environment, first_start_file, programs
from services.embedded.progress import CannotStart, say, wait_until
from services.embedded.supervisor import Supervisor
from services.embedded.welcome import welcome

_READY_S = 120.0
_PEOPLE_S = 3.0  # The console is ready only once it wrote them; so this is for the file system.
_HTTP = urllib3.PoolManager(timeout=urllib3.Timeout(2.0), retries=False)

Command = Callable[[str], list[str]]
Check = Callable[[], None]


def service_command(service: str) -> list[str]:
    """How a service is started."""
    return [sys.executable, "-m", f"services.{service}"]


def run(config: Config, stack: ExitStack, command: Command) -> None:
    """Starts everything and returns only by an exception: CannotStart, or KeyboardInterrupt when asked to stop.

    `stack` stops it all in order: services, Kafka, PostgreSQL.
    """
    began = time.monotonic()
    config.var.mkdir(parents=True, exist_ok=True)
    _refuse_taken_ports(config)
    checks: list[Check] = []
    database_url = config.database_url or _start_postgres(config, stack, checks)
    kafka = config.kafka or _start_kafka(config, stack, checks)
    urls = addresses(config, kafka, database_url)
    names = [program.name for program in programs(config)]
    supervisor = Supervisor(config.var / "log", names)
    stack.callback(supervisor.stop)
    for program in programs(config):
        supervisor.start(program.name, command(program.service), environment(config, program, urls))
    checks.append(lambda: _all_alive(supervisor))
    for program in programs(config):
        wait_until(partial(_ready, program.url, checks), f"{program.name}: starting", _READY_S)
    say(f"All services are ready, {time.monotonic() - began:.1f} s after the start.")
    _wait_for_people(config, checks)
    say(
        f"\n{welcome(urls, first_start_file(config))}\n\nCtrl-C stops everything. Logs are kept in {config.var / 'log'}."
    )
    while True:
        _check(checks)
        time.sleep(0.1)


def _refuse_taken_ports(config: Config) -> None:
    wanted = {program.port: program.name for program in programs(config)}
    if config.database_url is None:
        wanted[config.postgres_port] = "PostgreSQL"
    if config.kafka is None:
        wanted |= {config.kafka_port: "Kafka", config.kafka_port + 1: "Kafka's controller"}
    taken = [f"port {port} ({name}) is in use by {holder(port)}" for port, name in wanted.items() if is_taken(port)]
    if taken:
        raise CannotStart("; ".join(taken) + ". Stop it, or set KEYLEDGER_BASE_PORT to shift all ports.")


def _start_postgres(config: Config, stack: ExitStack, checks: list[Check]) -> str:
    server = Server(config.var / "postgres", config.postgres_port)
    server.start()
    stack.callback(_stopping, "PostgreSQL", server.stop)
    checks.append(server.check)
    return server.url


def _start_kafka(config: Config, stack: ExitStack, checks: list[Check]) -> str:
    broker = Broker(config.var / "kafka", config.kafka_port)
    broker.launch()
    stack.callback(_stopping, "Kafka", broker.stop)
    broker.wait_ready()
    checks.append(broker.check)
    return broker.bootstrap


def _stopping(name: str, stop: Callable[[], None]) -> None:
    say(f"{name}: stopping")
    stop()


def _all_alive(supervisor: Supervisor) -> None:
    supervisor.pump(0.0)
    ended = supervisor.first_ended()
    if ended:
        raise CannotStart(ended)


def _check(checks: list[Check]) -> None:
    for check in checks:
        check()


def _ready(url: str, checks: list[Check]) -> bool:
    _check(checks)
    try:
        return _HTTP.request("GET", f"{url}/readyz").status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _wait_for_people(config: Config, checks: list[Check]) -> None:
    """The console makes the first people after it is ready; a database that already has people brings no file."""
    deadline = time.monotonic() + _PEOPLE_S

    def written() -> bool:
        _check(checks)
        return first_start_file(config).exists() or time.monotonic() > deadline

    wait_until(written, "console: making the first people", _PEOPLE_S * 2)


def _stop_asked(_number: int, _frame: FrameType | None) -> None:
    # Once is enough: a second Ctrl-C must not cut the orderly stop short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(command: Command = service_command) -> int:
    """Exit code 0 when asked to stop, 1 when something could not start or ended by itself."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_asked)
    try:
        with ExitStack() as stack:
            run(Config.from_env(os.environ), stack, command)
    except KeyboardInterrupt:
        say("Stopped.")
    except CannotStart as refusal:
        say(f"keyledger: {refusal}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
