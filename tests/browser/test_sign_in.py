"""Signing in and out, and forms that come at the wrong moment."""

import pytest
from playwright.sync_api import expect

from tests.browser.actions import sign_in_here
from tests.browser.conftest import Visit
from tests.end_to_end.system import System
from tests.fault.organisation import Org
from tests.integration.oidc_provider import Provider


def test_one_signs_in_and_out_and_back_shows_nothing_of_the_account(visit: Visit, shared_org: Org) -> None:
    visitor = visit()
    page = visitor.sign_in(f"member@{shared_org.id}.test", shared_org.password("member"))
    page.goto("/account")
    expect(page.get_by_text(f"member@{shared_org.id}.test")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    visitor.back()
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    expect(page.get_by_text(f"member@{shared_org.id}.test")).to_have_count(0)


def test_a_wrong_password_is_refused_in_words_and_keeps_the_email(visit: Visit, shared_org: Org) -> None:
    visitor = visit()
    visitor.expect(401)
    page = visitor.opens("/sign-in")
    page.get_by_label("E-mail").fill(f"member@{shared_org.id}.test")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    expect(page.get_by_label("E-mail")).to_have_value(f"member@{shared_org.id}.test")
    expect(page.get_by_label("Password")).to_have_value("")


def test_a_service_account_cannot_sign_in(visit: Visit, shared_org: Org, system: System, provider: Provider) -> None:
    email = f"robot@{shared_org.id}.test"
    robot = {"name": "robot", "kind": "service_account", "role": "member", "email": email}
    added = system.call("console", "POST", f"{shared_org.path}/users", robot, shared_org.token("admin"))
    assert (added.status, added.json["email"]) == (201, email)
    visitor = visit(also=provider.issuer)
    visitor.expect(401)
    page = visitor.opens("/sign-in")
    sign_in_here(page, email, "any password at all")
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    provider.knows("robot", email=email, email_verified=True)
    page.get_by_role("link", name="Sign in with Acme Login").click()
    page.locator("input[name=sub]").fill("robot")
    page.get_by_role("button", name="Authorize").click()
    expect(page.get_by_text("There is no account for this e-mail address here.")).to_be_visible()
    expect(page.get_by_role("link", name="Account")).to_have_count(0)


@pytest.mark.parametrize("path", ["/account", "/account/password?from=a%26b"])
def test_whoever_is_signed_out_is_asked_to_sign_in_and_then_gets_where_they_wanted(
    visit: Visit, shared_org: Org, path: str
) -> None:
    visitor = visit()
    page = visitor.opens(path)
    assert "/sign-in" in page.url
    page.get_by_label("E-mail").fill(f"member@{shared_org.id}.test")
    page.get_by_label("Password").fill(shared_org.password("member"))
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(f"{visitor.console}{path}")
    expect(page.get_by_role("link", name="Account")).to_be_visible()
