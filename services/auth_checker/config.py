"""What the checker can be told, all of it by the environment."""

import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from schemas.key_text import DEFAULT_PREFIX


class BadConfig(Exception):
    """The environment lacks something or has something that makes no sense; the message is one clear sentence."""


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. With `client_ca` only those are let in who show a certificate that it issued."""

    cert: Path
    key: Path
    client_ca: Path | None

    def options(self) -> dict[str, Any]:
        """What the HTTP server, granian, is told about it."""
        verify = self.client_ca is not None
        return {"ssl_cert": self.cert, "ssl_key": self.key, "ssl_ca": self.client_ca, "ssl_client_verify": verify}


@dataclass(frozen=True, slots=True)
class Config:
    """`checker_token` is None where no such credential is asked for: on loopback, or where certificates do for it.

    `checker_id` names this checker in its pulses, sent every `pulse_ms`; `max_staleness_ms` is M (DESIGN section 7).
    `trusted_proxies` are those whose `X-Forwarded-For` is believed; `tls` None means plain HTTP.
    """

    host: str
    port: int
    state_dir: Path
    ledger_keys: Path
    kafka: str
    console_url: str
    checker_token: str | None = field(repr=False)
    workers: int
    checker_id: str
    max_staleness_ms: int
    pulse_ms: int
    spool_bytes: int
    prefix: str
    trusted_proxies: tuple[Network, ...]
    tls: Tls | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raises BadConfig."""
        host = env.get("KEYLEDGER_HOST") or "127.0.0.1"
        token = env.get("CHECKER_TOKEN") or None
        tls = _tls(env)
        if not is_loopback(host) and token is None and (tls is None or tls.client_ca is None):
            raise BadConfig(
                f"KEYLEDGER_HOST={host} can be reached from elsewhere: set CHECKER_TOKEN, which callers must send, "
                "or KEYLEDGER_TLS_CLIENT_CA, whose certificates they must show."
            )
        console_url = _required(env, "CONSOLE_URL").rstrip("/")
        if not console_url.startswith(("http://", "https://")):
            raise BadConfig(f"CONSOLE_URL must be an http or https address, not {console_url!r}.")
        state_dir = Path(_required(env, "KEYLEDGER_STATE_DIR"))
        port = _number(env, "KEYLEDGER_PORT", 8003, 1, 65535)
        max_staleness_ms = _number(env, "KEYLEDGER_MAX_STALENESS_MS", 2000, 500, 600_000)
        return cls(
            host=host,
            port=port,
            state_dir=state_dir,
            ledger_keys=Path(_required(env, "KEYLEDGER_LEDGER_KEYS")),
            kafka=_required(env, "KAFKA_BOOTSTRAP_SERVERS"),
            console_url=console_url,
            checker_token=None if is_loopback(host) else token,
            workers=_number(env, "KEYLEDGER_WORKERS", 1, 1, 64),
            checker_id=_checker_id(env.get("KEYLEDGER_CHECKER_ID") or f"{socket.gethostname()[:50]}-{port}"),
            max_staleness_ms=max_staleness_ms,
            # Several pulses fit into one lease, so that one that is late or lost makes nothing stale.
            pulse_ms=_number(env, "KEYLEDGER_PULSE_MS", min(250, max_staleness_ms // 5), 10, max_staleness_ms // 4 - 1),
            spool_bytes=_number(env, "KEYLEDGER_SPOOL_MB", 256, 1, 65_536) * 1024**2,
            prefix=_prefix(env.get("KEYLEDGER_KEY_PREFIX") or DEFAULT_PREFIX),
            trusted_proxies=_networks(env, "KEYLEDGER_TRUSTED_PROXIES"),
            tls=tls,
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


def _networks(env: Mapping[str, str], name: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text.strip()) for text in env.get(name, "").split(",") if text.strip())
    except ValueError as error:
        raise BadConfig(f"{name} must be addresses and networks with commas between them: {error}.") from error


def _tls(env: Mapping[str, str]) -> Tls | None:
    names = ("KEYLEDGER_TLS_CERT", "KEYLEDGER_TLS_KEY", "KEYLEDGER_TLS_CLIENT_CA")
    cert, key, client_ca = (Path(env[name]) if env.get(name) else None for name in names)
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        raise BadConfig(f"{names[0]} and {names[1]} go together, and {names[2]} needs both.")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
    except OSError as error:
        raise BadConfig(f"The TLS files {', '.join(names)} cannot be used: {error}.") from error
    return Tls(cert, key, client_ca)


def _checker_id(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text) is None:
        raise BadConfig(f"KEYLEDGER_CHECKER_ID must be 1 to 64 letters, digits and any of _.:-, not {text!r}.")
    return text


def _prefix(text: str) -> str:
    if not (text.isascii() and text.isalnum() and len(text) <= 16):
        raise BadConfig(f"KEYLEDGER_KEY_PREFIX must be 1 to 16 letters and digits, not {text!r}.")
    return text
