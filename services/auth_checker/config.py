"""What the checker can be told, all of it by the environment."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from schemas.key_text import DEFAULT_PREFIX


class BadConfig(Exception):
    """The environment lacks something or has something that makes no sense; the message is one clear sentence."""


@dataclass(frozen=True, slots=True)
class Config:
    """`checker_token` is None where no credential is asked for, which is only so on loopback."""

    host: str
    port: int
    state_dir: Path
    ledger_keys: Path
    kafka: str
    console_url: str
    checker_token: str | None = field(repr=False)
    workers: int
    max_staleness_ms: int
    prefix: str

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raises BadConfig."""
        host = env.get("KEYLEDGER_HOST") or "127.0.0.1"
        token = env.get("CHECKER_TOKEN") or None
        if not is_loopback(host) and token is None:
            raise BadConfig(
                f"KEYLEDGER_HOST={host} can be reached from elsewhere: set CHECKER_TOKEN, which callers must send."
            )
        console_url = _required(env, "CONSOLE_URL").rstrip("/")
        if not console_url.startswith(("http://", "https://")):
            raise BadConfig(f"CONSOLE_URL must be an http or https address, not {console_url!r}.")
        state_dir = Path(_required(env, "KEYLEDGER_STATE_DIR"))
        return cls(
            host=host,
            port=_number(env, "KEYLEDGER_PORT", 8003, 1, 65535),
            state_dir=state_dir,
            ledger_keys=Path(_required(env, "KEYLEDGER_LEDGER_KEYS")),
            kafka=_required(env, "KAFKA_BOOTSTRAP_SERVERS"),
            console_url=console_url,
            checker_token=None if is_loopback(host) else token,
            workers=_number(env, "KEYLEDGER_WORKERS", 1, 1, 64),
            max_staleness_ms=_number(env, "KEYLEDGER_MAX_STALENESS_MS", 2000, 500, 600_000),
            prefix=_prefix(env.get("KEYLEDGER_KEY_PREFIX") or DEFAULT_PREFIX),
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a port bound to this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _required(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise BadConfig(f"The auth checker needs {name} in its environment.")
    return env[name]


def _number(env: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = env.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise BadConfig(f"{name} must be a whole number from {least} to {most}, not {text!r}.")
    return int(text)


def _prefix(text: str) -> str:
    if not (text.isascii() and text.isalnum() and len(text) <= 16):
        raise BadConfig(f"KEYLEDGER_KEY_PREFIX must be 1 to 16 letters and digits, not {text!r}.")
    return text
