"""What holds on every page there is, and on every page there will be."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.console_parts import World, running_console
from tests.integration.page_parts import browser, visitor

OPEN = {"/sign-in", "/sign-in/sso", "/sign-in/sso/callback", "/static/<name>"}


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        yield made


def addresses(world: World, method: str) -> Iterator[str]:
    """An address of every page that answers this method."""
    for rule in world.client.application.url_map.iter_rules():
        if rule.endpoint.startswith("pages.") and method in (rule.methods or ()) and rule.rule not in OPEN:
            yield re.sub(r"<[a-z_:]+>", "demo", rule.rule)


def test_nobody_sees_a_page_without_signing_in(world: World) -> None:
    seen = {path: world.client.get(path) for path in addresses(world, "GET")}
    assert len(seen) > 10
    assert {path for path, page in seen.items() if not page.headers.get("Location", "").startswith("/sign-in")} == set()


def test_no_form_is_taken_without_this_browsers_token(world: World) -> None:
    member = browser(world, "member", "admin")
    answers = {path: member.post(path, csrf="another's").status_code for path in addresses(world, "POST")}
    assert len(answers) > 10
    assert {path for path, status in answers.items() if status != 403} == set()
    assert world.ledger.commands == []


def test_no_form_is_taken_from_a_visitor(world: World) -> None:
    world.client.get("/sign-in")
    guest = visitor(world.client)
    answers = {path: guest.post(path).status_code for path in addresses(world, "POST")}
    assert {path for path, status in answers.items() if status != 401} == set()


def test_every_answer_is_guarded_and_kept_nowhere(world: World) -> None:
    member = browser(world, "member", "admin")
    for path in addresses(world, "GET"):
        headers = member.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert "unsafe" not in headers["Content-Security-Policy"], path
        assert headers["Cache-Control"] == "no-store", path
        assert headers["X-Content-Type-Options"] == "nosniff", path
