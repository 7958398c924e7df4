"""The process list of `make run`: which services, on which ports, with which environment."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from services.embedded.config import Config

# The offset from the base port is the service's for good: 8000 console, 8001 command API, 8002 reads, 8003 checker.
_OFFSETS = {"console": 0, "command_api": 1, "projector": 2, "auth_checker": 3}


@dataclass(frozen=True)
class Program:
    """One process to run: `service` is the module under services, `name` tells instances apart (`auth_checker_2`)."""

    name: str
    service: str
    port: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


def programs(config: Config) -> list[Program]:
    """The processes in the order in which they are started."""
    counts = {"command_api": config.command_apis, "projector": 1, "auth_checker": config.checkers, "console": 1}
    return [
        Program(
            name=service if number == 0 else f"{service}_{number + 1}",
            service=service,
            port=config.base_port + _OFFSETS[service] + 100 * number,
        )
        for service, count in counts.items()
        for number in range(count)
    ]


def addresses(config: Config, kafka: str, database_url: str) -> dict[str, list[str]]:
    """The addresses of everything, as `var/first-start.json` has them."""
    urls: dict[str, list[str]] = {}
    for program in programs(config):
        urls.setdefault(program.service, []).append(program.url)
    return {
        "console": urls["console"],
        "command": urls["command_api"],
        "read": urls["projector"],
        "checker": urls["auth_checker"],
        "kafka": kafka.split(","),
        "postgres": [database_url],
    }


def first_start_file(config: Config) -> Path:
    """What the console writes when it made the first people: see DESIGN, "One machine, and many"."""
    return config.var / "first-start.json"


def environment(config: Config, program: Program, urls: dict[str, list[str]]) -> dict[str, str]:
    """The whole environment of one process: what this process has, and the configuration of that service."""
    state = config.var / program.name
    state.mkdir(parents=True, exist_ok=True)
    given = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "KEYLEDGER_HOST": "127.0.0.1",
        "KEYLEDGER_PORT": str(program.port),
        "KEYLEDGER_STATE_DIR": str(state),
        "KEYLEDGER_LEDGER_KEYS": str(config.var / "ledger-keys"),
        "KEYLEDGER_NOTARY_KEYS": str(config.var / "auditor" / "notary.pub"),
        "KAFKA_BOOTSTRAP_SERVERS": ",".join(urls["kafka"]),
        "DATABASE_URL": urls["postgres"][0],
        "CONSOLE_URL": urls["console"][0],
        "COMMAND_URL": urls["command"][0],
        "READ_URL": urls["read"][0],
        "CHECKER_URL": urls["checker"][0],
        "CHECKER_TOKEN": _checker_token(config.var / "checker-token"),
    }
    if program.service == "console":
        given["KEYLEDGER_FIRST_START"] = str(first_start_file(config))
        given["KEYLEDGER_URLS"] = json.dumps(urls)
    return given


def _checker_token(path: Path) -> str:
    """The credential of our own services at the checker: made once, readable by this user only."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32) + "\n")
    return path.read_text().strip()
