"""Who may read what: every call with every kind of caller, and who is let in at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from flask import Flask

from schemas import events
from schemas.openapi import Operation
from schemas.problems import Problem
from services.ledger.memory_log import MemoryLog
from services.projector import answers
from services.projector.callers import Callers
from services.projector.database import read_pool
from tests.integration import projector_story as story
from tests.integration.projector_story import ADMIN, MEMBER, ORG, OTHER, ROBOT, Ledger, key_id
from tests.integration.read_api import Client, app_on

CALLERS = ("operator", "admin", "auditor", "member", "robot", "robot_admin", "stranger", "platform_member")
# Each call about ORG, and what each of the callers above gets; `mine` is the member's, `robots` the robot's.
ACCESS = {
    ("/v1/orgs", ""): (200, 403, 403, 403, 403, 403, 403, 403),
    ("/v1/orgs/<org>", ""): (200, 200, 200, 200, 200, 200, 404, 404),
    ("/v1/orgs/<org>/keys", ""): (200, 200, 200, 403, 403, 200, 404, 404),
    ("/v1/orgs/<org>/users", ""): (200, 200, 200, 403, 403, 200, 404, 404),
    ("/v1/orgs/<org>/history", ""): (200, 200, 200, 403, 403, 200, 404, 404),
    ("/v1/orgs/<org>/usage", ""): (200, 200, 200, 403, 403, 200, 404, 404),
    ("/v1/orgs/<org>/refused-uses", ""): (200, 200, 200, 403, 403, 200, 404, 404),
    ("/v1/orgs/<org>/quarantined-uses", ""): (200, 200, 200, 403, 403, 200, 404, 404),
    ("/v1/orgs/<org>/keys-as-of", ""): (200, 200, 200, 403, 403, 200, 404, 404),
    ("/v1/orgs/<org>/replay", ""): (200, 200, 200, 403, 403, 200, 404, 404),
    ("/v1/orgs/<org>/checkpoint", ""): (200, 200, 200, 403, 403, 200, 404, 404),
    ("/v1/orgs/<org>/bundle", ""): (409, 409, 409, 403, 403, 409, 404, 404),
    ("/v1/orgs/<org>/keys/<key>/blast-radius", "mine"): (200, 200, 200, 404, 404, 200, 404, 404),
    ("/v1/orgs/<org>/keys/<key>/blast-radius", "robots"): (200, 200, 200, 404, 404, 200, 404, 404),
    ("/v1/quarantined-uses", ""): (200, 403, 403, 403, 403, 403, 403, 403),
    ("/v1/orgs/<org>/users/<user>", "mine"): (200, 200, 200, 200, 404, 200, 404, 404),
    ("/v1/orgs/<org>/users/<user>", "robots"): (200, 200, 200, 404, 200, 200, 404, 404),
    ("/v1/orgs/<org>/users/<user>/keys", "mine"): (200, 200, 200, 200, 404, 200, 404, 404),
    ("/v1/orgs/<org>/users/<user>/keys", "robots"): (200, 200, 200, 404, 200, 200, 404, 404),
    ("/v1/orgs/<org>/users/<user>/usage", "mine"): (200, 200, 200, 200, 404, 200, 404, 404),
    ("/v1/orgs/<org>/users/<user>/usage", "robots"): (200, 200, 200, 404, 200, 200, 404, 404),
    ("/v1/orgs/<org>/users/<user>/refused-uses", "mine"): (200, 200, 200, 200, 404, 200, 404, 404),
    ("/v1/orgs/<org>/users/<user>/refused-uses", "robots"): (200, 200, 200, 404, 200, 200, 404, 404),
    ("/v1/orgs/<org>/keys/<key>", "mine"): (200, 200, 200, 200, 404, 200, 404, 404),
    ("/v1/orgs/<org>/keys/<key>", "robots"): (200, 200, 200, 404, 200, 200, 404, 404),
    ("/v1/orgs/<org>/keys/<key>/history", "mine"): (200, 200, 200, 200, 404, 200, 404, 404),
    ("/v1/orgs/<org>/keys/<key>/history", "robots"): (200, 200, 200, 404, 200, 200, 404, 404),
    ("/v1/orgs/<org>/keys/<key>/usage", "mine"): (200, 200, 200, 200, 404, 200, 404, 404),
    ("/v1/orgs/<org>/keys/<key>/usage", "robots"): (200, 200, 200, 404, 200, 200, 404, 404),
    ("/v1/orgs/<org>/keys/<key>/refused-uses", "mine"): (200, 200, 200, 200, 404, 200, 404, 404),
    ("/v1/orgs/<org>/keys/<key>/refused-uses", "robots"): (200, 200, 200, 404, 200, 200, 404, 404),
    ("/v1/me", ""): (200, 200, 200, 200, 200, 200, 200, 200),
}
OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json"}
TARGETS = {"": ("", ""), "mine": (MEMBER, key_id(1)), "robots": (ROBOT, key_id(4))}


def path_of(rule: str, org: str, user: str, key: str) -> str:
    return rule.replace("<org>", org).replace("<user>", user).replace("<key>", key)


@pytest.fixture
def app(database: str, tmp_path: Path) -> Iterator[Flask]:
    log = MemoryLog()
    Ledger(log, "platform").write(events.OrgRegistered(), events.UserAdded("user_operator", "person", "admin"))
    story.tell_story(log)
    story.projected(database, log).close()
    with read_pool(database, 4) as pool:
        yield app_on(pool, tmp_path)


@pytest.fixture
def client(app: Flask) -> Client:
    return Client(app)


def test_each_caller_gets_from_each_call_what_the_table_says(client: Client) -> None:
    for (rule, target), expected in ACCESS.items():
        path = path_of(rule, ORG, *TARGETS[target])
        found = tuple(client.get(path, caller).status_code for caller in CALLERS)
        assert found == expected, path


def test_every_route_has_a_row_in_the_table_and_a_place_in_the_document(app: Flask) -> None:
    rules = {str(rule) for rule in app.url_map.iter_rules()}
    assert rules == {rule for rule, _ in ACCESS} | OPEN
    documented = {operation.path.replace("{", "<").replace("}", ">") for operation in answers.OPERATIONS}
    assert documented == rules - OPEN
    assert all(isinstance(operation, Operation) and operation.secured for operation in answers.OPERATIONS)


def test_what_is_absent_or_elsewhere_or_of_another_shape_is_a_404(client: Client) -> None:
    strange = ("nobody", "a" * 65, "%00", "..%2F", "%F0%9F%94%91", "'--")
    for rule in [rule for rule, target in ACCESS if target == "mine"]:
        paths = [path_of(rule, org, org, org) for org in strange] + [path_of(rule, OTHER, MEMBER, key_id(1))]
        paths += [path_of(rule, ORG, id_, id_) for id_ in strange]
        for path in paths:
            answer = client.get(path, "admin")
            assert (answer.status_code, answer.content_type) == (404, "application/problem+json"), path
        for path in paths[len(strange) + 1 :]:
            assert client.get(path, "operator").status_code == 404


REFUSED: tuple[tuple[str | None, int, str], ...] = (
    (None, 401, "unauthenticated"),
    ("nonsense", 401, "not_found"),
    ("revoked", 401, "revoked"),
    ("elsewhere", 403, "ip_not_allowed"),
    ("stale", 503, "stale"),
    ("away", 503, "checker_unavailable"),
    ("robot_without_scope", 403, "insufficient_scope"),
    ("robot_unrestricted", 403, "insufficient_scope"),
    ("x" * 9000, 401, "unauthenticated"),
)


def test_who_is_not_let_in_is_told_why(client: Client) -> None:
    for caller, status, code in REFUSED:
        for rule, target in ACCESS:
            answer = client.get(path_of(rule, ORG, *TARGETS[target]), caller)
            assert (answer.status_code, answer.json["code"]) == (status, code)
            assert answer.headers["Cache-Control"] == "no-store"
            assert ("WWW-Authenticate" in answer.headers) == (status == 401)
            assert ("Retry-After" in answer.headers) == (status == 503)


def test_a_caller_whose_organisation_is_not_here_yet_finds_nothing(client: Client) -> None:
    assert client.get("/v1/me", "late").status_code == 404


def test_a_checker_that_is_away_is_a_503() -> None:
    callers = Callers("http://127.0.0.1:1", "token", urllib3.PoolManager())
    with pytest.raises(Problem) as refused:
        callers.identify("Bearer abc", "192.0.2.1", "test")
    assert (refused.value.status, refused.value.code) == (503, "checker_unavailable")


def test_other_methods_and_paths_are_problems(client: Client, app: Flask) -> None:
    assert app.test_client().post("/v1/orgs").status_code == 405
    answer = client.get("/v1/nothing")
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    assert client.get("/openapi.json", None).json["openapi"] == "3.1.0"


def test_without_postgresql_a_read_is_a_503(app: Flask, tmp_path: Path) -> None:
    with read_pool("postgresql://nobody@127.0.0.1:1/none", 2) as pool:
        pool.timeout = 0.2
        answer = Client(app_on(pool, tmp_path)).get(f"/v1/orgs/{ORG}")
    assert (answer.status_code, answer.json["code"]) == (503, "database_unavailable")
    assert ADMIN not in answer.text
