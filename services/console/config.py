"""The console's configuration, read once from the environment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


class BadConfig(Exception):
    """The environment lacks something or has something that makes no sense; the message is one clear sentence."""


@dataclass(frozen=True, slots=True)
class Config:
    """Where everything is. `first_start` is the file for the first passwords, None to print them to the log."""

    host: str
    port: int
    state_dir: Path
    database_url: str = field(repr=False)
    command_url: str
    checker_url: str
    checker_token: str = field(repr=False)
    first_start: Path | None
    urls: dict[str, Any]
    demo: bool

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raises BadConfig."""
        return cls(
            host=env.get("KEYLEDGER_HOST", "127.0.0.1"),
            port=_port(env.get("KEYLEDGER_PORT", "8000")),
            state_dir=Path(_required(env, "KEYLEDGER_STATE_DIR")),
            database_url=_required(env, "DATABASE_URL"),
            command_url=_url(env, "COMMAND_URL"),
            checker_url=_url(env, "CHECKER_URL"),
            checker_token=env.get("CHECKER_TOKEN", ""),
            first_start=Path(env["KEYLEDGER_FIRST_START"]) if env.get("KEYLEDGER_FIRST_START") else None,
            urls=_json_object(env.get("KEYLEDGER_URLS") or "{}"),
            demo=_flag(env.get("KEYLEDGER_DEMO", "1")),
        )


def _required(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise BadConfig(f"The console needs {name} in its environment.")
    return env[name]


def _url(env: Mapping[str, str], name: str) -> str:
    url = _required(env, name)
    if not url.startswith(("http://", "https://")):
        raise BadConfig(f"{name} must be an http or https address, not {url!r}.")
    return url.rstrip("/")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise BadConfig(f"KEYLEDGER_PORT must be a port from 1 to 65535, not {text!r}.")
    return int(text)


def _flag(text: str) -> bool:
    if text not in {"0", "1"}:
        raise BadConfig(f"KEYLEDGER_DEMO must be 0 or 1, not {text!r}.")
    return text == "1"


def _json_object(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadConfig("KEYLEDGER_URLS must be a JSON object.") from error
    if not isinstance(document, dict):
        raise BadConfig("KEYLEDGER_URLS must be a JSON object.")
    return document
