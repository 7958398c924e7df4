"""The checker starts with a configuration that makes sense, or says in one sentence why not."""

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
        max_staleness_ms=2000,
        prefix="kl",
    )


@pytest.mark.parametrize(("host", "kept"), [("127.0.0.1", None), ("localhost", None), ("::1", None), ("0.0.0.0", "t")])
def test_a_credential_is_asked_for_where_others_can_reach_the_port(host: str, kept: str | None) -> None:
    config = Config.from_env({**ENVIRONMENT, "KEYLEDGER_HOST": host, "CHECKER_TOKEN": "t"})
    assert config.checker_token == kept
    assert "'t'" not in repr(config)


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
        ("KEYLEDGER_KEY_PREFIX", "k_l", "KEYLEDGER_KEY_PREFIX must be"),
    ],
)
def test_what_makes_no_sense_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        Config.from_env({**ENVIRONMENT, name: value})
