"""The first start: one operator and one demo organisation, whatever is killed; and the process itself."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3

from schemas.problems import Problem
from services.console.bootstrap import Bootstrap, NotYet, Result
from tests.integration.console_parts import World, running_console
from tests.integration.console_stand_ins import CHECKER_TOKEN, Cut, Ledger, serving
from tests.waiting import eventually

HTTP = urllib3.PoolManager()
LOST = "Export for the contractor"


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        yield made


def first_start(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "first-start.json").read_text()))


def assert_installed_once(ledger: Ledger) -> None:
    made = {org: sorted(f"{user.role} {user.kind}" for user in users.values()) for org, users in ledger.orgs.items()}
    users = ["admin person", "auditor person", "member person", "member person", "member service_account"]
    assert made == {"platform": ["admin person"], "demo": users}
    assert ledger.keys_enabled == {"demo"}
    names = [key.name for key in ledger.keys.values()]
    assert len(names) == len(set(names)) == 7
    assert [key.name for key in ledger.keys.values() if key.revoked] == [LOST]


def test_the_first_start_makes_people_who_can_sign_in_and_says_who_to_the_owner_only(
    world: World, tmp_path: Path
) -> None:
    world.bootstrap.once()
    assert_installed_once(world.ledger)
    told = first_start(tmp_path)
    assert stat.S_IMODE((tmp_path / "first-start.json").stat().st_mode) == 0o600
    assert told["urls"] == world.config.urls
    assert told["demo"]["org_id"] == "demo"
    for person in (told["operator"], told["demo"]["admin"], told["demo"]["member"]):
        session = world.sign_in(person["email"], person["password"])
        assert session.status_code == 201
        assert (session.get_json()["user_id"], session.get_json()["must_change_password"]) == (person["user_id"], False)


def test_a_second_start_changes_nothing(world: World, tmp_path: Path) -> None:
    world.bootstrap.once()
    told, commands = first_start(tmp_path), list(world.ledger.commands)
    world.bootstrap.once()
    assert first_start(tmp_path) == told
    assert world.ledger.commands == commands


def test_without_the_demo_there_is_only_the_operator(world: World, tmp_path: Path) -> None:
    replace(world.bootstrap, demo=False).once()
    assert sorted(world.ledger.orgs) == ["platform"]
    assert sorted(first_start(tmp_path)) == ["operator", "urls"]


def test_without_a_file_the_first_passwords_are_in_the_log_once(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    bootstrap: Bootstrap = replace(world.bootstrap, result=Result(None, {}))
    bootstrap.once()
    bootstrap.once()
    assert capsys.readouterr().out.count("operator@keyledger.local") == 1


def test_a_command_api_that_is_not_ready_is_waited_for(world: World) -> None:
    command_api = replace_ready(world.bootstrap, lambda: False)
    with pytest.raises(NotYet, match="command API"):
        command_api.once()
    assert world.ledger.commands == []


def replace_ready(bootstrap: Bootstrap, is_ready: Callable[[], bool]) -> Bootstrap:
    bootstrap.command_api.is_ready = is_ready
    return bootstrap


COMMANDS = [
    "POST /v1/orgs",
    "POST /v1/orgs/platform/users",
    "PUT /v1/orgs/demo/keys-enabled",
    "POST /v1/orgs/demo/users",
    "POST /v1/orgs/demo/keys",
    f"DELETE /v1/orgs/demo/keys/{4:022}",
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_first_start_that_was_cut_short_at_any_command_is_finished_by_the_next(
    world: World, command: str, when: str
) -> None:
    def cut(now: str, what: str) -> None:
        if (now, what) == (when, command):
            raise Cut

    world.ledger.trouble = cut
    with pytest.raises(Problem):
        world.bootstrap.once()
    world.ledger.trouble = lambda _when, _what: None
    world.bootstrap.once()
    assert_installed_once(world.ledger)


def test_the_demo_organisation_has_used_keys_and_one_that_is_tried_after_its_revocation(world: World) -> None:
    world.bootstrap.once()
    uses = Counter((name, code) for name, _, code in world.ledger.uses)
    assert uses[LOST, "VALID"] == 3
    assert uses[LOST, "REVOKED"] == 4
    assert len(uses) == 7
    assert uses.total() > 50
    assert len({address for name, address, _ in world.ledger.uses if name == "Sequencer import, production"}) == 2
    assert "Plate reader (not connected yet)" in {key.name for key in world.ledger.keys.values()}
    assert "Plate reader (not connected yet)" not in {name for name, _ in uses}


def test_keys_whose_texts_were_lost_with_a_first_try_are_not_used_and_not_made_twice(world: World) -> None:
    def cut(when: str, what: str) -> None:
        if when == "before" and what.startswith("DELETE"):
            raise Cut

    world.ledger.trouble = cut
    with pytest.raises(Problem):
        world.bootstrap.once()
    used = len(world.ledger.uses)
    world.ledger.trouble = lambda _when, _what: None
    world.bootstrap.once()
    assert_installed_once(world.ledger)
    assert len(world.ledger.uses) == used


def test_what_is_refused_of_the_demo_is_left_out(world: World, tmp_path: Path) -> None:
    def refuse(when: str, what: str) -> None:
        if when == "before" and what == "POST /v1/orgs/demo/keys":
            raise Problem(409, "key_limit", "there are too many")

    world.ledger.trouble = refuse
    world.bootstrap.once()
    assert sorted(first_start(tmp_path)["demo"]) == ["admin", "member", "org_id"]
    assert world.ledger.keys == {}
    assert len(world.ledger.orgs["demo"]) == 5


def test_a_checker_that_answers_nothing_about_keys_holds_up_no_first_start(world: World, tmp_path: Path) -> None:
    away = {"code": "not_ready", "detail": "not now"}
    world.ledger.answers["POST", "/v1/validations/batch"] = (503, away, {})
    world.bootstrap.once()
    assert_installed_once(world.ledger)
    assert world.ledger.uses == []
    assert first_start(tmp_path)["demo"]["org_id"] == "demo"


@contextmanager
def console_process(database: str, folder: Path, port: int, url: str, **change: str) -> Iterator[subprocess.Popen[str]]:
    env = {
        **os.environ,
        "KEYLEDGER_PORT": str(port),
        "KEYLEDGER_STATE_DIR": str(folder),
        "KEYLEDGER_FIRST_START": str(folder / "first-start.json"),
        "DATABASE_URL": database,
        "COMMAND_URL": url,
        "READ_URL": url,
        "CHECKER_URL": url,
        "CHECKER_TOKEN": CHECKER_TOKEN,
        **change,
    }
    with (folder / "log").open("a") as log:
        command = [sys.executable, "-m", "services.console"]
        process = subprocess.Popen(command, env=env, stderr=log, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def status(port: int, path: str) -> int:
    try:
        return HTTP.request("GET", f"http://127.0.0.1:{port}{path}", retries=False, timeout=2.0).status
    except urllib3.exceptions.HTTPError:
        return 0


def published_keys(port: int) -> Callable[[], dict[str, Any]]:
    return lambda: dict(HTTP.request("GET", f"http://127.0.0.1:{port}/.well-known/jwks.json", timeout=2.0).json())


def test_a_console_killed_after_every_command_of_its_first_start_installs_once(
    database: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """SIGKILL when a command is done and its answer is not yet sent; then the next process goes on."""
    port = free_port()
    ledger = Ledger(published_keys(port))
    seen: set[str] = set()
    with serving(ledger) as url:
        for number in range(len(COMMANDS) + 1):
            with console_process(database, tmp_path, port, url) as process:

                def kill_once(when: str, what: str, process: subprocess.Popen[str] = process) -> None:
                    if when == "after" and what not in seen:
                        seen.add(what)
                        process.kill()
                        raise Cut

                ledger.trouble = kill_once
                eventually(lambda: process.poll() is not None or status(port, "/readyz") == 200, 30, "killed or ready")
                assert process.poll() in {None, -signal.SIGKILL}
                assert (process.poll() is None) == (number == len(COMMANDS)), (tmp_path / "log").read_text()
            eventually(lambda: status(port, "/healthz") == 0, 10, "the worker of the killed process is gone too")
    assert seen == set(COMMANDS)
    assert_installed_once(ledger)
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT org_id, status FROM console.people ORDER BY org_id").fetchall()
    assert rows == [("demo", "active")] * 5 + [("platform", "active")]


def test_the_process_serves_and_stops_in_order(database: str, tmp_path: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    with serving(Ledger(published_keys(port))) as url, console_process(database, tmp_path, port, url) as process:
        eventually(lambda: status(port, "/readyz") == 200, 30, "the console is ready")
        person = first_start(tmp_path)["operator"]
        body = {"email": person["email"], "password": person["password"]}
        answer = HTTP.request("POST", f"http://127.0.0.1:{port}/v1/sessions", json=body)
        assert answer.status == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    log = (tmp_path / "log").read_text()
    assert all(json.loads(line) for line in log.splitlines())
    assert person["password"] not in log
    assert status(port, "/healthz") == 0


def test_without_postgresql_the_process_lives_and_says_that_it_is_not_ready(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port, nobody = free_port(), free_port()
    url = f"http://127.0.0.1:{nobody}"
    with console_process(f"postgresql://x@127.0.0.1:{nobody}/x", tmp_path, port, url):
        eventually(lambda: status(port, "/healthz") == 200, 30, "the console is alive")
        assert status(port, "/readyz") == 503
        body = {"email": "ada@example.org", "password": "correct horse battery"}
        answer = HTTP.request("POST", f"http://127.0.0.1:{port}/v1/sessions", json=body)
        assert (answer.status, answer.json()["code"]) == (503, "database_away")
    assert all(json.loads(line) for line in (tmp_path / "log").read_text().splitlines())


def test_a_port_in_use_ends_the_process_with_one_sentence(tmp_path: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    database, url = "postgresql://x@127.0.0.1:1/x", "http://127.0.0.1:1"
    taken = socket.create_server(("127.0.0.1", port))
    with taken, console_process(database, tmp_path, port, url) as process:
        assert process.wait(30) == 2
    assert f"127.0.0.1:{port}" in json.loads((tmp_path / "log").read_text())["why"]


def test_a_bad_configuration_ends_the_process_with_one_sentence(tmp_path: Path) -> None:
    with console_process("", tmp_path, 1, "http://127.0.0.1:1") as process:
        assert process.wait(30) == 2
    log = (tmp_path / "log").read_text()
    assert log.count("\n") == 1
    assert "DATABASE_URL" in json.loads(log)["why"]
