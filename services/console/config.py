"""The console's configuration, read once from the environment."""

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit


class BadConfig(Exception):
    """The environment lacks something or has something that makes no sense; the message is one clear sentence."""


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """The provider of single sign-on, and who we are to it. `name` is what people call it."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    name: str


@dataclass(frozen=True, slots=True)
class Config:
    """Where everything is. `first_start` is the file for the first passwords, None to print them to the log.

    `public_url` is the address that people use; `oidc` is None without single sign-on.
    """

    host: str
    port: int
    state_dir: Path
    database_url: str = field(repr=False)
    command_url: str
    read_url: str
    checker_url: str
    checker_token: str = field(repr=False)
    first_start: Path | None
    urls: dict[str, Any]
    demo: bool
    public_url: str
    oidc: OidcSettings | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raises BadConfig."""
        host, port = env.get("KEYLEDGER_HOST", "127.0.0.1"), _port(env.get("KEYLEDGER_PORT", "8000"))
        public = {"KEYLEDGER_PUBLIC_URL": env.get("KEYLEDGER_PUBLIC_URL") or f"http://{host}:{port}"}
        return cls(
            host=host,
            port=port,
            state_dir=Path(_required(env, "KEYLEDGER_STATE_DIR")),
            database_url=_required(env, "DATABASE_URL"),
            command_url=_url(env, "COMMAND_URL"),
            read_url=_url(env, "READ_URL"),
            checker_url=_url(env, "CHECKER_URL"),
            checker_token=env.get("CHECKER_TOKEN", ""),
            first_start=Path(env["KEYLEDGER_FIRST_START"]) if env.get("KEYLEDGER_FIRST_START") else None,
            urls=_json_object(env.get("KEYLEDGER_URLS") or "{}"),
            demo=_flag(env.get("KEYLEDGER_DEMO", "1")),
            public_url=_url(public, "KEYLEDGER_PUBLIC_URL"),
            oidc=_oidc(env),
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


def _oidc(env: Mapping[str, str]) -> OidcSettings | None:
    names = [f"KEYLEDGER_OIDC_{name}" for name in ("ISSUER", "CLIENT_ID", "CLIENT_SECRET")]
    if not any(env.get(name) for name in names):
        return None
    _, client_id, client_secret = (_required(env, name) for name in names)
    # Exactly as given: an issuer with a slash at its end is another one than the same without.
    issuer = env[names[0]]
    if not _is_safe(issuer):
        raise BadConfig(f"{names[0]} must be an https address (http only on this machine), not {issuer!r}.")
    return OidcSettings(issuer, client_id, client_secret, env.get("KEYLEDGER_OIDC_NAME") or "single sign-on")


def _is_safe(address: str) -> bool:
    try:
        parts = urlsplit(address)
        if parts.scheme == "https" and parts.hostname:
            return True
        host = parts.hostname or ""
        return parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False


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
