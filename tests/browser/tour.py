"""Every page of the console, and an organisation with enough in it to fill them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Page

from tests.browser.actions import create_key, sign_in, sign_in_operator
from tests.browser.visitor import Visitor
from tests.end_to_end.system import System
from tests.fault.organisation import Org
from tests.waiting import eventually

_MOST_KEYS = 100


@dataclass(frozen=True)
class Stop:
    """One page: its name, who looks at it (`operator`, one of the organisation's, or `` when signed out), and its path.

    `click` is a selector to click on once it is there: it opens a dialog. `status` is how the page is answered.
    """

    name: str
    who: str
    path: str
    click: str = ""
    status: int = 200

    def see(self, visitor: Visitor, ids: dict[str, str]) -> Page:
        """Open it, with the ids that `populate` gave."""
        visitor.expect(self.status)
        page = visitor.opens(self.path.format(**ids))
        if self.click:
            page.locator(self.click).first.click()
            page.get_by_role("dialog").wait_for()
        return page

    def weigh(self, visitor: Visitor, ids: dict[str, str]) -> int:
        """Bytes transferred for it with nothing in the cache."""
        visitor.expect(self.status)
        return visitor.transferred(self.path.format(**ids))


STOPS = (
    Stop("sign-in", "", "/sign-in"),
    Stop("account", "member", "/account"),
    Stop("account-full", "collector", "/account"),
    Stop("account-revoke", "member", "/account", click="[data-ask]"),
    Stop("password", "member", "/account/password"),
    Stop("users", "admin", "/orgs/{org}/users"),
    Stop("users-none-found", "admin", "/orgs/{org}/users?search=nobody+is+called+this"),
    Stop("user-add", "admin", "/orgs/{org}/users/new"),
    Stop("service-account-add", "admin", "/orgs/{org}/users/new?kind=service_account"),
    Stop("user", "admin", "/orgs/{org}/users/{user}"),
    Stop("user-past-keys", "admin", "/orgs/{org}/users/{user}?keys=past"),
    Stop("user-service-account", "admin", "/orgs/{org}/users/{service}"),
    Stop("user-disable", "admin", "/orgs/{org}/users/{user}/disabled"),
    Stop("user-enable", "admin", "/orgs/{org}/users/{disabled}/enabled"),
    Stop("user-password-reset", "admin", "/orgs/{org}/users/{user}/password-reset"),
    Stop("user-erase", "admin", "/orgs/{org}/users/{user}/erase"),
    Stop("keys", "admin", "/orgs/{org}/keys"),
    Stop("keys-none-found", "admin", "/orgs/{org}/keys?search=nothing+is+called+this"),
    Stop("keys-dialog", "admin", "/orgs/{org}/keys", click="[data-ask]"),
    Stop("key", "admin", "/orgs/{org}/keys/{key}"),
    Stop("key-revoke", "admin", "/orgs/{org}/keys/{key}/revoke"),
    Stop("key-still-tried", "admin", "/orgs/{org}/keys/{old}"),
    Stop("keys-revoke", "admin", "/orgs/{org}/keys/revoke?key={key}&key={notebook}"),
    Stop("history", "admin", "/orgs/{org}/history?days=1"),
    Stop(
        "history-filtered", "auditor", "/orgs/{org}/history?key={key}&user={user}&since=2026-01-01T00:00&void=include"
    ),
    Stop("history-none-found", "auditor", "/orgs/{org}/history?type=LedgerResumed"),
    Stop("history-refused", "auditor", "/orgs/{org}/history?actor=nobody+is+called+this&until=tomorrow", status=400),
    Stop("organisation", "admin", "/orgs/{org}"),
    Stop("organisation-keys-off", "admin", "/orgs/{org}/keys-enabled?enabled=0"),
    Stop("sign-in-rule", "admin", "/orgs/{org}/sign-in-rule?sso_only=1"),
    Stop("organisations", "operator", "/orgs"),
    Stop("not-found", "member", "/orgs/{org}/nothing", status=404),
    Stop("not-allowed", "member", "/orgs/{org}/keys", status=403),
)


def populate(system: System, org: Org) -> dict[str, str]:
    """Fill an organisation that has `admin` and `member`: people, keys, uses, a revoked key. Gives ids for the paths."""
    org.add("auditor", role="auditor")
    _fill(org, "collector")  # First, so that what there is to look at stands above it in the lists.
    for who, name in (("admin", "Ada Lovelace"), ("member", "Grace Hopper")):
        assert system.call("console", "PATCH", "/v1/me", {"name": name}, org.token(who)).status == 200
    used = org.create("member", "nightly import")
    notebook = org.create("member", "notebook on my laptop")
    old = org.create("member", "before the move")
    org.made("member", "DELETE", f"{org.path}/keys/{old['key_id']}")
    service = add_service_account(system, org, "Sequencer 3")
    soon = (datetime.now(UTC) + timedelta(days=20)).isoformat()
    for number in range(12):
        org.made("admin", "POST", f"{org.path}/keys", {"name": f"run folder {number + 1}", "user_id": service})
    expiring = {"name": "plate reader", "user_id": service, "expires_at": soon, "scopes": ["plates:read"]}
    org.made("admin", "POST", f"{org.path}/keys", expiring)
    disabled = add_service_account(system, org, "Sequencer 2")
    org.made("admin", "POST", f"{org.path}/keys", {"name": "run folders", "user_id": disabled})
    org.made("admin", "PUT", f"{org.path}/users/{disabled}/enabled", {"enabled": False})
    system.validates_as(used["key"], "VALID")
    system.validates_as(old["key"], "REVOKED")
    eventually(
        lambda: org.read(f"/keys/{old['key_id']}/usage").json.get("items", []), 15, "the refused use to be counted"
    )
    keys = {name: key["key_id"] for name, key in (("key", used), ("notebook", notebook), ("old", old))}
    return {"org": org.id, "user": org.users["member"], "service": service, "disabled": disabled} | keys


def _fill(org: Org, who: str) -> None:
    """Add a person with as many keys as one may have."""
    org.add(who)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: org.create(who, f"collected {number}"), range(1, _MOST_KEYS + 1)))


def add_service_account(system: System, org: Org, name: str) -> str:
    """Gives its id."""
    account = {"name": name, "kind": "service_account", "role": "member"}
    added = system.call("console", "POST", f"{org.path}/users", account, org.token("admin"))
    assert added.status == 201, added
    return str(added.json["user_id"])


def enter(visitor: Visitor, system: System, org: Org, who: str) -> None:
    """Sign in as who looks at a stop."""
    if who == "operator":
        sign_in_operator(visitor, system)
    elif who:
        sign_in(visitor, org, who)


def new_key(visitor: Visitor) -> Page:
    """The one page that is no stop: it shows a new key, to the member who is signed in."""
    page = visitor.opens("/account")
    create_key(page, "fresh from the press")
    return page
