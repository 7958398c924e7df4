"""What `make run` is going to start is decided by the environment alone."""

import json
import socket
from pathlib import Path

import pytest

from services.embedded.config import Config
from services.embedded.ports import free_ports, holder, is_taken
from services.embedded.processes import addresses, environment, programs
from services.embedded.progress import CannotStart, wait_until
from services.embedded.welcome import welcome

PERSON = {"user_id": "u1", "email": "maya@demo.example", "password": "it's secret"}


def config(var: Path, **given: str) -> Config:
    return Config.from_env({"KEYLEDGER_VAR": str(var), **given})


def test_each_further_instance_has_its_ports_a_hundred_higher(tmp_path: Path) -> None:
    ports = {p.name: p.port for p in programs(config(tmp_path, CHECKERS="3", COMMAND_APIS="2"))}
    assert ports == {
        "command_api": 8001,
        "command_api_2": 8101,
        "projector": 8002,
        "auth_checker": 8003,
        "auth_checker_2": 8103,
        "auth_checker_3": 8203,
        "console": 8000,
    }


def test_the_base_port_shifts_every_port(tmp_path: Path) -> None:
    shifted = config(tmp_path, KEYLEDGER_BASE_PORT="18000")
    assert [p.port for p in programs(shifted)] == [18001, 18002, 18003, 18000]
    assert (shifted.kafka_port, shifted.postgres_port) == (18092, 18032)


@pytest.mark.parametrize(
    ("name", "value"),
    [("CHECKERS", "0"), ("CHECKERS", "10"), ("COMMAND_APIS", "two"), ("KEYLEDGER_BASE_PORT", "80"), ("CHECKERS", "²")],
)
def test_a_number_that_makes_no_sense_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(CannotStart, match=name):
        config(tmp_path, **{name: value})


def test_every_process_has_its_own_state_and_the_same_addresses_and_token(tmp_path: Path) -> None:
    plan = config(tmp_path)
    urls = addresses(plan, "127.0.0.1:8092", "postgresql://x")
    given = {p.name: environment(plan, p, urls) for p in programs(plan)}
    assert len({each["KEYLEDGER_STATE_DIR"] for each in given.values()}) == len(given)
    assert len({each["CHECKER_TOKEN"] for each in given.values()}) == 1
    assert {each["COMMAND_URL"] for each in given.values()} == {"http://127.0.0.1:8001"}
    assert (tmp_path / "checker-token").stat().st_mode & 0o777 == 0o600


def test_only_the_console_is_told_to_make_the_first_people(tmp_path: Path) -> None:
    plan = config(tmp_path)
    urls = addresses(plan, "127.0.0.1:8092", "postgresql://x")
    told = [p.name for p in programs(plan) if "KEYLEDGER_FIRST_START" in environment(plan, p, urls)]
    assert told == ["console"]


def test_the_welcome_shows_who_can_sign_in_and_no_database_password(tmp_path: Path) -> None:
    facts = tmp_path / "first-start.json"
    facts.write_text(
        json.dumps({"operator": PERSON, "demo": {"org_id": "demo", "admin": PERSON, "member": PERSON}, "urls": {}})
    )
    text = welcome(addresses(config(tmp_path), "127.0.0.1:8092", "postgresql://postgres:hidden@127.0.0.1/x"), facts)
    assert text.count("maya@demo.example") >= 3
    assert "http://127.0.0.1:8003/v1/validations" in text
    assert "hidden" not in text


def test_a_taken_port_is_seen_and_its_holder_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert is_taken(port)
        assert "pytest" in holder(port)
    assert not is_taken(port)


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert not any(map(is_taken, ports))


def test_waiting_too_long_says_for_what() -> None:
    with pytest.raises(CannotStart, match=r"the moon: not done after 0 s\. It is cloudy"):
        wait_until(lambda: False, "the moon", 0.0, lambda: "It is cloudy")
