"""Single sign-on by the pages: to a real provider and back, to where one wanted to go."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.console_parts import World, running_console
from tests.integration.oidc_provider import Provider, provider_process, settings
from tests.integration.page_parts import seen, visitor


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with provider_process(tmp_path_factory.mktemp("provider")) as made:
        made.knows("grace", email="grace@example.org", email_verified=True)
        made.knows("stranger", email="stranger@example.org", email_verified=True)
        yield made


@pytest.fixture
def world(database: str, tmp_path: Path, provider: Provider) -> Iterator[World]:
    with running_console(database, tmp_path, settings(provider.issuer)) as made:
        made.person("demo", "grace")
        yield made


def come_back(world: World, provider: Provider, subject: str | None, next_page: str) -> dict[str, str]:
    """Go to the provider by the button, sign in there; gives the query one comes back with."""
    leave = world.client.get("/sign-in/sso", query_string={"next": next_page})
    assert leave.status_code == 303
    return provider.visit(leave.headers["Location"], subject)


def test_one_comes_back_signed_in_to_where_one_wanted_to_go(world: World, provider: Provider) -> None:
    world.client.get("/sign-in")
    before = visitor(world.client).cookie
    query = come_back(world, provider, "grace", "/account/password")
    arrived = world.client.get("/sign-in/sso/callback", query_string=query)
    assert (arrived.status_code, arrived.headers["Location"]) == (303, "/account/password")
    assert visitor(world.client).cookie != before
    assert world.client.get("/account/password").status_code in {200, 503}
    assert world.client.get_cookie("keyledger-next", path="/sign-in") is None


def test_nothing_leads_to_another_site_after_coming_back(world: World, provider: Provider) -> None:
    query = come_back(world, provider, "grace", "https://evil.example/")
    assert world.client.get("/sign-in/sso/callback", query_string=query).headers["Location"] == "/"


@pytest.mark.parametrize("subject", ["stranger", None])
def test_whoever_has_no_account_here_or_was_refused_there_is_told_so(
    world: World, provider: Provider, subject: str | None
) -> None:
    query = come_back(world, provider, subject, "/")
    page = world.client.get("/sign-in/sso/callback", query_string=query)
    assert page.status_code == 401
    # Refused, the provider of these tests leaves out the state.
    assert any(words in seen(page) for words in ("no account", "not begun in this browser"))
    assert world.rows("SELECT count(*) FROM console.sessions") == [(0,)]


def test_what_another_browser_brought_back_signs_nobody_in(world: World, provider: Provider) -> None:
    query = come_back(world, provider, "grace", "/")
    other = world.client.application.test_client()
    other.get("/sign-in")
    assert other.get("/sign-in/sso/callback", query_string=query).status_code == 401
