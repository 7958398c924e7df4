"""The users of an organisation and one user's page, as browsers of admins, auditors and others see them."""

from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.integration.console_parts import PASSWORD, World, running_console
from tests.integration.page_parts import KEY, ORG, USER, Browser, answer, asked, browser, listed, seen

USERS = "/v1/orgs/demo/users"
ONE = f"{USERS}/member"
PAGE = "/orgs/demo/users"
USER_PAGE = f"{PAGE}/member"
ROBOT = USER | {"user_id": "robot", "kind": "service_account", "name": "Nightly import", "email": None}
ROBOT_PAGE = f"{PAGE}/robot"
NO_KEYS: dict[str, Any] = listed()


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        yield made


@pytest.fixture
def admin(world: World) -> Browser:
    return browser(world, "admin", "admin")


def knows(world: World, user: dict[str, Any], keys: dict[str, Any] = NO_KEYS) -> None:
    """The read API answers about this user and its keys."""
    answer(world, "GET", f"{USERS}/{user['user_id']}", user)
    answer(world, "GET", f"{USERS}/{user['user_id']}/keys", keys)


def refuses(world: World, method: str, path: str, status: int, code: str, **more: Any) -> None:
    answer(world, method, path, {"code": code, "detail": "no", **more}, status)


def links(response: TestResponse) -> list[str]:
    return [unescape(part.split('"')[0]) for part in response.get_data(as_text=True).split('href="')[1:]]


def refresh_of(response: TestResponse) -> str:
    return unescape(response.get_data(as_text=True).split('hx-get="')[1].split('"')[0])


def test_the_table_shows_who_there_is_and_leads_to_each(world: World, admin: Browser) -> None:
    answer(world, "GET", USERS, listed(USER, ROBOT | {"status": "disabled", "role": "auditor"}))
    page = admin.get(PAGE)
    text = seen(page)
    assert page.status_code == 200
    assert "Member member@example.org Person Member Active 3 never" in text
    assert "Nightly import – Service account Auditor Disabled 3 never" in text
    assert {USER_PAGE, ROBOT_PAGE, f"{PAGE}/new"} <= set(links(page))


def test_show_api_keys_leads_from_the_table_to_all_keys(world: World, admin: Browser) -> None:
    answer(world, "GET", USERS, listed(USER))
    html = admin.get(PAGE).get_data(as_text=True)
    assert 'href="/orgs/demo/keys">Show API Keys</a>' in html


def test_what_is_looked_for_goes_to_the_read_api_and_stays_in_the_form_and_the_headings(
    world: World, admin: Browser
) -> None:
    answer(world, "GET", USERS, listed(USER, next_cursor="more"))
    page = admin.get(f"{PAGE}?search=+Mem%26ber+&kind=person&status=active&sort=name&cursor=here")
    wanted = {"search": "Mem&ber", "kind": "person", "status": "active", "sort": "name"}
    assert [query for query, _ in asked(world, "GET", USERS)] == [wanted | {"limit": "25", "cursor": "here"}]
    rest = "search=Mem%26ber&kind=person&status=active"
    assert {
        f"{PAGE}?{rest}&sort=name",  # The first page.
        f"{PAGE}?{rest}&sort=name&cursor=more",
        f"{PAGE}?{rest}&sort=active_keys",
        f"{PAGE}?{rest}",  # Sorted by name no more.
    } <= set(links(page))
    html = page.get_data(as_text=True)
    assert 'aria-sort="ascending"><a class="sort" href="/orgs/demo/users?search' in html
    assert '<input type="hidden" name="sort" value="name">' in html
    assert '<option value="active" selected>' in html


def test_a_full_table_weighs_less_than_a_kilobyte_a_row(world: World, admin: Browser) -> None:
    users = [USER | {"user_id": f"{number:022}", "name": "N" * 100} for number in range(25)]
    answer(world, "GET", USERS, listed(*users, next_cursor="more"))
    assert len(admin.get(PAGE).get_data()) < 30_000


def test_a_search_that_the_read_api_refuses_is_said_beside_its_field(world: World, admin: Browser) -> None:
    errors = [{"pointer": "/search", "detail": "must be 1-100 plain characters"}]
    refuses(world, "GET", USERS, 400, "malformed", errors=errors)
    page = admin.get(f"{PAGE}?search=%00")
    assert page.status_code == 400
    assert "must be 1-100 plain characters" in seen(page)


def test_a_search_without_a_match_says_so(world: World, admin: Browser) -> None:
    answer(world, "GET", USERS, listed())
    page = admin.get(f"{PAGE}?search=nobody")
    assert "No user fits" in seen(page)
    assert PAGE in links(page)


def test_a_table_without_users_speaks_of_no_search_when_there_was_none(world: World, admin: Browser) -> None:
    answer(world, "GET", USERS, listed())
    for query in ("", "?sort=name"):
        page = admin.get(PAGE + query)
        assert "Whoever is added is listed here." in seen(page)
        assert "fits" not in seen(page)


def test_an_operator_sees_the_name_of_the_organisation_and_nothing_is_counted_for_it(world: World) -> None:
    operator = browser(world, "olga", "admin", org="platform")
    answer(world, "GET", "/v1/orgs/demo", {name: ORG[name] for name in ("org_id", "name", "keys_enabled")})
    answer(world, "GET", USERS, listed(USER))
    answer(world, "GET", "/v1/orgs/demo/keys", listed(KEY))
    answer(world, "GET", "/v1/orgs/demo/refused-uses", listed())
    assert "Users of Demo" in seen(operator.get(PAGE))
    assert "API keys of Demo" in seen(operator.get("/orgs/demo/keys"))
    assert [query for query, _ in asked(world, "GET", "/v1/orgs/demo")] == [{"counts": "exclude"}] * 2


def test_an_unchanged_table_of_users_is_not_sent_again(world: World, admin: Browser) -> None:
    answer(world, "GET", USERS, listed(USER))
    refresh = refresh_of(admin.get(PAGE))
    before = len(asked(world, "GET", "/v1/me"))
    assert admin.get(refresh, htmx=True).status_code == 204
    answer(world, "GET", USERS, listed(USER | {"active_keys": 4}))
    changed = admin.get(refresh, htmx=True)
    assert "Active 4" in seen(changed)
    assert "Show API Keys" not in seen(changed)
    assert len(asked(world, "GET", "/v1/me")) == before


def test_names_are_shown_and_never_run(world: World, admin: Browser) -> None:
    attack = "<script>alert(1)</script>"
    user, key = USER | {"name": attack}, KEY | {"name": f'"><b onclick=x>{attack}'}
    answer(world, "GET", USERS, listed(user))
    knows(world, user, listed(key))
    for path in (PAGE, USER_PAGE, f"{USER_PAGE}/disabled", f"{USER_PAGE}/erase", f"{USER_PAGE}/password-reset"):
        html = admin.get(path).get_data(as_text=True)
        assert "<script>alert" not in html
        assert "<b onclick" not in html
        assert "&lt;script&gt;alert(1)" in html


def test_members_may_not_see_the_table_and_strangers_find_nothing(world: World) -> None:
    member = browser(world, "member")
    refuses(world, "GET", USERS, 403, "forbidden")
    refuses(world, "GET", "/v1/orgs/other/users", 404, "not_found")
    refused, absent = member.get(PAGE), member.get("/orgs/other/users")
    assert (refused.status_code, absent.status_code) == (403, 404)
    assert "Your role does not allow this" in seen(refused)
    assert "Show API Keys" not in seen(refused) + seen(absent)


@pytest.mark.parametrize(("path", "status"), [(f"{PAGE}/new", 403), ("/orgs/other/users/new", 404)])
def test_who_may_not_add_users_gets_no_form_for_it(world: World, path: str, status: int) -> None:
    page = browser(world, "auditor", "auditor").get(path)
    assert page.status_code == status
    assert "E-mail" not in seen(page)


def test_an_auditor_sees_everything_and_is_offered_nothing(world: World) -> None:
    auditor = browser(world, "auditor", "auditor")
    answer(world, "GET", USERS, listed(USER))
    knows(world, USER, listed(KEY))
    knows(world, ROBOT)
    table, person, robot = (auditor.get(path) for path in (PAGE, USER_PAGE, ROBOT_PAGE))
    assert "member@example.org" in seen(table)
    assert "nightly import" in seen(person)
    offered = ("Add a user", "Revoke", "Disable", "Reset password", "Save role", "Erase", "Create")
    for page in (table, person, robot):
        assert [text for text in offered if f">{text}<" in page.get_data(as_text=True)] == []
    assert "Revoke" not in seen(auditor.get(refresh_of(person).replace("seen=", "seen=x"), htmx=True))


def test_a_person_is_added_and_its_password_shown_once(world: World, admin: Browser) -> None:
    added = admin.post(f"{PAGE}/new", kind="person", name=" Ada Example ", email="ada@example.org", role="auditor")
    assert added.status_code == 201
    assert "Ada Example was added" in seen(added)
    assert "only time" in seen(added)
    person = world.console.people.with_email("ada@example.org")
    assert person is not None
    assert (person.name, person.role, person.must_change_password) == ("Ada Example", "auditor", True)
    password = seen(added).split("in a safe way now. ")[1].split(" Copy")[0]
    signed_in = world.sign_in("ada@example.org", password)
    assert (signed_in.status_code, signed_in.get_json()["must_change_password"]) == (201, True)
    knows(world, USER | {"user_id": person.user_id})
    after = admin.get(f"{PAGE}/{person.user_id}")
    assert password not in seen(after)
    waited = [query.get("min_revision") for query, _ in asked(world, "GET", f"{USERS}/{person.user_id}")]
    assert waited == [str(person.added_revision)]


def test_a_service_account_is_added_without_a_password(world: World, admin: Browser) -> None:
    form = seen(admin.get(f"{PAGE}/new?kind=service_account"))
    assert "cannot sign in" in form
    assert "E-mail" not in form
    added = admin.post(f"{PAGE}/new", kind="service_account", name="Nightly import", role="member")
    assert added.status_code == 303
    user = added.headers["Location"].rpartition("/")[2]
    person = world.console.people.get("demo", user)
    assert person is not None
    assert (person.kind, person.password_hash) == ("service_account", None)
    knows(world, ROBOT | {"user_id": user})
    assert "Nightly import was added" in seen(admin.get(added.headers["Location"]))


def test_a_refused_person_keeps_what_was_typed(world: World, admin: Browser) -> None:
    wrong = admin.post(f"{PAGE}/new", kind="person", name="<b>Ada", email="not an address", role="admin")
    assert wrong.status_code == 400
    assert "has the wrong shape" in seen(wrong)
    html = wrong.get_data(as_text=True)
    assert "&lt;b&gt;Ada" in html
    assert '<option value="admin" selected>' in html
    taken = admin.post(f"{PAGE}/new", kind="person", name="Ada", email="admin@example.org", role="member")
    assert taken.status_code == 409
    assert "in use already" in seen(taken)


def test_a_user_page_shows_who_it_is_and_its_current_keys_with_revoke(world: World, admin: Browser) -> None:
    knows(world, USER, listed(KEY))
    page = admin.get(USER_PAGE)
    text = seen(page)
    assert "E-mail member@example.org Kind Person Role Member Status Active API keys 3 active keys" in text
    assert "nightly import 0000000000000000000001" in text
    assert f"/orgs/demo/keys/{KEY['key_id']}/revoke?back={USER_PAGE}" in links(page)
    assert "Create an API key" not in text  # A person makes its own keys.
    assert asked(world, "GET", f"{ONE}/keys")[0][0]["state"] == "active"


def test_the_keys_of_an_open_user_page_follow_what_happens(world: World, admin: Browser) -> None:
    knows(world, USER, listed(KEY))
    refresh = refresh_of(admin.get(USER_PAGE))
    before = len(asked(world, "GET", "/v1/me")) + len(asked(world, "GET", ONE))
    assert admin.get(refresh, htmx=True).status_code == 204
    knows(world, USER, listed(KEY, KEY | {"name": "another"}))
    changed = seen(admin.get(refresh, htmx=True))
    assert "another" in changed
    assert "Revoke" in changed
    assert "Account information" not in changed
    assert len(asked(world, "GET", "/v1/me")) + len(asked(world, "GET", ONE)) == before


def test_past_keys_are_those_that_ended(world: World, admin: Browser) -> None:
    revoked = KEY | {"name": "gone", "revoked_at": "2026-11-21T10:00:00.000Z"}
    expired = KEY | {"name": "too old", "expires_at": "2026-11-21T10:00:00.000Z"}
    lasting = KEY | {"name": "lasting", "expires_at": "2999-11-21T10:00:00.000Z"}
    knows(world, USER, listed(revoked, expired, KEY, lasting))
    page = admin.get(f"{USER_PAGE}?keys=past")
    text = seen(page)
    assert "gone" in text
    assert "too old" in text
    assert "Expired" in text
    assert "nightly import" not in text
    assert "lasting" not in text
    assert "Revoke " not in text
    assert asked(world, "GET", f"{ONE}/keys")[0][0]["state"] == "all"


def test_a_user_without_keys_is_said_to_have_none(world: World, admin: Browser) -> None:
    knows(world, USER | {"active_keys": 0})
    assert "No current keys" in seen(admin.get(USER_PAGE))
    assert "No past keys" in seen(admin.get(f"{USER_PAGE}?keys=past"))


def test_a_user_that_does_not_exist_is_not_found(world: World, admin: Browser) -> None:
    refuses(world, "GET", f"{USERS}/nobody", 404, "not_found")
    refuses(world, "GET", f"{USERS}/nobody/keys", 404, "not_found")
    for path in ("", "/disabled", "/enabled", "/erase", "/password-reset"):
        assert admin.get(f"{PAGE}/nobody{path}").status_code == 404


def test_an_admin_makes_a_key_for_a_service_account_and_sees_it_once(world: World, admin: Browser) -> None:
    knows(world, ROBOT)
    answer(world, "POST", "/v1/orgs/demo/keys", KEY | {"key": "kl_secret", "revision": 10}, 201)
    assert "cannot sign in" in seen(admin.get(ROBOT_PAGE))
    made = admin.post(f"{ROBOT_PAGE}/keys", name="nightly import")
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    assert "kl_secret" in seen(made)
    assert 'value="nightly import"' not in made.get_data(as_text=True)
    assert asked(world, "POST", "/v1/orgs/demo/keys") == [({}, {"name": "nightly import", "user_id": "robot"})]
    assert refresh_of(made).startswith(f"{ROBOT_PAGE}?")
    assert "kl_secret" not in seen(admin.get(ROBOT_PAGE))


def test_a_refused_key_of_a_service_account_keeps_what_was_typed(world: World, admin: Browser) -> None:
    knows(world, ROBOT)
    refuses(world, "POST", "/v1/orgs/demo/keys", 409, "name_taken")
    page = admin.post(f"{ROBOT_PAGE}/keys", name="nightly <import>")
    assert page.status_code == 409
    assert "an active key with this name" in seen(page)
    assert 'value="nightly &lt;import&gt;"' in page.get_data(as_text=True)


def test_a_role_is_changed_and_how_fast_is_said(world: World, admin: Browser) -> None:
    knows(world, USER)
    changed = {"user_id": "member", "org_id": "demo", "revision": 10, "effective": True, "effective_ms": 31}
    answer(world, "PUT", f"{ONE}/role", changed)
    sent = admin.post(f"{USER_PAGE}/role", role="auditor")
    assert (sent.status_code, sent.headers["Location"]) == (303, USER_PAGE)
    assert asked(world, "PUT", f"{ONE}/role") == [({}, {"role": "auditor"})]
    text = seen(admin.get(USER_PAGE))
    assert "Member is now an auditor." in text
    assert "31 ms" in text


def test_the_last_admin_stays_one_and_is_told_why(world: World, admin: Browser) -> None:
    knows(world, USER | {"user_id": "admin", "name": "Admin", "role": "admin"})
    own = f"{PAGE}/admin"
    for path in ("role", "enabled"):
        refuses(world, "PUT", f"{USERS}/admin/{path}", 409, "last_admin")
    for page in (admin.post(f"{own}/role", role="member"), admin.post(f"{own}/disabled"), admin.post(f"{own}/erase")):
        assert page.status_code == 409
        assert "the last active admin" in seen(page)
    assert world.console.people.get("demo", "admin") is not None


def test_an_admin_who_gives_up_the_role_is_led_to_a_page_of_the_new_one(world: World, admin: Browser) -> None:
    answer(world, "PUT", f"{USERS}/admin/role", {"user_id": "admin", "org_id": "demo", "revision": 10})
    assert admin.post(f"{PAGE}/admin/role", role="member").headers["Location"] == "/"


@pytest.mark.parametrize(
    ("keys", "stops"), [(3, "3 keys will stop"), (1, "1 key will stop"), (0, "no active keys that would stop")]
)
def test_what_disabling_stops_is_said_before(world: World, admin: Browser, keys: int, stops: str) -> None:
    knows(world, USER | {"active_keys": keys})
    page = admin.get(f"{USER_PAGE}/disabled?back={USER_PAGE}", htmx=True)
    assert stops in seen(page)
    assert "cannot sign in any more" in seen(page)
    assert "<html" not in page.get_data(as_text=True)
    assert asked(world, "PUT", f"{ONE}/enabled") == []


@pytest.mark.parametrize(("path", "enabled"), [("disabled", False), ("enabled", True)])
def test_a_user_is_disabled_and_enabled(world: World, admin: Browser, path: str, enabled: bool) -> None:
    knows(world, USER)
    answer(world, "PUT", f"{ONE}/enabled", {"user_id": "member", "org_id": "demo", "revision": 10})
    sent = admin.post(f"{USER_PAGE}/{path}", back=USER_PAGE)
    assert (sent.status_code, sent.headers["Location"]) == (303, USER_PAGE)
    assert asked(world, "PUT", f"{ONE}/enabled") == [({}, {"enabled": enabled})]
    assert f"Member was {path}." in seen(admin.get(USER_PAGE))


def test_a_page_offers_what_the_status_allows(world: World, admin: Browser) -> None:
    knows(world, USER)
    knows(world, ROBOT | {"status": "disabled"})
    active, disabled = seen(admin.get(USER_PAGE)), seen(admin.get(ROBOT_PAGE))
    assert "Reset password Disable" in active
    assert "Enable" in disabled
    assert "none of its keys is accepted" in disabled
    assert "Reset password" not in disabled
    assert "Create" not in disabled
    knows(world, USER | {"status": "erased", "name": None, "email": None})
    erased = seen(admin.get(USER_PAGE))
    assert "Erased user" in erased
    assert [text for text in ("Enable", "Disable", "Reset", "Save role", "Erase this") if text in erased] == []


def test_a_reset_password_is_shown_once_and_the_old_one_is_refused(world: World, admin: Browser) -> None:
    world.person("demo", "member")
    knows(world, USER)
    asks = seen(admin.get(f"{USER_PAGE}/password-reset"))
    assert "signed out everywhere" in asks
    assert world.sign_in("member@example.org").status_code == 201
    page = admin.post(f"{USER_PAGE}/password-reset")
    password = seen(page).split("in a safe way now. ")[1].split(" Copy")[0]
    assert page.status_code == 200
    assert world.sign_in("member@example.org", PASSWORD).status_code == 401
    assert world.sign_in("member@example.org", password).get_json()["must_change_password"] is True


def test_a_service_account_has_no_password_to_reset(world: World, admin: Browser) -> None:
    knows(world, ROBOT)
    assert admin.get(f"{ROBOT_PAGE}/password-reset").status_code == 404
    assert admin.post(f"{ROBOT_PAGE}/password-reset").status_code == 404


def test_where_only_single_sign_on_counts_there_is_no_password_to_reset(world: World, admin: Browser) -> None:
    knows(world, USER)
    with world.console.pool.connection() as connection:
        connection.execute("INSERT INTO console.org_sign_in VALUES ('demo', true)")
    text = seen(admin.get(USER_PAGE))
    assert "no password to reset" in text
    assert "Reset password" not in text


def test_erasing_says_what_goes_and_what_stays_and_then_does_it(world: World, admin: Browser) -> None:
    world.person("demo", "member")
    knows(world, USER)
    asks = seen(admin.get(f"{USER_PAGE}/erase"))
    assert "3 keys will stop" in asks
    assert "stays in the history" in asks
    assert world.console.people.get("demo", "member") is not None
    sent = admin.post(f"{USER_PAGE}/erase")
    assert (sent.status_code, sent.headers["Location"]) == (303, PAGE)
    assert world.console.people.get("demo", "member") is None
    answer(world, "GET", USERS, listed(USER | {"status": "erased", "name": None, "email": None}))
    text = seen(admin.get(PAGE))
    assert "The account was erased." in text
    assert "Erased user –" in text


@pytest.mark.parametrize(
    "path", ["member/role", "member/disabled", "member/enabled", "member/erase", "member/password-reset", "robot/keys"]
)
def test_no_form_about_a_user_counts_without_its_token(world: World, admin: Browser, path: str) -> None:
    world.person("demo", "member")
    knows(world, USER)
    assert admin.post(f"{PAGE}/{path}", csrf="another's", role="admin", name="x").status_code == 403
    assert [verb for verb, *_ in world.ledger.asked if verb != "GET"] == []
    assert world.console.people.get("demo", "member") is not None
    assert world.sign_in("member@example.org").status_code == 201


@pytest.mark.parametrize("path", ["disabled", "enabled", "erase", "password-reset"])
def test_an_auditor_who_knows_the_address_is_refused(world: World, path: str) -> None:
    world.person("demo", "member")
    auditor = browser(world, "auditor", "auditor")
    knows(world, USER)
    assert auditor.get(f"{USER_PAGE}/{path}").status_code == 403
    assert auditor.post(f"{USER_PAGE}/{path}").status_code == 403
    assert world.console.people.get("demo", "member") is not None
    assert [verb for verb, *_ in world.ledger.asked if verb != "GET"] == []


def test_a_form_that_is_sent_twice_adds_one_service_account(world: World, admin: Browser) -> None:
    form = {"kind": "service_account", "name": "Nightly import", "role": "member", "once": "the-same"}
    first = admin.post(f"{PAGE}/new", **form)
    again = admin.post(f"{PAGE}/new", **form)
    assert first.status_code == again.status_code == 303
    assert first.headers["Location"] == again.headers["Location"]
    assert world.rows("SELECT count(*) FROM console.people WHERE kind = 'service_account'") == [(1,)]


def test_a_form_that_is_sent_twice_shows_the_temporary_password_once(world: World, admin: Browser) -> None:
    form = {"kind": "person", "name": "Ada", "email": "ada@example.org", "role": "member", "once": "the-same"}
    first, again = (admin.post(f"{PAGE}/new", **form) for _ in range(2))
    assert "Temporary password" in seen(first)
    assert (again.status_code, "password" in seen(again).lower()) == (303, False)


@pytest.mark.parametrize(("switch", "enabled"), [("disabled", False), ("enabled", True)])
def test_no_old_session_outlives_disabling_and_enabling(
    world: World, admin: Browser, switch: str, enabled: bool
) -> None:
    world.person("demo", "member")
    knows(world, USER)
    answer(world, "PUT", f"{ONE}/enabled", {"user_id": "member", "org_id": "demo", "enabled": enabled, "revision": 12})
    stolen = world.console.sessions.begin("demo", "member", 1)
    assert admin.post(f"{USER_PAGE}/{switch}").status_code == 303
    assert world.console.sessions.find(stolen) is None
