"""The command API's configuration: the environment is read once, and what is wrong with it is said in one sentence."""

from pathlib import Path

import pytest

from services.command_api.config import BadConfig, Config

LEAST = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092"}


def test_the_log_alone_must_be_named_and_the_rest_has_defaults():
    config = Config.from_env(LEAST | {"KEYLEDGER_STATE_DIR": "var/command_api", "CHECKER_URL": "http://checker:8003/"})
    assert (config.host, config.port, config.most_keys, config.key_prefix) == ("127.0.0.1", 8001, 100, "kl")
    assert config.ledger_keys == Path("var/ledger-keys")
    assert config.checker_url == "http://checker:8003"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", ""),
        ("KEYLEDGER_PORT", "eighty"),
        ("KEYLEDGER_PORT", "0"),
        ("KEYLEDGER_PORT", "65536"),
        ("KEYLEDGER_MOST_KEYS", "-1"),
        ("KEYLEDGER_MAX_STALENESS_MS", "499"),
        ("KEYLEDGER_MAX_STALENESS_MS", "600001"),
        ("CONSOLE_URL", "console:8000"),
        ("CHECKER_URL", "http://"),
        ("KEYLEDGER_KEY_PREFIX", "k_l"),
    ],
)
def test_a_wrong_variable_is_named_in_the_sentence(name: str, value: str):
    with pytest.raises(BadConfig, match=name):
        Config.from_env(LEAST | {name: value})
