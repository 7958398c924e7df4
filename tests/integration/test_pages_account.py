"""Signing in and one's own account, as a browser without JavaScript sees them."""

from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from services.console.sessions import IDLE_MS, LONGEST_MS
from tests.integration.console_parts import PASSWORD, World, running_console
from tests.integration.page_parts import KEY, ORG, answer, asked, browser, listed, seen, visitor

KEYS = "/v1/orgs/demo/users/member/keys"


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        yield made


def test_the_account_shows_details_and_keys(world: World) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    page = browser(world, "member").get("/account")
    text = seen(page)
    assert page.status_code == 200
    assert "member@example.org" in text
    assert "nightly import" in text
    assert "never" in text
    assert "Revoke" in text


def test_without_a_session_one_is_led_to_sign_in_and_back(world: World) -> None:
    guest = world.client.get("/account")
    assert (guest.status_code, guest.headers["Location"]) == (303, "/sign-in?next=%2Faccount")


def test_the_keys_section_is_absent_while_keys_are_off(world: World) -> None:
    answer(world, "GET", KEYS, listed())
    member = browser(world, "member")
    answer(
        world,
        "GET",
        "/v1/me",
        {
            "user_id": "member",
            "org_id": "demo",
            "role": "member",
            "name": "M",
            "email": "m@x.org",
            "org": ORG | {"keys_enabled": False},
        },
    )
    text = seen(member.get("/account"))
    assert "API key" not in text
    assert "Create" not in text


def test_a_new_key_is_on_the_page_that_made_it_and_on_no_other(world: World) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    answer(world, "POST", "/v1/orgs/demo/keys", KEY | {"key": "kl_secret", "revision": 10}, 201)
    member = browser(world, "member")
    made = member.post(
        "/account/keys", name="nightly import", expires_at="2030-01-31", scopes="a:read, b:read", cidrs="192.0.2.0/24"
    )
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    assert "kl_secret" in seen(made)
    assert "password manager" in seen(made)
    assert "kl_secret" not in seen(member.get("/account"))
    body = {
        "name": "nightly import",
        "expires_at": "2030-01-31T23:59:59Z",
        "scopes": ["a:read", "b:read"],
        "cidrs": ["192.0.2.0/24"],
    }
    assert asked(world, "POST", "/v1/orgs/demo/keys") == [({}, body)]


def test_pages_after_a_command_wait_for_its_revision(world: World) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    answer(world, "POST", "/v1/orgs/demo/keys", KEY | {"key": "kl_secret", "revision": 10}, 201)
    member = browser(world, "member")
    member.get("/account")
    member.post("/account/keys", name="nightly import")
    member.get("/account")
    assert [query.get("min_revision") for query, _ in asked(world, "GET", KEYS)] == [None, "10", "10"]


def test_a_page_that_cannot_wait_any_longer_says_so(world: World) -> None:
    member = browser(world, "member")
    answer(world, "GET", KEYS, listed(KEY), Keyledger_Lag_Ms="12345")
    assert "12 s behind" in seen(member.get("/account"))


def test_a_refused_form_says_why_and_keeps_what_was_typed(world: World) -> None:
    problem = {"code": "malformed", "detail": "no", "errors": [{"pointer": "/cidrs/0", "detail": "is not a network"}]}
    answer(world, "GET", KEYS, listed())
    answer(world, "POST", "/v1/orgs/demo/keys", problem, 400)
    page = browser(world, "member").post("/account/keys", name="<b>mine", cidrs="here")
    assert page.status_code == 400
    assert "is not a network" in seen(page)
    assert "&lt;b&gt;mine" in page.get_data(as_text=True)


def test_an_unchanged_table_is_not_sent_again(world: World) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    member = browser(world, "member")
    refresh = member.get("/account").get_data(as_text=True).split('hx-get="')[1].split('"')[0].replace("&amp;", "&")
    assert member.get(refresh, htmx=True).status_code == 204
    answer(world, "GET", KEYS, listed(KEY | {"last_used_at": "2026-11-22T10:00:00.000Z"}))
    changed = member.get(refresh, htmx=True)
    assert "ago" in seen(changed)
    assert "Create an API key" not in seen(changed)


def test_turning_keys_off_takes_the_section_away_from_an_open_page(world: World) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    member = browser(world, "member")
    refresh = member.get("/account").get_data(as_text=True).split('hx-get="')[1].split('"')[0].replace("&amp;", "&")
    answer(world, "GET", "/v1/orgs/demo", ORG | {"keys_enabled": False})
    gone = member.get(refresh, htmx=True)
    assert gone.headers["HX-Retarget"] == "#api-keys"
    assert seen(gone) == ""


def test_a_form_without_this_browsers_token_does_nothing_and_shows_what_was_typed(world: World) -> None:
    page = browser(world, "member").post("/account/keys", csrf="stolen", name="typed by hand")
    assert page.status_code == 403
    assert "typed by hand" in seen(page)
    assert asked(world, "POST", "/v1/orgs/demo/keys") == []


def test_a_session_that_ended_in_the_middle_of_a_form_loses_nothing(world: World) -> None:
    answer(world, "GET", KEYS, listed())
    answer(world, "POST", "/v1/orgs/demo/keys", KEY | {"key": "kl_secret", "revision": 10}, 201)
    member = browser(world, "member")
    grow_older(world, "seen_ms", IDLE_MS)
    refused = member.post("/account/keys", name="typed by hand")
    assert refused.status_code == 401
    kept = unescape(refused.get_data(as_text=True).split('name="kept" value="')[1].split('"')[0])
    again = member.post("/sign-in", email="member@example.org", password=PASSWORD, kept=kept)
    assert "typed by hand" in seen(again)
    assert asked(world, "POST", "/v1/orgs/demo/keys") == []
    form = again.get_data(as_text=True)
    csrf = form.split('name="csrf" value="')[1].split('"')[0]
    assert 'action="/account/keys"' in form
    assert "kl_secret" in seen(member.post("/account/keys", csrf=csrf, name="typed by hand"))


def test_signing_in_and_out(world: World) -> None:
    answer(world, "GET", KEYS, listed())
    member = browser(world, "member")
    assert member.post("/sign-out").headers["Location"] == "/sign-in"
    assert member.client.get("/account").status_code == 303
    guest = visitor(member.client)
    wrong = guest.post("/sign-in", email="member@example.org", password="wrong")
    assert (wrong.status_code, "is wrong" in seen(wrong)) == (401, True)
    right = guest.post("/sign-in", email="member@example.org", password=PASSWORD, next="/account")
    assert (right.status_code, right.headers["Location"]) == (303, "/account")
    assert "HttpOnly" in right.headers["Set-Cookie"]
    assert "SameSite=Lax" in right.headers["Set-Cookie"]
    assert guest.cookie not in right.headers["Set-Cookie"]
    assert member.client.get("/account").status_code == 200


def test_nothing_leads_to_another_site_after_signing_in(world: World) -> None:
    member = browser(world, "member")
    for elsewhere in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"):
        answered = member.post("/sign-in", email="member@example.org", password=PASSWORD, next=elsewhere)
        assert answered.headers["Location"] == "/"
        member = visitor(member.client)


def test_changing_the_password_ends_all_other_sessions(world: World) -> None:
    answer(world, "GET", KEYS, listed())
    mine = browser(world, "member")
    other = world.console.sessions.begin("demo", "member", 1)
    new = "seven purple tractors sing"
    short = mine.post("/account/password", old=PASSWORD, new="password12", again="password12")
    assert short.status_code == 400
    assert mine.post("/account/password", old="wrong", new=new, again=new).status_code == 403
    assert "same as the new" in seen(mine.post("/account/password", old=PASSWORD, new=new, again=new + "!"))
    assert mine.post("/account/password", old=PASSWORD, new=new, again=new).status_code == 303
    assert world.console.sessions.find(other) is None
    assert mine.get("/account").status_code == 200


def test_a_temporary_password_opens_only_the_form_that_changes_it(world: World) -> None:
    member = browser(world, "member")
    world.rows("UPDATE console.people SET must_change_password = true RETURNING 1")
    assert member.get("/account").headers["Location"] == "/account/password"
    assert member.post("/account/keys", name="x").headers["Location"] == "/account/password"
    assert "temporary password" in seen(member.get("/account/password"))


def test_a_disabled_persons_session_ends_with_the_reason(world: World) -> None:
    member = browser(world, "member")
    answer(world, "GET", KEYS, {"code": "owner_disabled", "detail": "no"}, 401)
    page = member.get("/account")
    assert page.status_code == 401
    assert "account is disabled" in seen(page)
    assert world.console.sessions.find(member.cookie) is None


def test_every_page_forbids_what_it_does_not_need(world: World) -> None:
    answer(world, "GET", KEYS, listed())
    headers = browser(world, "member").get("/account").headers
    assert "script-src 'self';" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


def grow_older(world: World, column: str, ms: int) -> None:
    """Every session was last seen, or was made, that much earlier."""
    world.rows(f"UPDATE console.sessions SET {column} = {column} - {ms} RETURNING 1")


def test_what_an_open_page_asks_by_itself_keeps_no_session_alive(world: World) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    member = browser(world, "member")
    grow_older(world, "seen_ms", IDLE_MS - 60_000)
    assert member.get("/account?part=1&on=True", htmx=True).status_code == 200
    grow_older(world, "seen_ms", 120_000)
    assert member.get("/account").status_code == 303


def test_a_page_keeps_its_session_alive_but_not_for_ever(world: World) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    member = browser(world, "member")
    for _ in range(3):
        grow_older(world, "seen_ms", IDLE_MS - 60_000)
        assert member.get("/account").status_code == 200
    grow_older(world, "created_ms", LONGEST_MS + 60_000)
    assert member.get("/account").status_code == 303


def test_a_revision_that_does_not_come_is_waited_for_once_and_the_page_says_so(world: World) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    member = browser(world, "member")
    world.console.sessions.acted(member.cookie, "demo", 99)
    world.ledger.not_caught_up = True
    page = member.get("/account")
    assert page.status_code == 200
    assert "What you did last is saved" in seen(page)
    assert sum("min_revision" in query for _, _, query, _ in world.ledger.asked) == 1


def test_the_address_of_a_form_says_so_to_people_and_is_a_problem_for_programs(world: World) -> None:
    member = browser(world, "member")
    page = member.client.get("/account/keys", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (page.status_code, "only takes a form" in seen(page)) == (405, True)
    assert member.client.get("/account/keys").get_json()["code"] == "method_not_allowed"
    assert member.client.get("/nothing/here").get_json()["code"] == "not_found"


def test_every_part_tells_how_old_it_is(world: World) -> None:
    answer(world, "GET", KEYS, listed(KEY), Keyledger_Lag_Ms="7400")
    part = browser(world, "member").get("/account?part=1&on=True", htmx=True)
    assert part.headers["HX-Trigger"] == '{"read-side":{"lag_s":7,"halted":false}}'


def test_keys_come_in_pages(world: World) -> None:
    answer(world, "GET", KEYS, listed(KEY, next_cursor="more"))
    member = browser(world, "member")
    assert "Next page" in seen(member.get("/account"))
    assert "First page" in seen(member.get("/account?cursor=more"))
    asked_for = [(query["limit"], query.get("cursor")) for query, _ in asked(world, "GET", KEYS)]
    assert asked_for == [("25", None), ("25", "more")]


def test_a_form_of_another_site_does_not_sign_this_browser_out(world: World) -> None:
    answer(world, "GET", KEYS, listed())
    member = browser(world, "member")
    sent_without_cookie = world.client.application.test_client().post("/sign-out")
    assert sent_without_cookie.status_code == 403
    assert "Set-Cookie" not in sent_without_cookie.headers
    assert member.get("/account").status_code == 200


def test_a_sign_in_that_overtakes_a_change_of_the_password_opens_nothing(world: World) -> None:
    answer(world, "GET", KEYS, listed())
    member = browser(world, "member")
    judged = world.console.people.get("demo", "member")
    assert judged is not None
    world.console.people.set_password("demo", "member", "another hash", must_change=False)
    late = world.console.sessions.begin("demo", "member", 1, judged.password_hash)
    assert world.console.sessions.find(late) is None
    assert not world.console.people.renew_hash("demo", "member", str(judged.password_hash), "renewed")
    assert member.get("/account").status_code == 200


def test_requiring_single_sign_on_ends_what_began_with_a_password_and_nothing_else(world: World) -> None:
    browser(world, "member")
    person = world.console.people.get("demo", "member")
    assert person is not None
    by_password = world.console.sessions.begin("demo", "member", 1, person.password_hash)
    by_sso = world.console.sessions.begin("demo", "member", 1)
    world.rows("INSERT INTO console.org_sign_in VALUES ('demo', true) RETURNING 1")
    assert world.console.sessions.find(by_password) is None
    assert world.console.sessions.find(by_sso) is not None


def test_only_the_newest_sessions_of_a_person_are_kept(world: World) -> None:
    first = browser(world, "member").cookie
    newer = [world.console.sessions.begin("demo", "member", 1) for _ in range(20)]
    assert world.console.sessions.find(first) is None
    assert all(world.console.sessions.find(cookie) for cookie in newer)


def test_what_somebody_else_typed_is_not_offered_to_whoever_signs_in_next(world: World) -> None:
    answer(world, "GET", KEYS, listed())
    member = browser(world, "member")
    world.person("demo", "admin", "admin")
    grow_older(world, "seen_ms", IDLE_MS)
    page = member.post("/account/keys", name="typed by the member").get_data(as_text=True)
    kept = unescape(page.split('name="kept" value="')[1].split('"')[0])
    entered = member.post("/sign-in", email="admin@example.org", password=PASSWORD, kept=kept)
    assert (entered.status_code, entered.headers["Location"]) == (303, "/")


@pytest.mark.parametrize("email", ["\0", "İ@example.org", "x" * 300, ""])
def test_an_e_mail_that_nobody_can_have_is_refused_like_a_wrong_password(world: World, email: str) -> None:
    world.client.get("/sign-in")
    page = visitor(world.client).post("/sign-in", email=email, password=PASSWORD)
    assert (page.status_code, "is wrong" in seen(page)) == (401, True)


@pytest.mark.parametrize("address", ["//[", "/\r\nX: 1", "/\\x", "///x", "x"])
def test_an_address_that_is_not_ours_leads_to_the_first_page(world: World, address: str) -> None:
    browser(world, "member")
    world.client.get("/sign-in", query_string={"next": address})
    guest = visitor(world.client)
    entered = guest.post("/sign-in", email="member@example.org", password=PASSWORD, next=address)
    assert (entered.status_code, entered.headers["Location"]) == (303, "/")


@pytest.mark.parametrize("once", ["a\r\nb", "€", "\0", "a b"])
def test_a_form_whose_number_is_no_number_of_ours_counts_as_a_new_one(world: World, once: str) -> None:
    answer(world, "GET", KEYS, listed())
    answer(world, "POST", "/v1/orgs/demo/keys", KEY | {"key": "kl_secret", "revision": 10}, 201)
    assert browser(world, "member").post("/account/keys", name="n", once=once).status_code == 201


@pytest.mark.parametrize("path", ["/orgs/demo/users", "/orgs/demo/keys", "/orgs/demo/keys.csv"])
def test_a_whole_key_in_an_address_leads_to_its_page_and_out_of_the_address(world: World, path: str) -> None:
    for name in ("search", "owner", "next"):
        answered = world.client.get(path, query_string={name: f"kl_{KEY['key_id']}_{'a' * 49}"})
        assert answered.headers["Location"] == f"/orgs/demo/keys/{KEY['key_id']}"
    assert "a" * 49 not in str(
        world.client.get("/sign-in", query_string={"next": "_" + "1" * 22 + "_" + "a" * 49}).headers
    )


def test_an_id_that_nothing_can_have_is_not_found(world: World) -> None:
    admin = browser(world, "admin", "admin")
    assert admin.get("/orgs/%0d%0aX:1/keys?search=_" + "1" * 22 + "_" + "a" * 49).status_code == 404
