"""Configuration from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


class BadConfig(Exception):
    """A variable is missing or wrong; the message says which and how to mend it."""


@dataclass(frozen=True, slots=True)
class Config:
    """What a command API needs to know. `max_staleness_ms` is M of DESIGN section 7."""

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
            port=_number(env, "KEYLEDGER_PORT", 8001),
            state_dir=state_dir,
            bootstrap=_required(env, "KAFKA_BOOTSTRAP_SERVERS"),
            ledger_keys=Path(env.get("KEYLEDGER_LEDGER_KEYS", str(state_dir.parent / "ledger-keys"))),
            console_url=_url(env, "CONSOLE_URL", "http://127.0.0.1:8000"),
            checker_url=_url(env, "CHECKER_URL", "http://127.0.0.1:8003"),
            checker_token=env.get("CHECKER_TOKEN", ""),
            key_prefix=env.get("KEYLEDGER_KEY_PREFIX", "kl"),
            most_keys=_number(env, "KEYLEDGER_MOST_KEYS", 100),
            max_staleness_ms=_number(env, "KEYLEDGER_MAX_STALENESS_MS", 2000),
            threads=_number(env, "KEYLEDGER_THREADS", 64),
        )


def _required(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise BadConfig(f"{name} must be set")
    return env[name]


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise BadConfig(f"{name} must be a whole number above 0, not {text!r}")
    return int(text)


def _url(env: Mapping[str, str], name: str, default: str) -> str:
    url = env.get(name, default)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise BadConfig(f"{name} must be an http(s) address, not {url!r}")
    return url.rstrip("/")
