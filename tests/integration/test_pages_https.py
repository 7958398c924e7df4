"""What a console behind https tells browsers: a cookie that nobody else can set, and never to come by plain http again."""

from collections.abc import Iterator
from dataclasses import replace
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from schemas.times import wall_clock_ms
from services.console.app import create_app
from services.console.sessions import form_token
from services.console.worker import build
from tests.integration.console_parts import PASSWORD, QUICK, World, running_console
from tests.integration.page_parts import KEY, ORG, browser, listed, seen
from tests.integration.page_parts import answer as answered

NAME = "__Host-keyledger"
SIGN_IN = "/sign-in"


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        yield made


@pytest.fixture
def client(world: World) -> Iterator[FlaskClient]:
    """The same console, with an https address that people use."""
    console, _ = build(replace(world.config, public_url="https://keys.example.org"), QUICK, wall_clock_ms)
    console.readiness.reason = None
    try:
        yield create_app(console).test_client()
    finally:
        console.pool.close()


def cookie_of(client: FlaskClient) -> str:
    cookie = client.get_cookie(NAME)
    assert cookie is not None
    return cookie.value


def test_the_cookie_is_one_that_only_this_console_can_set_and_only_https_carries(
    world: World, client: FlaskClient
) -> None:
    world.person("demo", "member")
    (sent,) = client.get(SIGN_IN, base_url="https://localhost").headers.getlist("Set-Cookie")
    form = {"csrf": form_token(cookie_of(client)), "email": "member@example.org", "password": PASSWORD}
    (signed_in,) = client.post(SIGN_IN, data=form, base_url="https://localhost").headers.getlist("Set-Cookie")
    for header in (sent, signed_in):
        [(name, cookie)] = SimpleCookie(header).items()
        assert name == NAME
        assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Lax")
        assert (cookie["path"], cookie["domain"]) == ("/", "")
    assert sent.split(";")[0] != signed_in.split(";")[0]


def test_browsers_are_told_to_come_by_https_only(world: World, client: FlaskClient) -> None:
    assert client.get(SIGN_IN).headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in world.client.get(SIGN_IN).headers


def test_a_session_under_the_name_for_plain_http_is_not_taken(world: World, client: FlaskClient) -> None:
    person = world.person("demo", "member")
    cookie = world.console.sessions.begin("demo", "member", person.added_revision)
    client.set_cookie("keyledger", cookie)
    refused = client.get("/account")
    assert (refused.status_code, refused.headers["Location"]) == (303, "/sign-in?next=%2Faccount")
    client.delete_cookie("keyledger")
    client.set_cookie(NAME, cookie, secure=True, httponly=True)
    answered(world, "GET", "/v1/me", {"org_id": "demo", "role": "member", "name": "M", "email": "m@x.org", "org": ORG})
    answered(world, "GET", "/v1/orgs/demo/users/member/keys", listed())
    assert client.get("/account", base_url="https://localhost").status_code == 200


def test_pages_that_show_a_key_or_a_password_are_kept_nowhere(world: World) -> None:
    admin = browser(world, "admin", "admin")
    answered(world, "GET", "/v1/orgs/demo/users/admin/keys", listed(KEY))
    answered(world, "POST", "/v1/orgs/demo/keys", KEY | {"key": "kl_secret", "revision": 10}, 201)
    key = admin.post("/account/keys", name="nightly import")
    assert "kl_secret" in seen(key)
    person = {"kind": "person", "name": "Ada", "email": "ada@example.org", "role": "member"}
    password = admin.post("/orgs/demo/users/new", **person)
    assert "Temporary password" in seen(password)
    for page in (key, password):
        assert (page.status_code, page.headers["Cache-Control"]) == (201, "no-store")
