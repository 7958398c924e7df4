"""Who may call what: every route of the command API with every kind of caller, in one table."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.command_log import events_of
from tests.integration.command_parts import CommandWorld, check_problem, running_command_api

ROLES = [
    "operator",
    "admin",
    "member",
    "auditor",
    "disabled",
    "stranger",
    "platform_member",
    "key_write",
    "key_read",
    "key_usage",
    "bootstrap",
    "none",
]
# The usual rows: operators and admins may, also by API key; strangers and disabled users are nobody here.
_ADMINS = [200, 200, 403, 403, 401, 404, 404, 200, 403, 403, 404, 401]
_OPERATORS = [409, 403, 403, 403, 401, 404, 404, 403, 403, 403, 404, 401]
USER = "/v1/orgs/<org>/users/<user>"
KEY = "/v1/orgs/<org>/keys/<key>"
Row = tuple[str, str, Any, list[int]]
TABLE: list[Row] = [
    ("POST", "/v1/orgs", {"org_id": "new"}, [201, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 401]),
    ("PUT", "/v1/orgs/<org>/keys-enabled", {"enabled": False}, _ADMINS),
    ("POST", "/v1/orgs/<org>/resume", {"offsets": [1], "reason": "seen"}, _OPERATORS),
    (
        "POST",
        "/v1/orgs/<org>/users",
        {"kind": "person", "role": "member"},
        [201 if status == 200 else status for status in _ADMINS],
    ),
    ("PUT", f"{USER}/role", {"role": "auditor"}, _ADMINS),
    ("PUT", f"{USER}/enabled", {"enabled": False}, _ADMINS),
    ("DELETE", USER, {}, _ADMINS),
    (
        "POST",
        "/v1/orgs/<org>/keys",
        {"name": "fresh", "scopes": []},
        [403, 201, 201, 403, 401, 404, 404, 201, 403, 403, 404, 401],
    ),
    ("PATCH", KEY, {"name": "new"}, [403, 200, 200, 403, 401, 404, 404, 200, 403, 403, 404, 401]),
    ("DELETE", KEY, {}, [200, 200, 200, 403, 401, 404, 404, 200, 403, 403, 404, 401]),
    ("GET", "/v1/orgs/<org>/effects/<revision>", None, [200, 200, 200, 403, 401, 404, 404, 200, 403, 403, 404, 401]),
    ("POST", "/v1/usage", "a use", [403, 403, 403, 403, 403, 403, 403, 403, 403, 202, 403, 401]),
]
OPEN = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/openapi.json")}


class Cast:
    """An organisation in which everybody of ROLES exists; `robot` is a user to act upon, `key` a key of the member."""

    def __init__(self, world: CommandWorld) -> None:
        self.world = world
        admin, stranger = world.org("acme"), world.org("other")
        member, disabled = world.user("acme", "member")[1], world.user("acme", "admin")
        world.done("PUT", f"/v1/orgs/acme/users/{disabled[0]}/enabled", admin, {"enabled": False})
        self.robot = world.user("acme", "member", "service_account")[0]
        self.key = world.key("acme", member, "old")["key_id"]
        self.tokens: dict[str, str | None] = {
            "operator": world.operator(),
            "admin": admin,
            "member": member,
            "auditor": world.user("acme", "auditor")[1],
            "disabled": disabled[1],
            "stranger": stranger,
            "platform_member": world.user("platform", "member")[1],
            "bootstrap": world.token("platform", "bootstrap"),
            "none": None,
        }
        for scope in ("write", "read"):
            self.tokens[f"key_{scope}"] = world.key("acme", admin, scope, scopes=[f"keys:{scope}"])["key"]
        self.tokens["key_usage"] = world.key("acme", admin, "usage", scopes=["usage:write"])["key"]

    def path(self, rule: str, org: str = "acme") -> str:
        ids = {"<org>": org, "<user>": self.robot, "<key>": self.key, "<revision>": "1"}
        return functools.reduce(lambda path, name: path.replace(name, ids[name]), ids, rule)

    def body(self, body: Any) -> Any:
        use = {"id": "u", "key_id": self.key, "outcome": "VALID", "at": "2026-01-01T00:00:00Z"}
        return [use] if body == "a use" else body


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandWorld]:
    with running_command_api(tmp_path_factory.mktemp("command-api")) as world:
        yield world


@pytest.fixture
def cast(tmp_path: Path) -> Iterator[Cast]:
    with running_command_api(tmp_path) as world:
        yield Cast(world)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} {row[1]}")
def test_each_role_is_answered_as_the_table_says(row: Row, tmp_path: Path):
    method, rule, body, expected = row
    answered = []
    with ExitStack() as worlds:
        cast: Cast | None = None
        for role in ROLES:
            cast = cast or Cast(worlds.enter_context(running_command_api(tmp_path / role)))
            answer = cast.world.call(method, cast.path(rule), cast.tokens[role], cast.body(body))
            answered.append(answer.status_code)
            if answer.status_code >= 400:
                check_problem(answer)
            else:
                cast = None  # What was done must not help or harm who comes next.
    assert dict(zip(ROLES, answered, strict=True)) == dict(zip(ROLES, expected, strict=True))


def test_every_route_has_a_row(crowd: CommandWorld):
    routes = {(method, rule.rule) for rule in crowd.app.url_map.iter_rules() for method in rule.methods or ()}
    routes = {(method, rule) for method, rule in routes if method != "HEAD"}
    assert routes == {(method, rule) for method, rule, *_ in TABLE} | OPEN


@pytest.mark.parametrize("path", sorted(path for _, path in OPEN))
def test_the_open_routes_ask_for_no_token(path: str, crowd: CommandWorld):
    assert crowd.call("GET", path, None).status_code == 200


@pytest.mark.parametrize("row", [row for row in TABLE if "<org>" in row[1]], ids=lambda row: f"{row[0]} {row[1]}")
def test_an_admin_reaches_nothing_of_another_organisation_by_any_path(row: Row, cast: Cast):
    method, rule, body, _ = row
    world, eve, before = cast.world, cast.tokens["stranger"], cast.world.head("acme")
    across = [cast.path(rule)]
    if "<user>" in rule or "<key>" in rule:
        across.append(cast.path(rule, "other"))
    for path in [*across, cast.path(rule, "no-such-org")]:
        answer = world.call(method, path, eve, body)
        assert answer.status_code == 404
        assert check_problem(answer)["code"] == "not_found"
    assert world.head("acme") == before


def test_an_admin_reaches_nothing_of_another_organisation_by_any_body(cast: Cast):
    world, eve, before = cast.world, cast.tokens["stranger"], cast.world.head("acme")
    by_owner = world.call("POST", "/v1/orgs/other/keys", eve, {"name": "x", "user_id": cast.robot})
    assert by_owner.status_code == 404
    assert world.call("POST", "/v1/orgs", eve, {"org_id": "acme"}).status_code == 403
    reporter = world.key("other", eve or "", "reporter", scopes=["usage:write"])["key"]
    answer = world.call("POST", "/v1/usage", reporter, cast.body("a use"))
    assert answer.status_code == 400
    assert check_problem(answer)["errors"][0]["pointer"] == "/0/key_id"
    assert world.head("acme") == before


def test_an_operator_acts_in_another_organisation_and_the_event_says_at_which_revision_that_was_read(cast: Cast):
    world = cast.world
    world.done("DELETE", cast.path(KEY), cast.tokens["operator"], {})
    event = last_event(world, "acme")
    assert event["authtype"] == "operator"
    assert event["authid"] == world.operator_id
    assert event["authrevision"] == world.head("platform").revision
    assert event["data"]["reason"] == "operator"


def test_the_event_says_which_key_or_account_was_the_credential(cast: Cast):
    world = cast.world
    world.done("PATCH", cast.path(KEY), cast.tokens["key_write"], {"name": "by key"})
    assert last_event(world, "acme")["authtype"] == "api_key"
    assert len(last_event(world, "acme")["authkey"]) == 22
    world.done("POST", "/v1/orgs/acme/keys", world.token("acme", cast.robot), {"name": "own"})
    assert last_event(world, "acme")["authtype"] == "service_account"


def last_event(world: CommandWorld, org: str) -> dict[str, Any]:
    """The newest event of an organisation, as it stands in the log."""
    return events_of(world.log, org)[-1]
