"""Browsers without a screen: Flask's test client with a session, on a console whose APIs answer as a test says."""

import re
import secrets
from dataclasses import dataclass
from html import unescape
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from services.console.app import create_app
from services.console.sessions import form_token
from tests.integration.console_parts import World

ORG = {
    "org_id": "demo",
    "name": "Demo",
    "keys_enabled": True,
    "revision": 9,
    "registered_at": "2026-11-01T00:00:00.000Z",
    "halted": None,
    "active_keys": 17,
    "key_owners": 6,
    "users": 8,
    "never_used": 2,
    "last_activity_at": None,
}
KEY = {
    "key_id": "0000000000000000000001",
    "org_id": "demo",
    "user_id": "member",
    "name": "nightly import",
    "last4": "abcd",
    "scopes": None,
    "cidrs": None,
    "created_at": "2026-11-20T10:00:00.000Z",
    "expires_at": None,
    "revoked_at": None,
    "revision": 5,
    "last_used_at": None,
    "last_used_ip": None,
    "last_used_user_agent": None,
    "last_used_source": None,
    "owner_name": "Member",
}
USER = {
    "user_id": "member",
    "org_id": "demo",
    "kind": "person",
    "role": "member",
    "status": "active",
    "name": "Member",
    "email": "member@example.org",
    "revision": 2,
    "created_at": "2026-11-02T00:00:00.000Z",
    "active_keys": 3,
    "last_activity_at": None,
}


@dataclass
class Browser:
    """One signed-in person's browser."""

    client: FlaskClient
    cookie: str

    def get(self, path: str, *, htmx: bool = False) -> TestResponse:
        return self.client.get(path, headers={"HX-Request": "true"} if htmx else {})

    def post(self, path: str, csrf: str | None = None, **fields: str) -> TestResponse:
        """Send a form as this browser got it; `csrf` is another's where given."""
        token = form_token(self.cookie) if csrf is None else csrf
        return self.client.post(path, data={"csrf": token, "once": secrets.token_hex(8), **fields})


def answer(world: World, method: str, path: str, document: Any, status: int = 200, **headers: str) -> None:
    """What the command and read APIs answer from now on; `path` is without a query."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    world.ledger.answers[method, path] = (status, document, named)


def listed(*items: Any, next_cursor: str | None = None) -> dict[str, Any]:
    """A list as the read API answers it."""
    return {"items": list(items), "next_cursor": next_cursor}


def asked(world: World, method: str, path: str) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Query and body of each request that came for this path."""
    return [(query, body) for verb, where, query, body in world.ledger.asked if (verb, where) == (method, path)]


def browser(world: World, user: str, role: str = "member", org: str = "demo") -> Browser:
    """A person of the org, signed in; the read API knows who that is and what the org is."""
    person = world.person(org, user, role)
    details: dict[str, Any] = {"user_id": user, "org_id": org, "role": role, "kind": "person"}
    details |= {"name": person.name, "email": person.email}
    answer(world, "GET", "/v1/me", details | {"org": ORG | {"org_id": org}})
    answer(world, "GET", f"/v1/orgs/{org}", ORG | {"org_id": org})
    answer(world, "GET", f"/v1/orgs/{org}/refused-uses", listed())
    cookie = world.console.sessions.begin(org, user, person.added_revision)
    client = create_app(world.console).test_client()
    client.set_cookie("keyledger", cookie)
    return Browser(client, cookie)


def visitor(client: FlaskClient) -> Browser:
    """The same browser with the cookie that it has by now."""
    cookie = client.get_cookie("keyledger")
    assert cookie is not None
    return Browser(client, cookie.value)


def seen(response: TestResponse) -> str:
    """The text of a page as people read it: no tags, one space between words."""
    text = re.sub(r"<(script|style|svg|template)\b.*?</\1>", " ", response.get_data(as_text=True), flags=re.DOTALL)
    text = re.sub(r"<p\b[^>]* hidden>.*?</p>", " ", text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())
