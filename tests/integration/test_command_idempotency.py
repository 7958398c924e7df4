"""The same request twice is one command: same outcome, one event, and a key's text at most once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from services.ledger.seal import new_keys
from tests.integration.command_log import TroubledLog, events_of
from tests.integration.command_parts import CommandWorld, check_problem, running_command_api

KEYS = "/v1/orgs/acme/keys"
USERS = "/v1/orgs/acme/users"
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def log() -> TroubledLog:
    return TroubledLog()


@pytest.fixture
def world(tmp_path: Path, log: TroubledLog) -> Iterator[CommandWorld]:
    with running_command_api(tmp_path, log) as running:
        yield running


@pytest.fixture
def admin(world: CommandWorld) -> str:
    return world.org("acme")


def keys_created(log: TroubledLog) -> int:
    """How many keys were created: of several events of one revision, one is applied and the others are void."""
    return len({event["revision"] for event in events_of(log, "acme") if event["type"] == "KeyCreated"})


def test_a_repeated_create_finds_the_key_and_withholds_its_text(world: CommandWorld, admin: str, log: TroubledLog):
    first = world.call("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key="one")
    again = world.call("POST", KEYS, admin, b'{ "name" : "ci" }', Idempotency_Key="one")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.get_json() == first.get_json() | {"key": None, "key_withheld": True}
    assert again.headers["Keyledger-Revision"] == first.headers["Keyledger-Revision"]
    assert keys_created(log) == 1


def test_the_same_idempotency_key_with_another_body_is_refused(world: CommandWorld, admin: str, log: TroubledLog):
    world.done("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key="one")
    answer = world.call("POST", KEYS, admin, {"name": "cd"}, Idempotency_Key="one")
    assert (answer.status_code, check_problem(answer)["code"]) == (422, "idempotency_key_reused")
    assert keys_created(log) == 1


def test_other_callers_paths_and_credentials_do_not_clash(world: CommandWorld, admin: str):
    other = world.user("acme", "admin")[1]
    api_key = world.key("acme", admin, "by key", scopes=["keys:write"])["key"]
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        (admin, KEYS, {"name": "ci"}),
        (other, KEYS, {"name": "cd"}),
        (api_key, KEYS, {"name": "ce", "scopes": []}),
        (admin, USERS, {"kind": "person", "role": "member"}),
    ]
    for token, path, body in bodies:
        assert world.call("POST", path, token, body, Idempotency_Key="one").status_code == 201


def test_without_an_idempotency_key_the_same_request_is_another_command(world: CommandWorld, admin: str):
    made = [world.done("POST", USERS, admin, {"kind": "person", "role": "member"})["user_id"] for _ in range(2)]
    assert made[0] != made[1]


def test_a_repeat_is_answered_with_the_first_revision_and_undoes_nothing_since(world: CommandWorld, admin: str):
    path = "/v1/orgs/acme/keys-enabled"
    off = world.done("PUT", path, admin, {"enabled": False}, Idempotency_Key="off")
    world.done("PUT", path, admin, {"enabled": True})
    again = world.done("PUT", path, admin, {"enabled": False}, Idempotency_Key="off")
    assert again == off | {"effective_ms": again["effective_ms"]}
    world.key("acme", admin)


def test_what_was_so_already_is_answered_with_the_revision_that_made_it_so(world: CommandWorld, admin: str):
    key = world.key("acme", admin)
    path = f"{KEYS}/{key['key_id']}"
    revoked = world.done("DELETE", path, admin)
    world.done("POST", USERS, admin, {"kind": "person", "role": "member"})
    again = world.done("DELETE", path, admin, {"reason": "other"})
    assert again == revoked | {"effective_ms": again["effective_ms"]}
    enabled = world.done("PUT", "/v1/orgs/acme/keys-enabled", admin, {"enabled": True})
    assert enabled["revision"] == 2
    assert world.head("acme").revision == revoked["revision"] + 1


def test_a_refusal_is_not_remembered(world: CommandWorld, admin: str):
    first = world.key("acme", admin)
    assert world.call("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key="one").status_code == 409
    world.done("DELETE", f"{KEYS}/{first['key_id']}", admin)
    assert world.call("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key="one").status_code == 201


def test_who_was_disabled_since_learns_nothing_from_a_repeat(world: CommandWorld, admin: str):
    user, token = world.user("acme", "member")
    world.done("POST", KEYS, token, {"name": "ci"}, Idempotency_Key="one")
    world.done("PUT", f"{USERS}/{user}/enabled", admin, {"enabled": False})
    again = world.call("POST", KEYS, token, {"name": "ci"}, Idempotency_Key="one")
    assert (again.status_code, check_problem(again)["code"]) == (401, "caller_disabled")


def test_a_command_is_remembered_for_a_day_and_not_for_ever(world: CommandWorld, admin: str):
    body = {"kind": "person", "role": "member"}

    def add(idempotency_key: str) -> tuple[int, str]:
        answer = world.call("POST", USERS, admin, body, Idempotency_Key=idempotency_key)
        return answer.status_code, answer.get_json()["user_id"]

    status, user_id = add("one")
    assert status == 201
    world.sources.ahead_ms = DAY_MS - 60_000
    add("a-new-one")
    assert add("one") == (200, user_id)
    world.sources.ahead_ms = DAY_MS + 60_000
    add("newer-still")
    status, another = add("one")
    assert (status, another != user_id) == (201, True)


def test_an_organisation_without_a_chosen_id_gets_one_that_a_repeat_derives_again(world: CommandWorld):
    operator = world.operator()

    def register(idempotency_key: str, name: str = "Acme") -> Any:
        return world.call("POST", "/v1/orgs", operator, {"name": name}, Idempotency_Key=idempotency_key)

    first, again, other = register("one"), register("one"), register("two")
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 201)
    assert again.get_json() == first.get_json()
    assert other.get_json()["org_id"] != first.get_json()["org_id"]
    assert register("one", "Other").status_code == 422
    unnamed = [world.done("POST", "/v1/orgs", operator, {})["org_id"] for _ in range(2)]
    assert unnamed[0] != unnamed[1]


def test_twenty_at_once_at_two_command_apis_make_one_key_whose_text_is_given_once(tmp_path: Path, log: TroubledLog):
    keys = new_keys()
    with running_command_api(tmp_path / "1", log, keys) as one, running_command_api(tmp_path / "2", log, keys) as two:
        admin = one.org("acme")
        two.beside.signing = one.beside.signing

        def create(number: int) -> Any:
            world = (one, two)[number % 2]
            return world.call("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key="one")

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(create, range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.get_json()["key_id"] for answer in answers}) == 1
    assert [answer.get_json()["key"] for answer in answers].count(None) == 19


def test_after_an_unknown_outcome_the_repeat_finds_the_event_that_was_written(
    world: CommandWorld, admin: str, log: TroubledLog
):
    log.fail_once("after")
    unknown = world.call("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key="one")
    assert (unknown.status_code, check_problem(unknown)["code"]) == (503, "outcome_unknown")
    again = world.call("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key="one")
    assert (again.status_code, again.get_json()["key"]) == (200, None)
    assert keys_created(log) == 1


def test_after_an_unknown_outcome_the_repeat_writes_what_was_not_written(
    world: CommandWorld, admin: str, log: TroubledLog
):
    log.fail_once("before")
    assert world.call("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key="one").status_code == 503
    again = world.call("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key="one")
    assert (again.status_code, len(again.get_json()["key"])) == (201, 75)
    assert keys_created(log) == 1


def test_a_restart_forgets_no_command(tmp_path: Path, log: TroubledLog):
    keys = new_keys()
    with running_command_api(tmp_path, log, keys) as before:
        admin, signing = before.org("acme"), before.beside.signing
        key = before.done("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key="one")
    with running_command_api(tmp_path, log, keys) as after:
        after.beside.signing = signing
        again = after.done("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key="one")
    assert again["key_id"] == key["key_id"]
    assert keys_created(log) == 1
