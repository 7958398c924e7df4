"""Each role × call of the console in one table, compared with the app's url_map."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.console import bodies
from tests.integration.console_parts import PASSWORD, World, running_console

ADD = {"name": "New", "kind": "service_account", "role": "member"}
WHO = ["nobody", "garbage", "member", "auditor", "admin", "operator", "other admin", "key", "writing key", "new person"]
# Per call: a body that is good, and the status for each of WHO, in that order.
TABLE: dict[tuple[str, str], tuple[dict[str, Any], list[int]]] = {
    ("POST", "/v1/sessions"): (
        {"email": "member@example.org", "password": PASSWORD},
        [201, 201, 201, 201, 201, 201, 201, 201, 201, 201],
    ),
    ("POST", "/v1/orgs/<org>/users"): (ADD, [401, 401, 403, 403, 201, 201, 404, 403, 201, 403]),
    ("DELETE", "/v1/orgs/<org>/users/<user>"): ({}, [401, 401, 403, 403, 200, 200, 404, 403, 200, 403]),
    ("POST", "/v1/orgs/<org>/users/<user>/password-reset"): ({}, [401, 401, 403, 403, 200, 200, 404, 403, 403, 403]),
    ("GET", "/v1/orgs/<org>/sign-in"): ({}, [401, 401, 403, 403, 200, 200, 404, 403, 200, 403]),
    ("PUT", "/v1/orgs/<org>/sign-in"): ({"sso_only": False}, [401, 401, 403, 403, 200, 200, 404, 403, 200, 403]),
    ("PATCH", "/v1/me"): ({"name": "Other"}, [401, 401, 200, 200, 200, 200, 200, 403, 403, 403]),
    ("POST", "/v1/me/password"): (
        {"old": PASSWORD, "new": "another good one"},
        [401, 401, 200, 200, 200, 200, 200, 403, 403, 200],
    ),
    ("GET", "/.well-known/jwks.json"): ({}, [200] * 10),
    ("GET", "/healthz"): ({}, [200] * 10),
    ("GET", "/readyz"): ({}, [200] * 10),
    ("GET", "/metrics"): ({}, [200] * 10),
    ("GET", "/openapi.json"): ({}, [200] * 10),
}
UNDOCUMENTED = {"/healthz", "/readyz", "/metrics", "/openapi.json"}


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        made.person("acme", "member")
        made.person("acme", "auditor", "auditor")
        made.person("acme", "admin", "admin")
        made.person("acme", "target")
        made.person("acme", "newcomer", "admin", must_change=True)
        made.person("other", "stranger", "admin")
        made.person("platform", "operator", "admin")
        made.ledger.api_keys = {
            "kl_reads": ("acme", "admin", ["keys:read"]),
            "kl_writes": ("acme", "admin", ["keys:write"]),
        }
        yield made


WITHOUT_SIGN_IN = {"nobody": None, "garbage": "a.b.c", "key": "kl_reads", "writing key": "kl_writes"}
SIGN_IN_AS = {"other admin": "stranger", "new person": "newcomer"}


def token_of(world: World, who: str) -> str | None:
    return WITHOUT_SIGN_IN[who] if who in WITHOUT_SIGN_IN else world.token(SIGN_IN_AS.get(who, who))


@pytest.mark.parametrize("column", range(len(WHO)), ids=WHO)
def test_a_role_may_call_what_the_table_says_and_nothing_else(world: World, column: int) -> None:
    wrong = {}
    for (method, rule), (body, statuses) in TABLE.items():
        token = token_of(world, WHO[column])
        path = rule.replace("<org>", "acme").replace("<user>", "target")
        if rule.endswith("password-reset"):
            world.ledger.orgs["acme"]["target"].active = True
            if world.console.people.get("acme", "target") is None:  # The call before this one erased it.
                world.person("acme", "target")
        answer = world.call(method, path, token, None if method == "GET" else body)
        if answer.status_code != statuses[column]:
            wrong[method, rule] = (answer.status_code, statuses[column], answer.get_data(as_text=True))
        if answer.status_code >= 400:
            assert answer.content_type == "application/problem+json"
            assert answer.get_json()["code"]
        if rule == "/v1/me/password" and answer.status_code == 200:
            # The calls after this one in the table sign in again with the usual password.
            world.call(method, path, token, {"old": body["new"], "new": PASSWORD})
    assert wrong == {}


def test_the_table_has_every_route_and_the_document_every_call(world: World) -> None:
    rules = {
        (method, rule.rule)
        for rule in world.client.application.url_map.iter_rules()
        if rule.endpoint.startswith("console.")  # The others are pages.
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert rules == set(TABLE)
    documented = {(one.method, one.path.replace("{", "<").replace("}", ">")) for one in bodies.OPERATIONS}
    assert documented == {row for row in TABLE if row[1] not in UNDOCUMENTED}


@pytest.mark.parametrize("path", ["/v1/orgs/acme/users/target", "/v1/orgs/acme/users/target/password-reset"])
def test_another_organisations_admin_sees_nothing_there(world: World, path: str) -> None:
    """What exists in another organisation and what exists nowhere get the same answer."""
    method = "POST" if path.endswith("reset") else "DELETE"
    token = world.token("stranger")
    answers = [world.call(method, path.replace("acme", org), token) for org in ("acme", "nowhere", "not%20an%20id")]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert len({answer.data for answer in answers}) == 1
    assert world.console.people.get("acme", "target") is not None


def test_an_id_of_another_organisation_under_ones_own_is_not_found(world: World) -> None:
    """The path names the admin's own organisation, the user belongs to another one."""
    token = world.token("stranger")
    for method, end in (("POST", "/password-reset"), ("DELETE", "")):
        assert world.call(method, f"/v1/orgs/other/users/target{end}", token).status_code == 404
    assert world.sign_in("target@example.org").status_code == 201
