"""Configuration from the environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from schemas.key_text import DEFAULT_PREFIX


class BadConfig(Exception):
    """A variable is missing or wrong; the message says which and how to mend it."""


@dataclass(frozen=True, slots=True)
class Config:
    """What a command API needs to know. `max_staleness_ms` is M of DESIGN section 7, the same as the checkers'."""

    host: str
    port: int
    state_dir: Path
    bootstrap: str
    ledger_keys: Path
    console_url: str
    checker_url: str
    checker_token: str
    key_prefix: str
    most_keys: int
    max_staleness_ms: int
    threads: int

    @staticmethod
    def from_env(env: Mapping[str, str] = os.environ) -> "Config":
        """Read the environment. Raises BadConfig."""
        state_dir = Path(env.get("KEYLEDGER_STATE_DIR", "var/command_api"))
        return Config(
            host=env.get("KEYLEDGER_HOST", "127.0.0.1"),
            port=_number(env, "KEYLEDGER_PORT", 8001, most=65535),
            state_dir=state_dir,
            bootstrap=_required(env, "KAFKA_BOOTSTRAP_SERVERS"),
            ledger_keys=Path(env.get("KEYLEDGER_LEDGER_KEYS", str(state_dir.parent / "ledger-keys"))),
            console_url=_url(env, "CONSOLE_URL", "http://127.0.0.1:8000"),
            checker_url=_url(env, "CHECKER_URL", "http://127.0.0.1:8003"),
            checker_token=env.get("CHECKER_TOKEN", ""),
            key_prefix=_prefix(env, "KEYLEDGER_KEY_PREFIX"),
            most_keys=_number(env, "KEYLEDGER_MOST_KEYS", 100),
            max_staleness_ms=_number(env, "KEYLEDGER_MAX_STALENESS_MS", 2000, 500, 600_000),
            threads=_number(env, "KEYLEDGER_THREADS", 64),
        )


def _required(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise BadConfig(f"{name} must be set")
    return env[name]


def _number(env: Mapping[str, str], name: str, default: int, least: int = 1, most: int = 2**31) -> int:
    text = env.get(name, str(default))
    if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= most:
        raise BadConfig(f"{name} must be a whole number from {least} to {most}, not {text!r}")
    return int(text)


def _prefix(env: Mapping[str, str], name: str) -> str:
    prefix = env.get(name, DEFAULT_PREFIX)
    if not re.fullmatch("[A-Za-z0-9]{1,16}", prefix):
        raise BadConfig(f"{name} must be 1 to 16 letters and digits, not {prefix!r}")
    return prefix


def _url(env: Mapping[str, str], name: str, default: str) -> str:
    url = env.get(name, default)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise BadConfig(f"{name} must be an http(s) address, not {url!r}")
    return url.rstrip("/")
