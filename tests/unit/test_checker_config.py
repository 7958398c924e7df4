"""The checker starts with a configuration that makes sense, or says in one sentence why not."""

import socket
from pathlib import Path

import pytest

from services.auth_checker.config import BadConfig, Config

ENVIRONMENT = {
    "KEYLEDGER_STATE_DIR": "state",
    "KEYLEDGER_LEDGER_KEYS": "keys",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "CONSOLE_URL": "http://127.0.0.1:8000/",
}


def test_what_is_not_said_has_a_default() -> None:
    assert Config.from_env(ENVIRONMENT) == Config(
        host="127.0.0.1",
        port=8003,
        state_dir=Path("state"),
        ledger_keys=Path("keys"),
        kafka="127.0.0.1:9092",
        console_url="http://127.0.0.1:8000",
        checker_token=None,
        workers=1,
        checker_id=f"{socket.gethostname()[:50]}-8003",
        max_staleness_ms=2000,
        pulse_ms=250,
        spool_bytes=256 * 1024**2,
        prefix="kl",
        trusted_proxies=(),
        tls=None,
    )


@pytest.mark.parametrize(("host", "kept"), [("127.0.0.1", None), ("localhost", None), ("::1", None), ("0.0.0.0", "t")])
def test_a_credential_is_asked_for_where_others_can_reach_the_port(host: str, kept: str | None) -> None:
    config = Config.from_env({**ENVIRONMENT, "KEYLEDGER_HOST": host, "CHECKER_TOKEN": "t"})
    assert config.checker_token == kept
    assert "'t'" not in repr(config)


def test_a_short_lease_has_room_for_several_pulses() -> None:
    assert Config.from_env({**ENVIRONMENT, "KEYLEDGER_MAX_STALENESS_MS": "500"}).pulse_ms == 100


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KEYLEDGER_STATE_DIR", "", "needs KEYLEDGER_STATE_DIR"),
        ("KEYLEDGER_LEDGER_KEYS", "", "needs KEYLEDGER_LEDGER_KEYS"),
        ("KAFKA_BOOTSTRAP_SERVERS", "", "needs KAFKA_BOOTSTRAP_SERVERS"),
        ("CONSOLE_URL", "console:8000", "CONSOLE_URL must be"),
        ("KEYLEDGER_HOST", "0.0.0.0", "set CHECKER_TOKEN"),
        ("KEYLEDGER_HOST", "checker.internal", "set CHECKER_TOKEN"),
        ("KEYLEDGER_PORT", "65536", "KEYLEDGER_PORT must be"),
        ("KEYLEDGER_PORT", "eighty", "KEYLEDGER_PORT must be"),
        ("KEYLEDGER_WORKERS", "0", "KEYLEDGER_WORKERS must be"),
        ("KEYLEDGER_MAX_STALENESS_MS", "-1", "KEYLEDGER_MAX_STALENESS_MS must be"),
        ("KEYLEDGER_PULSE_MS", "500", "KEYLEDGER_PULSE_MS must be a whole number from 10 to 499"),
        ("KEYLEDGER_CHECKER_ID", "a/b", "KEYLEDGER_CHECKER_ID must be"),
        ("KEYLEDGER_KEY_PREFIX", "k_l", "KEYLEDGER_KEY_PREFIX must be"),
        ("KEYLEDGER_TRUSTED_PROXIES", "10.0.0.1/8", "KEYLEDGER_TRUSTED_PROXIES must be"),
        ("KEYLEDGER_TRUSTED_PROXIES", "proxy.internal", "KEYLEDGER_TRUSTED_PROXIES must be"),
        ("KEYLEDGER_TLS_KEY", "key.pem", "go together"),
        ("KEYLEDGER_TLS_CLIENT_CA", "ca.pem", "needs both"),
    ],
)
def test_what_makes_no_sense_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        Config.from_env({**ENVIRONMENT, name: value})
