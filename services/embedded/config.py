"""What `make run` can be told, all of it by the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.embedded.progress import CannotStart

_MOST_INSTANCES = 9  # Instance n has the ports +100·(n−1); beyond nine they would need a plan of their own.


@dataclass(frozen=True)
class Config:
    """Where state is kept, which ports are used, how many of each, and what is given instead of embedded."""

    var: Path
    base_port: int
    checkers: int
    command_apis: int
    kafka: str | None
    database_url: str | None

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> "Config":
        """Reads the environment; CannotStart names the variable that makes no sense."""
        return cls(
            var=Path(environment.get("KEYLEDGER_VAR") or "var").absolute(),
            base_port=_number(environment, "KEYLEDGER_BASE_PORT", 8000, 1024, 64000),
            checkers=_number(environment, "CHECKERS", 1, 1, _MOST_INSTANCES),
            command_apis=_number(environment, "COMMAND_APIS", 1, 1, _MOST_INSTANCES),
            kafka=environment.get("KAFKA_BOOTSTRAP_SERVERS") or None,
            database_url=environment.get("DATABASE_URL") or None,
        )

    @property
    def kafka_port(self) -> int:
        """The embedded broker's port; the one after it is its controller's."""
        return self.base_port + 92

    @property
    def postgres_port(self) -> int:
        """The embedded PostgreSQL's port."""
        return self.base_port + 32


def _number(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise CannotStart(f"{name} must be a whole number from {least} to {most}, not {text!r}")
    return int(text)
