"""What the command API takes for a field, and what it refuses: always a problem with a code and pointers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import TestResponse

from services.command_api.operations import CALLS
from tests.integration.command_parts import CommandWorld, check_problem, running_command_api

KEYS = "/v1/orgs/acme/keys"
FREE_TEXT = [
    "a\x00b",
    "a\tb",
    "a\t",
    "a\x1f",
    "a\x7fb",
    "\u202eevil",
    "a\u200fb",
    "a\u2066b",
    "line\u2028break",
    "",
    "  ",
    5,
    True,
    ["a"],
]
# Bodies that no call takes, with what is said about them.
ROTTEN: dict[str, tuple[bytes, int, str]] = {
    "20,000 open brackets": (b"[" * 20_000, 400, "malformed"),
    "20,000 brackets, closed": (b"[" * 20_000 + b"]" * 20_000, 400, "malformed"),
    "deep objects": (b'{"a":' * 40 + b"1" + b"}" * 40, 400, "malformed"),
    "a lone surrogate": (b'{"name": "\\ud800"}', 400, "malformed"),
    "a lone surrogate as a name": (b'{"\\udfff": 1}', 400, "malformed"),
    "a name twice": (b'{"enabled": true, "enabled": false}', 400, "malformed"),
    "not a number": (b'{"enabled": NaN}', 400, "malformed"),
    "no UTF-8": (b'{"name": "\xff"}', 400, "malformed"),
    "UTF-16": ('{"name": "x"}'.encode("utf-16"), 400, "malformed"),
    "half a document": (b'{"name": ', 400, "malformed"),
    "two documents": (b"{} {}", 400, "malformed"),
    "null": (b"null", 400, "malformed"),
    "a text": (b'"x"', 400, "malformed"),
    "a float": (b"1.5", 400, "malformed"),
    "an unknown field": (b'{"surprise": 1}', 400, "malformed"),
    "an endless number": (b'{"offsets": [' + b"9" * 5000 + b"]}", 400, "malformed"),
    "1 MB and a byte": (b'"' + b"x" * (1024 * 1024 - 1) + b'"', 413, "too_large"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandWorld]:
    with running_command_api(tmp_path_factory.mktemp("command-api")) as running:
        running.org("acme")
        yield running


@pytest.fixture(scope="module")
def account(world: CommandWorld) -> str:
    """The id of a service account."""
    return world.user("acme", "member", "service_account")[0]


@pytest.fixture
def admin(world: CommandWorld) -> str:
    """A token of an admin who has no keys yet."""
    return world.user("acme", "admin")[1]


def check_refused(answer: TestResponse, pointer: str) -> None:
    """It is a 400 that points at the culprit."""
    assert answer.status_code == 400, answer.get_data(as_text=True)
    problem = check_problem(answer)
    assert problem["code"] == "malformed"
    assert {error["pointer"] for error in problem["errors"]} == {pointer}


@pytest.mark.parametrize("name", ROTTEN)
def test_a_rotten_body_is_a_problem_at_every_call(name: str, world: CommandWorld, admin: str, account: str):
    raw, status, code = ROTTEN[name]
    member = world.key("acme", admin, scopes=["usage:write"])
    for call in (call for call in CALLS.values() if call.body is not None):
        path = call.path.format(org="acme", user=account, key=member["key_id"])
        token = member["key"] if path == "/v1/usage" else admin if "{org}" in call.path else world.operator()
        answer = world.call(call.method, path, token, raw)
        assert (answer.status_code, check_problem(answer)["code"]) == (status, code), call.path


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
def test_another_media_type_is_refused(media_type: str, world: CommandWorld, admin: str):
    answer = world.call("POST", KEYS, admin, {"name": "ci"}, Content_Type=media_type)
    assert (answer.status_code, check_problem(answer)["code"]) == (415, "unsupported_media_type")


def test_a_charset_beside_the_media_type_is_fine(world: CommandWorld, admin: str):
    answer = world.call("POST", KEYS, admin, {"name": "ci"}, Content_Type="application/json; charset=utf-8")
    assert answer.status_code == 201


def test_an_empty_body_is_an_empty_object(world: CommandWorld, admin: str):
    check_refused(world.call("POST", KEYS, admin), "/name")
    key = world.key("acme", admin)
    assert world.call("DELETE", f"{KEYS}/{key['key_id']}", admin).status_code == 200


@pytest.mark.parametrize("text", [*FREE_TEXT, "x" * 101, None], ids=ascii)
def test_a_bad_name_is_refused_where_a_key_is_made_or_renamed(text: Any, world: CommandWorld, admin: str):
    check_refused(world.call("POST", KEYS, admin, {"name": text}), "/name")
    key = world.key("acme", admin)
    check_refused(world.call("PATCH", f"{KEYS}/{key['key_id']}", admin, {"name": text}), "/name")


@pytest.mark.parametrize("text", [*FREE_TEXT, "x" * 501], ids=ascii)
def test_bad_free_text_is_refused_wherever_it_is_taken(text: Any, world: CommandWorld, admin: str):
    key, operator = world.key("acme", admin), world.operator()
    check_refused(world.call("DELETE", f"{KEYS}/{key['key_id']}", admin, {"comment": text}), "/comment")
    body: dict[str, Any] = {"enabled": True, "reason": text}
    check_refused(world.call("PUT", "/v1/orgs/acme/keys-enabled", admin, body), "/reason")
    check_refused(world.call("POST", "/v1/orgs/acme/resume", operator, {"offsets": [1], "reason": text}), "/reason")
    check_refused(world.call("POST", "/v1/orgs", operator, {"name": text}), "/name")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (" \u3000trimmed\u00a0", "trimmed"),
        ("Cafe\u0301", "Café"),
        ("x" * 100, "x" * 100),
        ("e\u0301" * 100, "é" * 100),
        ("🔑" * 100, "🔑" * 100),
        ("مفتاح", "مفتاح"),
    ],
)
def test_a_name_is_normalised_and_trimmed(given: str, kept: str, world: CommandWorld, admin: str):
    assert world.key("acme", admin, given)["name"] == kept
    answer = world.call("POST", KEYS, admin, {"name": kept})
    assert (answer.status_code, check_problem(answer)["code"]) == (409, "name_taken")


@pytest.mark.parametrize("org", ["", "a b", "x" * 65, "é", "a%00b", "a%2Fb", "..", "a.b", "%ff", "acme%0a"])
def test_an_org_id_of_another_shape_is_not_found(org: str, world: CommandWorld, admin: str):
    answer = world.call("POST", f"/v1/orgs/{org}/keys", admin, {"name": "ci"})
    assert (answer.status_code, check_problem(answer)["code"]) == (404, "not_found")


@pytest.mark.parametrize("key", ["x" * 21, "x" * 23, "-" * 22, "é" * 22, "x" * 21 + "%0a", "%00" * 22])
def test_a_key_or_user_id_of_another_shape_is_not_found(key: str, world: CommandWorld, admin: str):
    assert check_problem(world.call("DELETE", f"{KEYS}/{key}", admin))["code"] == "not_found"
    path = f"/v1/orgs/acme/users/{key}.{'x' * 64}/role"
    assert check_problem(world.call("PUT", path, admin, {"role": "admin"}))["code"] == "not_found"


@pytest.mark.parametrize("org_id", ["", "a b", "x" * 65, "é", "acme\n", 5, True, ["a"]])
def test_an_operator_chooses_only_a_well_formed_org_id(org_id: Any, world: CommandWorld):
    check_refused(world.call("POST", "/v1/orgs", world.operator(), {"org_id": org_id}), "/org_id")


@pytest.mark.parametrize("given", ["", "a b", "x" * 256, "é", "tab\tbed"])
def test_a_bad_idempotency_key_is_refused(given: str, world: CommandWorld, admin: str):
    answer = world.call("POST", KEYS, admin, {"name": "ci"}, Idempotency_Key=given)
    assert (answer.status_code, check_problem(answer)["code"]) == (400, "malformed")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2090-01-01T00:00:00Z", "2090-01-01T00:00:00.000Z"),
        ("2090-01-01T01:30:00.5+05:30", "2089-12-31T20:00:00.500Z"),
        ("2090-01-01t00:00:00.123456789z", "2090-01-01T00:00:00.123Z"),
    ],
)
def test_expires_at_is_taken_with_any_offset_and_answered_in_utc(
    given: str, kept: str, world: CommandWorld, admin: str
):
    assert world.key("acme", admin, expires_at=given)["expires_at"] == kept


@pytest.mark.parametrize(
    "given",
    [
        "2020-01-01T00:00:00Z",
        "1999-12-31T00:00:00Z",
        "2090-02-30T00:00:00Z",
        "2090-01-01T00:00:60Z",
        "2090-01-01T00:00:00+25:00",
        "9999-12-31T23:59:59-01:00",
        "2090-01-01T00:00:00",
        "2090-01-01",
        "tomorrow",
        4102444800,
        2.5,
    ],
)
def test_an_expiry_that_is_past_or_no_time_is_refused(given: Any, world: CommandWorld, admin: str):
    check_refused(world.call("POST", KEYS, admin, {"name": "ci", "expires_at": given}), "/expires_at")


def test_networks_are_answered_as_networks(world: CommandWorld, admin: str):
    given = ["192.0.2.1", "198.51.100.0/24", "2001:DB8::/32", "::1"]
    kept = ["192.0.2.1/32", "198.51.100.0/24", "2001:db8::/32", "::1/128"]
    assert world.key("acme", admin, cidrs=given)["cidrs"] == kept
    assert world.key("acme", admin, "none", cidrs=[])["cidrs"] == []


@pytest.mark.parametrize("given", ["192.0.2.1/24", "192.0.2.0/33", "fe80::1%eth0", "example.org", "", 5, None])
def test_what_is_no_network_is_refused(given: Any, world: CommandWorld, admin: str):
    check_refused(world.call("POST", KEYS, admin, {"name": "ci", "cidrs": ["::1", given]}), "/cidrs/1")


@pytest.mark.parametrize("given", ["Upper", "a b", "", "x" * 65, "é", 5, None])
def test_what_is_no_scope_is_refused(given: Any, world: CommandWorld, admin: str):
    check_refused(world.call("POST", KEYS, admin, {"name": "ci", "scopes": ["ok", given]}), "/scopes/1")


@pytest.mark.parametrize("field", ["scopes", "cidrs"])
def test_a_list_has_at_most_fifty_entries(field: str, world: CommandWorld, admin: str):
    entry = {"scopes": "s", "cidrs": "::1"}[field]
    check_refused(world.call("POST", KEYS, admin, {"name": "ci", field: [entry] * 51}), f"/{field}")
    check_refused(world.call("POST", KEYS, admin, {"name": "ci", field: entry}), f"/{field}")
    most: dict[str, Any] = {field: [entry] * 50}
    assert len(world.key("acme", admin, **most)[field]) == 50


def test_null_is_the_same_as_absent_where_a_field_is_optional(world: CommandWorld, admin: str):
    absent: dict[str, Any] = {"user_id": None, "expires_at": None, "scopes": None, "cidrs": None}
    key = world.key("acme", admin, **absent)
    assert (key["expires_at"], key["scopes"], key["cidrs"]) == (None, None, None)


@pytest.mark.parametrize("value", [1, 0, "true", 1.0, None, []])
def test_a_flag_is_true_or_false_and_nothing_else(value: Any, world: CommandWorld, admin: str):
    check_refused(world.call("PUT", "/v1/orgs/acme/keys-enabled", admin, {"enabled": value}), "/enabled")


@pytest.mark.parametrize("value", [1.0, -1, 2**53, "1", True, None])
def test_an_offset_is_a_whole_number(value: Any, world: CommandWorld):
    body = {"offsets": [value], "reason": "seen"}
    check_refused(world.call("POST", "/v1/orgs/acme/resume", world.operator(), body), "/offsets/0")


@pytest.mark.parametrize("role", ["owner", "ADMIN", "", None, 1])
def test_an_unknown_role_is_refused(role: Any, world: CommandWorld, admin: str, account: str):
    check_refused(world.call("POST", "/v1/orgs/acme/users", admin, {"kind": "person", "role": role}), "/role")
    path = f"/v1/orgs/acme/users/{account}/role"
    check_refused(world.call("PUT", path, admin, {"role": role}), "/role")


def test_every_error_of_a_body_is_pointed_at(world: CommandWorld, admin: str):
    body = {"name": "", "scopes": ["OK"], "a/b~c": 1}
    problem = check_problem(world.call("POST", KEYS, admin, body))
    assert {error["pointer"] for error in problem["errors"]} == {"/name", "/scopes/0", "/a~1b~0c"}


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS", "TRACE"])
def test_a_method_that_a_path_does_not_have_is_a_problem_that_names_those_it_has(method: str, world: CommandWorld):
    answer = world.call(method, KEYS, None)
    assert (answer.status_code, check_problem(answer)["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"


def test_an_answer_has_the_shape_of_the_contract(world: CommandWorld, admin: str):
    answer = world.call("POST", KEYS, admin, {"name": "ci", "scopes": ["a"]})
    key = json.loads(answer.data)
    names = "key_id org_id user_id name last4 scopes cidrs created_at expires_at revoked_at key revision"
    assert list(key) == names.split()
    assert len(key["key"]) == 75
    assert key["key"].startswith(f"kl_{key['key_id']}_")
    assert key["last4"] == key["key"][-4:]
    assert answer.headers["Keyledger-Revision"] == f"acme:{key['revision']}"
    assert answer.headers["Cache-Control"] == "no-store"
    renamed = world.done("PATCH", f"{KEYS}/{key['key_id']}", admin, {"name": "cd"})
    assert (renamed["name"], renamed["revision"] > key["revision"], "key" in renamed) == ("cd", True, False)
