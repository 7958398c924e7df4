"""The projector's configuration, read once from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from schemas.topics import PARTITIONS


class BadConfig(Exception):
    """The environment lacks something or has something that makes no sense; the message is one clear sentence."""


@dataclass(frozen=True, slots=True)
class Config:
    """Where everything is, and which partitions this process projects."""

    host: str
    port: int
    state_dir: Path
    kafka: str
    database_url: str = field(repr=False)
    checker_url: str
    checker_token: str = field(repr=False)
    ledger_keys: Path
    partitions: tuple[int, ...]
    address_days: int
    usage_days: int
    usage_tolerance_ms: int
    notary_keys: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raises BadConfig."""
        return cls(
            host=env.get("KEYLEDGER_HOST") or "127.0.0.1",
            port=_number(env, "KEYLEDGER_PORT", "8002", "a port", most=65535),
            state_dir=Path(_required(env, "KEYLEDGER_STATE_DIR")),
            kafka=_required(env, "KAFKA_BOOTSTRAP_SERVERS"),
            database_url=_required(env, "DATABASE_URL"),
            checker_url=_url(env, "CHECKER_URL"),
            checker_token=env.get("CHECKER_TOKEN", ""),
            ledger_keys=Path(_required(env, "KEYLEDGER_LEDGER_KEYS")),
            partitions=parse_partitions(env.get("KEYLEDGER_PARTITIONS") or f"0-{PARTITIONS - 1}"),
            address_days=_number(env, "KEYLEDGER_ADDRESS_DAYS", "90", "a number of days", most=3650),
            usage_days=_number(env, "KEYLEDGER_USAGE_DAYS", "400", "a number of days", most=3650),
            usage_tolerance_ms=1000
            * _number(env, "KEYLEDGER_USAGE_TOLERANCE_S", "300", "a number of seconds", most=86_400),
            notary_keys=Path(env["KEYLEDGER_NOTARY_KEYS"]) if env.get("KEYLEDGER_NOTARY_KEYS") else None,
        )

    @property
    def metrics_file(self) -> Path:
        """Where the follower's process tells the process that serves HTTP how it is doing."""
        return self.state_dir / "projector.json"


def parse_partitions(text: str) -> tuple[int, ...]:
    """`0-11` or `0,3,5-7` as sorted numbers. Raises BadConfig."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() and int(end) < PARTITIONS for end in ends):
            raise BadConfig(f"KEYLEDGER_PARTITIONS must be like 0-{PARTITIONS - 1} or 0,3,5, not {text!r}.")
        found.update(range(int(ends[0]), int(ends[1]) + 1))
    if not found:
        raise BadConfig(f"KEYLEDGER_PARTITIONS names no partition: {text!r}.")
    return tuple(sorted(found))


def _required(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise BadConfig(f"The projector needs {name} in its environment.")
    return env[name]


def _url(env: Mapping[str, str], name: str) -> str:
    url = _required(env, name)
    if not url.startswith(("http://", "https://")):
        raise BadConfig(f"{name} must be an http or https address, not {url!r}.")
    return url.rstrip("/")


def _number(env: Mapping[str, str], name: str, default: str, what: str, most: int) -> int:
    text = env.get(name) or default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise BadConfig(f"{name} must be {what} from 1 to {most}, not {text!r}.")
    return int(text)
