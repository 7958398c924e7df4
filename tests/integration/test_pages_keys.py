"""The keys of an organisation and one key's page, as browsers of admins, auditors, members and others see them."""

import csv
import io
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from werkzeug.test import TestResponse

from schemas import key_text, times
from services.console import wording
from services.console.api_clients import Read, ReadApi
from tests.integration.console_parts import World, running_console
from tests.integration.page_parts import KEY, ORG, USER, Browser, answer, asked, browser, listed, seen

KEYS = "/v1/orgs/demo/keys"
PAGE = "/orgs/demo/keys"
ID = str(KEY["key_id"])
TRIED = "/v1/orgs/demo/refused-uses"
ONE, ONE_PAGE = f"{KEYS}/{ID}", f"{PAGE}/{ID}"
OTHER = KEY | {"key_id": "0000000000000000000002", "name": "<script>alert(1)</script>", "user_id": "admin"}
SECRET = key_text.compose(ID, bytes(32))
HASHES = ("a" * 64, "b" * 64)


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        yield made


@pytest.fixture
def admin(world: World) -> Browser:
    return browser(world, "admin", "admin")


def ago(days: float) -> str:
    return times.to_text(times.wall_clock_ms() - int(days * 24 * 3600 * 1000))


def day(days: int) -> str:
    """The day so many days ago, in the words of the pages."""
    return wording.exact(ago(days)).split(",")[0]


def knows(
    world: World, key: Mapping[str, Any], uses: Any = (), events: Any = (), tried: Mapping[str, Any] | None = None
) -> None:
    """The read API answers about this key."""
    answer(world, "GET", f"{KEYS}/{key['key_id']}", key)
    answer(world, "GET", f"{KEYS}/{key['key_id']}/usage", {"items": list(uses)})
    answer(world, "GET", f"{KEYS}/{key['key_id']}/history", listed(*events))
    answer(world, "GET", f"{KEYS}/{key['key_id']}/refused-uses", tried or listed())


def event(kind: str, revision: int, user: str, days: float, **data: Any) -> dict[str, Any]:
    actor = {"user_id": user, "type": "operator" if user == "operator" else "user"}
    return {
        "revision": revision,
        "type": kind,
        "time": ago(days),
        "actor": actor,
        "data": data,
        "hash": HASHES[revision % 2],
        "parent": HASHES[1 - revision % 2],
        "void": False,
    }


def use(days: int, outcome: str, count: int) -> dict[str, Any]:
    return {"start": ago(days)[:10] + "T00:00:00.000Z", "outcome": outcome, "count": count}


def trying(ip: str | None, count: int, days: float, **more: Any) -> dict[str, Any]:
    """A refused use, as the read API lists it."""
    of = {name: KEY[name] for name in ("key_id", "name", "user_id", "owner_name")}
    times_of_it = {"first_at": ago(days + 1), "last_at": ago(days)}
    return of | {"outcome": "REVOKED", "ip": ip, "count": count} | times_of_it | more


def refuses(world: World, method: str, path: str, status: int, code: str, **more: Any) -> None:
    answer(world, method, path, {"code": code, "detail": "no", **more}, status)


def links(response: TestResponse) -> list[str]:
    return [unescape(part.split('"')[0]) for part in response.get_data(as_text=True).split('href="')[1:]]


def refresh_of(response: TestResponse) -> str:
    return unescape(response.get_data(as_text=True).split('hx-get="')[1].split('"')[0])


def test_the_table_shows_each_active_key_with_its_owner_and_last_use(world: World, admin: Browser) -> None:
    used = OTHER | {"last_used_at": ago(1), "last_used_ip": "192.0.2.7", "owner_name": "Ada"}
    answer(world, "GET", KEYS, listed(KEY, used))
    page = admin.get(PAGE)
    text = seen(page)
    assert page.status_code == 200
    assert f"nightly import {ID} Member 20 Nov 2026 never never Revoke" in text
    assert "Ada 20 Nov 2026 1 day ago from 192.0.2.7" in text
    assert {ONE_PAGE, f"{ONE_PAGE}/revoke?back={PAGE}", "/orgs/demo/users/member", f"{PAGE}.csv"} <= set(links(page))
    assert asked(world, "GET", KEYS) == [({"limit": "25"}, {})]


def test_a_name_is_text_wherever_it_stands(world: World, admin: Browser) -> None:
    answer(world, "GET", KEYS, listed(OTHER))
    knows(world, OTHER, events=[event("KeyCreated", 1, "admin", 2, name=OTHER["name"])])
    address = f"{PAGE}/{OTHER['key_id']}"
    for path in (PAGE, address, f"{address}/revoke", f"{PAGE}/revoke?key={OTHER['key_id']}"):
        page = admin.get(path)
        assert page.status_code == 200
        assert "<script>alert" not in page.get_data(as_text=True)
        assert "&lt;script&gt;alert(1)" in page.get_data(as_text=True)


def test_filters_are_passed_on_and_stay_with_the_file_and_the_next_page(world: World, admin: Browser) -> None:
    answer(world, "GET", KEYS, listed(KEY, next_cursor="more"))
    answer(world, "GET", "/v1/orgs/demo/users/member", USER)
    before = times.wall_clock_ms()
    page = admin.get(f"{PAGE}?search=+night&owner=member&unused_for=90&never_used=1&expiring=30&cursor=here")
    ((query, _),) = asked(world, "GET", KEYS)
    since, until = times.to_ms(query.pop("unused_since")), times.to_ms(query.pop("expires_before"))
    day_ms = 24 * 3600 * 1000
    assert before - 90 * day_ms <= since <= times.wall_clock_ms() - 90 * day_ms
    assert before + 30 * day_ms <= until <= times.wall_clock_ms() + 30 * day_ms
    assert query == {"limit": "25", "search": "night", "owner": "member", "never_used": "true", "cursor": "here"}
    filters = {"search": ["night"], "owner": ["member"], "unused_for": ["90"], "never_used": ["1"], "expiring": ["30"]}
    found = {urlsplit(link).path: parse_qs(urlsplit(link).query) for link in links(page) if "night" in link}
    assert found[f"{PAGE}.csv"] == filters
    assert f"{PAGE}?search=night&owner=member&unused_for=90&never_used=1&expiring=30&cursor=more" in links(page)
    assert f"{PAGE}?search=night&unused_for=90&never_used=1&expiring=30" in links(page)
    assert "Owner: Member ×" in seen(page)


def test_a_choice_that_is_not_offered_counts_as_none(world: World, admin: Browser) -> None:
    answer(world, "GET", KEYS, listed())
    page = admin.get(f"{PAGE}?unused_for=7&never_used=maybe&expiring=x")
    assert asked(world, "GET", KEYS) == [({"limit": "25"}, {})]
    assert "No active keys" in seen(page)


def test_a_search_without_a_hit_says_so_and_one_that_is_refused_says_why(world: World, admin: Browser) -> None:
    answer(world, "GET", KEYS, listed())
    assert "No active key fits" in seen(admin.get(f"{PAGE}?search=nobody"))
    errors = [{"pointer": "/search", "detail": "must be 1-100 plain characters"}]
    refuses(world, "GET", KEYS, 400, "malformed", errors=errors)
    page = admin.get(f"{PAGE}?search={'x' * 101}")
    assert page.status_code == 400
    assert "must be 1-100 plain characters" in seen(page)
    assert 'hx-get="' not in page.get_data(as_text=True)


def test_the_table_is_sent_again_only_when_it_changed(world: World, admin: Browser) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    refresh = refresh_of(admin.get(PAGE))
    assert admin.get(refresh).status_code == 204
    world.ledger.asked.clear()
    answer(world, "GET", KEYS, listed(KEY | {"last_used_at": ago(0)}))
    part = admin.get(refresh)
    assert "just now" in seen(part)
    assert "Revoke nightly import" in part.get_data(as_text=True)
    assert [path for _, path, _, _ in world.ledger.asked] == [KEYS, TRIED]


def test_an_auditor_sees_the_keys_and_nothing_to_press(world: World) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    knows(world, KEY)
    auditor = browser(world, "auditor", "auditor")
    for page in (auditor.get(PAGE), auditor.get(ONE_PAGE)):
        assert "nightly import" in seen(page)
        assert "Revoke" not in page.get_data(as_text=True)
        assert "Rename" not in seen(page)
    assert auditor.get(f"{ONE_PAGE}/revoke").status_code == 403
    assert auditor.get(f"{PAGE}/revoke?key={ID}").status_code == 403


def test_members_get_no_list_and_strangers_no_page(world: World) -> None:
    refuses(world, "GET", KEYS, 403, "forbidden")
    member = browser(world, "member")
    for path in (PAGE, f"{PAGE}.csv"):
        assert member.get(path).status_code == 403
    refuses(world, "GET", KEYS, 404, "not_found")
    refuses(world, "GET", ONE, 404, "not_found")
    for path in (PAGE, f"{PAGE}.csv", ONE_PAGE, f"{ONE_PAGE}/revoke"):
        page = member.get(path)
        assert page.status_code == 404
        assert "nothing that you may see" in seen(page)


def test_that_keys_are_off_is_said_above_the_table(world: World, admin: Browser) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    assert "turned off" not in seen(admin.get(PAGE))
    me = {"user_id": "admin", "org_id": "demo", "role": "admin", "kind": "person", "name": "A", "email": "a@b.org"}
    answer(world, "GET", "/v1/me", me | {"org": ORG | {"keys_enabled": False}})
    assert "API keys are turned off for this organisation" in seen(admin.get(PAGE))


def test_the_file_has_every_page_of_the_filtered_list(
    world: World, admin: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {None: ([KEY], "two"), "two": ([OTHER | {"name": "=cmd()"}], None)}
    queries = []

    def get(_api: ReadApi, path: tuple[str, ...], _token: str, query: Mapping[str, Any]) -> Read:
        queries.append(dict(query))
        items, following = pages[query["cursor"]]
        return Read(listed(*items, next_cursor=following), 0, None)

    monkeypatch.setattr(ReadApi, "get", get)
    file = admin.get(f"{PAGE}.csv?search=x&never_used=1")
    rows = list(csv.DictReader(io.StringIO(file.get_data(as_text=True), newline="")))
    assert [row["name"] for row in rows] == ["nightly import", "'=cmd()"]
    assert queries[1] == {"limit": 200, "cursor": "two", "search": "x", "never_used": True}
    assert file.headers["Content-Type"] == "text/csv; charset=utf-8"
    day = times.to_text(times.wall_clock_ms())[:10]
    assert file.headers["Content-Disposition"] == f'attachment; filename="api-keys-demo-{day}.csv"'


@pytest.mark.parametrize("pasted", [ID, SECRET, f"curl -H 'X-API-Key: {SECRET}'"])
def test_a_key_is_found_by_its_id_or_its_text_and_only_the_id_travels_on(
    world: World, admin: Browser, pasted: str
) -> None:
    knows(world, KEY)
    found = admin.post(f"{PAGE}/find", pasted=pasted)
    assert (found.status_code, found.headers["Location"]) == (303, ONE_PAGE)
    assert SECRET not in repr(world.ledger.asked)


def test_what_is_not_found_is_said_plainly_and_nothing_pasted_comes_back(world: World, admin: Browser) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    refuses(world, "GET", ONE, 404, "not_found")
    absent = admin.post(f"{PAGE}/find", pasted=SECRET)
    assert (absent.status_code, "There is no such key in this organisation" in seen(absent)) == (404, True)
    none = admin.post(f"{PAGE}/find", pasted="my-little-secret")
    assert (none.status_code, "neither a key nor the id of one" in seen(none)) == (400, True)
    for page in (absent, none):
        assert SECRET[26:] not in page.get_data(as_text=True)
        assert "my-little-secret" not in page.get_data(as_text=True)
        assert refresh_of(page).startswith(f"{PAGE}?")
        assert "nightly import" in seen(page)


def test_revoking_asks_once_with_owner_and_last_use(world: World, admin: Browser) -> None:
    knows(world, KEY | {"last_used_at": ago(0.1), "last_used_ip": "192.0.2.7"})
    for htmx in (False, True):
        page = admin.get(f"{ONE_PAGE}/revoke?back={PAGE}", htmx=htmx)
        text = seen(page)
        assert "Revoke “nightly import”?" in text
        assert "It is in use: it was used in the last 24 hours." in text
        assert "belongs to Member. It was last used 2 hours ago from 192.0.2.7." in text
        assert "It may have leaked" in text
        assert ("<!DOCTYPE" in page.get_data(as_text=True)) is not htmx
    assert asked(world, "DELETE", ONE) == []


def test_a_key_that_rests_is_not_called_in_use(world: World, admin: Browser) -> None:
    knows(world, KEY | {"last_used_at": ago(1.1)})
    assert "in use" not in seen(admin.get(f"{ONE_PAGE}/revoke"))
    knows(world, KEY)
    assert "It was never used." in seen(admin.get(f"{ONE_PAGE}/revoke"))


def test_revoking_sends_the_reason_and_says_that_the_key_is_refused_everywhere(world: World, admin: Browser) -> None:
    knows(world, KEY)
    answer(world, "DELETE", ONE, KEY | {"revision": 10, "effective": True, "effective_ms": 38})
    done = admin.post(f"{ONE_PAGE}/revoke", back=f"{PAGE}?search=x", reason="unused", comment=" tidy up ")
    assert (done.status_code, done.headers["Location"]) == (303, f"{PAGE}?search=x")
    assert asked(world, "DELETE", ONE) == [({}, {"reason": "unused", "comment": "tidy up"})]
    answer(world, "GET", KEYS, listed())
    page = admin.get(PAGE)
    assert "“nightly import” was revoked. Refused everywhere after 38 ms." in seen(page)
    assert asked(world, "GET", KEYS)[-1][0]["min_revision"] == "10"
    assert "was revoked" not in seen(admin.get(PAGE))


def test_without_a_reason_the_command_api_fills_in_who_asked(world: World, admin: Browser) -> None:
    knows(world, KEY)
    answer(world, "DELETE", ONE, KEY | {"revision": 10})
    done = admin.post(f"{ONE_PAGE}/revoke", back="https://elsewhere.test/", reason="", comment="")
    assert done.headers["Location"] == ONE_PAGE
    assert asked(world, "DELETE", ONE) == [({}, {})]


def test_a_refused_revocation_keeps_what_was_typed(world: World, admin: Browser) -> None:
    knows(world, KEY)
    refuses(world, "DELETE", ONE, 503, "outcome_unknown")
    page = admin.post(f"{ONE_PAGE}/revoke", back=PAGE, reason="superseded", comment="by another", once="0nce")
    assert page.status_code == 503
    assert "Press the button again" in seen(page)
    html = page.get_data(as_text=True)
    assert 'value="by another"' in html
    assert '<option value="superseded" selected>' in html
    assert 'name="once" value="0nce"' in html


def test_a_form_of_somebody_elses_revokes_nothing(world: World, admin: Browser) -> None:
    knows(world, KEY)
    answer(world, "DELETE", ONE, KEY)
    answer(world, "PATCH", ONE, KEY)
    for path in (f"{ONE_PAGE}/revoke", f"{PAGE}/revoke", f"{ONE_PAGE}/name", f"{PAGE}/find"):
        assert admin.post(path, csrf="forged", key=ID).status_code == 403
    assert asked(world, "DELETE", ONE) == asked(world, "PATCH", ONE) == []


def test_a_revoked_key_leads_to_its_page_and_is_not_asked_about_again(world: World, admin: Browser) -> None:
    knows(world, KEY | {"revoked_at": ago(1)})
    page = admin.get(f"{ONE_PAGE}/revoke")
    assert (page.status_code, page.headers["Location"]) == (303, ONE_PAGE)


def test_members_revoke_their_own_key_and_no_other(world: World) -> None:
    knows(world, KEY)
    knows(world, OTHER)
    answer(world, "DELETE", ONE, KEY | {"revision": 10})
    member = browser(world, "member")
    assert "belongs to you" in seen(member.get(f"{ONE_PAGE}/revoke"))
    assert member.post(f"{ONE_PAGE}/revoke", back="/account").headers["Location"] == "/account"
    assert member.get(f"{PAGE}/{OTHER['key_id']}/revoke").status_code == 403
    assert member.get(f"{PAGE}/revoke?key={ID}").status_code == 403


def test_several_keys_are_shown_with_what_stops_before_anything_does(world: World, admin: Browser) -> None:
    knows(world, KEY)
    knows(world, OTHER | {"last_used_at": ago(0.5)})
    page = admin.get(f"{PAGE}/revoke?key={ID}&key={OTHER['key_id']}&key={ID}")
    text = seen(page)
    assert "Revoke 2 keys?" in text
    assert "2 keys of 2 users will stop working at once." in text
    assert "1 key of these was used in the last 24 hours: whatever uses it will fail." in text
    assert text.index("alert(1)") < text.index("nightly import")
    assert f'value="{ID} {OTHER["key_id"]}"' in page.get_data(as_text=True)
    assert asked(world, "DELETE", ONE) == []


def test_several_keys_are_revoked_one_by_one_and_each_outcome_is_told(world: World, admin: Browser) -> None:
    other = f"{KEYS}/{OTHER['key_id']}"
    knows(world, KEY)
    knows(world, OTHER)
    answer(world, "DELETE", ONE, KEY | {"revision": 10, "effective": True, "effective_ms": 5})
    refuses(world, "DELETE", other, 503, "outcome_unknown")
    both = f"{ID} {OTHER['key_id']}"
    page = admin.post(f"{PAGE}/revoke", key=both, reason="unused", once="0nce")
    text = seen(page)
    assert page.status_code == 409
    assert "1 key was revoked" in text
    assert "Revoked. Refused everywhere after 5 ms." in text
    assert "It is not known whether that was done." in text
    assert "1 key could not be revoked." in text
    html = page.get_data(as_text=True)
    assert f'name="key" value="{OTHER["key_id"]}"' in html
    assert 'name="once" value="0nce"' in html
    answer(world, "DELETE", other, OTHER | {"revision": 11})
    page = admin.post(f"{PAGE}/revoke", key=str(OTHER["key_id"]), reason="unused")
    assert (page.status_code, "1 key was revoked" in seen(page)) == (200, True)
    assert "<form action" not in page.get_data(as_text=True).split("<main")[1]
    assert asked(world, "DELETE", other) == [({}, {"reason": "unused"})] * 2


def test_no_tick_no_revocation_and_not_too_many_at_once(world: World, admin: Browser) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    page = admin.get(f"{PAGE}/revoke")
    assert (page.status_code, page.headers["Location"]) == (303, PAGE)
    assert "No key was ticked" in seen(admin.get(PAGE))
    many = "&".join(f"key={number:022}" for number in range(26))
    refused = admin.get(f"{PAGE}/revoke?{many}")
    assert (refused.status_code, "At most 25 keys" in seen(refused)) == (400, True)


def test_the_page_of_a_key_has_its_details(world: World, admin: Browser) -> None:
    used = {"last_used_at": ago(2), "last_used_ip": "192.0.2.7", "expires_at": ago(-3.5)}
    knows(world, KEY | used | {"scopes": ["a:read", "b:read"], "cidrs": ["192.0.2.0/24"]})
    text = seen(admin.get(ONE_PAGE))
    assert "State Active Owner Member" in text
    assert "Last used 2 days ago from 192.0.2.7 Expires in 3 days" in text
    assert "Scopes a:read, b:read Networks 192.0.2.0/24" in text
    assert "The key was not used in the last 30 days." in text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("keyledger/auth-checker/0123456789abcdef", "an auth checker"),
        ("keyledger/usage/acme", "a service of acme"),
        ("billing/eu-1", "billing/eu-1"),
    ],
)
def test_the_page_of_a_key_tells_when_from_where_with_what_and_by_whom_it_was_used(
    world: World, admin: Browser, source: str, words: str
) -> None:
    agent = {"last_used_user_agent": "<b>curl</b>/8.9", "last_used_source": source}
    knows(world, KEY | agent | {"last_used_at": ago(2), "last_used_ip": "192.0.2.7"})
    page = admin.get(ONE_PAGE)
    assert f"Last used 2 days ago from 192.0.2.7 with <b>curl</b>/8.9 (told by {words}) Expires" in seen(page)
    assert "<b>curl" not in page.get_data(as_text=True)
    knows(world, KEY | {"last_used_at": ago(2), "last_used_ip": "other"})
    assert "Last used 2 days ago from other addresses Expires" in seen(admin.get(ONE_PAGE))


def test_the_page_of_a_revoked_key_says_from_where_it_is_still_being_tried_at_once(
    world: World, admin: Browser
) -> None:
    revoked = KEY | {"revoked_at": ago(9)}
    knows(world, revoked)
    page = admin.get(ONE_PAGE)
    assert "Still being tried" not in seen(page)
    refresh = refresh_of(page)
    assert admin.get(refresh).status_code == 204
    tried = listed(trying("10.0.0.7", 4, 2), trying(None, 1, 3), trying("other", 1000, 4), next_cursor="more")
    knows(world, revoked, tried=tried)
    words = (
        "Still being tried from 10.0.0.7 (4 times, last 2 days ago ), from an unknown address (1 time, last 3 days ago ), "
        "from other addresses (1,000 times, last 4 days ago ), and from more addresses."
    )
    assert words in seen(admin.get(refresh))
    assert words in seen(admin.get(ONE_PAGE))
    assert asked(world, "GET", f"{ONE}/refused-uses")[-1] == ({"limit": "3"}, {})


def test_nobody_asks_who_tries_a_key_that_is_not_revoked(world: World, admin: Browser) -> None:
    knows(world, KEY)
    assert admin.get(ONE_PAGE).status_code == 200
    assert asked(world, "GET", f"{ONE}/refused-uses") == []


def test_above_the_table_stand_the_revoked_keys_that_are_still_being_tried(world: World, admin: Browser) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    nameless = {"key_id": "0000000000000000000009", "name": None, "owner_name": None}
    tried = listed(trying("10.0.0.7", 4, 2), trying("10.0.0.8", 1, 3, **nameless), next_cursor="more")
    refresh = refresh_of(admin.get(PAGE))
    assert admin.get(refresh).status_code == 204
    answer(world, "GET", TRIED, tried)
    for page in (admin.get(PAGE), admin.get(refresh)):
        assert "Name Owner From Refused Last nightly import Member 10.0.0.7 4 times 2 days ago" in seen(page)
        assert "0000000000000000000009 member 10.0.0.8 1 time 3 days ago" in seen(page)
        assert "there are more" in seen(page)
        assert {ONE_PAGE, f"{PAGE}/0000000000000000000009"} <= set(links(page))
    ((first, _), *_) = asked(world, "GET", TRIED)
    assert first.pop("from") >= ago(7.01)
    assert first == {"limit": "5"}


def test_a_search_and_the_next_page_are_about_active_keys_only(world: World, admin: Browser) -> None:
    answer(world, "GET", KEYS, listed(KEY))
    answer(world, "GET", TRIED, listed(trying("10.0.0.7", 4, 2)))
    for query in ("search=night", "cursor=here", "never_used=1"):
        assert "still being tried" not in seen(admin.get(f"{PAGE}?{query}"))
    assert asked(world, "GET", TRIED) == []


@pytest.mark.parametrize(
    ("more", "state"),
    [({"revoked_at": ago(1)}, "Revoked"), ({"expires_at": ago(1)}, "Expired"), ({"expires_at": ago(-1)}, "Active")],
)
def test_the_state_of_a_key_decides_what_is_offered(
    world: World, admin: Browser, more: dict[str, str], state: str
) -> None:
    knows(world, KEY | more)
    page = admin.get(ONE_PAGE)
    assert f"State {state}" in seen(page)
    assert ("Save name" in seen(page)) is (state == "Active")
    assert (f"{ONE_PAGE}/revoke?back={ONE_PAGE}" in links(page)) is (state != "Revoked")


def test_the_history_tells_who_did_what_and_why_with_revision_and_hash(world: World, admin: Browser) -> None:
    events = [
        event("KeyCreated", 4, "member", 9, name="first name"),
        event("KeyRenamed", 5, "gone", 8, name="nightly import"),
        event("KeyRevoked", 7, "operator", 2, reason="key_compromise", comment="<b>seen</b> in a chat"),
    ]
    answer(world, "GET", "/v1/orgs/demo/users/member", USER)
    answer(world, "GET", "/v1/orgs/demo/users/gone", USER | {"status": "erased", "name": None})
    uses = [use(5, "VALID", 40), use(4, "EXPIRED", 2), use(1, "REVOKED", 12)]
    knows(world, KEY | {"revoked_at": ago(2)}, uses, events)
    page = admin.get(ONE_PAGE)
    text = seen(page)
    told = [
        "Created as “first name” by Member",
        "revision 4 · aaaaaaaaaaaa",
        "Renamed to “nightly import” by an erased user",
        "Used 40 times, refused 2 times",
        "Revoked by an operator: it may have leaked: <b>seen</b> in a chat",
        "revision 7 · bbbbbbbbbbbb",
        "Refused 12 times",
    ]
    places = [text.find(part) for part in told]
    assert -1 not in places, list(zip(told, places, strict=True))
    assert places == sorted(places)
    assert HASHES[0] in text
    assert "<b>seen" not in page.get_data(as_text=True)
    assert asked(world, "GET", f"{ONE}/history") == [({"uses": "exclude", "limit": "200"}, {})]


def test_the_end_of_a_long_history_is_shown_and_what_is_left_out_is_said(
    world: World, admin: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    knows(world, KEY | {"revoked_at": ago(1)})
    events = [event("KeyRenamed", number, "admin", 2, name=f"name {number}.") for number in range(1, 1201)]
    events.append(event("KeyRevoked", 1201, "admin", 1, reason="other"))
    get = ReadApi.get

    def in_pages(api: ReadApi, path: tuple[str, ...], token: str, query: Mapping[str, Any]) -> Read:
        if path[-1] != "history":
            return get(api, path, token, query)
        first = int(query["cursor"] or 0)
        following = str(first + 200) if first + 200 < len(events) else None
        return Read(listed(*events[first : first + 200], next_cursor=following), 0, None)

    monkeypatch.setattr(ReadApi, "get", in_pages)
    text = seen(admin.get(ONE_PAGE))
    assert "The first 201 events of this key are left out here; the last 1000 follow." in text
    assert "“name 201.”" not in text
    assert text.index("“name 202.”") < text.index("“name 1200.”") < text.index("Revoked by you: another reason")
    events = events[-400:]
    assert "left out" not in seen(admin.get(ONE_PAGE))


def test_uses_are_drawn_with_a_table_that_says_the_same(world: World, admin: Browser) -> None:
    knows(world, KEY, [use(3, "VALID", 40), use(3, "IP_NOT_ALLOWED", 2), use(1, "VALID", 1), use(60, "VALID", 7)])
    page = admin.get(ONE_PAGE)
    html = page.get_data(as_text=True)
    assert html.count("<rect") == 3
    assert html.count('class="refused"') == 1
    assert ": 40 accepted, 2 refused</title>" in html
    assert f"Day Accepted Refused {day(1)} 1 0 {day(3)} 40 2" in seen(page)
    assert "41 uses accepted, 2 uses refused." in seen(page)
    assert " style=" not in html


def test_members_see_their_own_key_and_an_admin_without_a_name(world: World) -> None:
    events = [event("KeyCreated", 4, "member", 9, name="n"), event("KeyRevoked", 5, "admin", 1, reason="admin")]
    knows(world, KEY | {"revoked_at": ago(1)}, events=events)
    refuses(world, "GET", "/v1/orgs/demo/users/admin", 404, "not_found")
    page = browser(world, "member").get(ONE_PAGE)
    text = seen(page)
    assert "Created as “n” by you" in text
    assert "Revoked by an admin: an admin decided so" in text
    assert "/orgs/demo/users/member" not in links(page)


def test_a_key_is_renamed_by_its_owner(world: World) -> None:
    knows(world, KEY)
    answer(world, "PATCH", ONE, KEY | {"name": "hourly import", "revision": 10})
    member = browser(world, "member")
    done = member.post(f"{ONE_PAGE}/name", name=" hourly import ")
    assert (done.status_code, done.headers["Location"]) == (303, ONE_PAGE)
    assert asked(world, "PATCH", ONE) == [({}, {"name": " hourly import "})]
    assert "The key is now called “hourly import”." in seen(member.get(ONE_PAGE))


def test_a_refused_name_stays_in_its_field_with_the_reason(world: World, admin: Browser) -> None:
    knows(world, KEY)
    refuses(world, "PATCH", ONE, 409, "name_taken")
    page = admin.post(f"{ONE_PAGE}/name", name="taken already")
    assert page.status_code == 409
    assert "There is an active key with this name already." in seen(page)
    assert 'value="taken already"' in page.get_data(as_text=True)
    assert refresh_of(page).startswith(f"{ONE_PAGE}?")


def test_an_open_page_follows_uses_alone_and_everything_when_something_happened(world: World, admin: Browser) -> None:
    knows(world, KEY)
    refresh = refresh_of(admin.get(ONE_PAGE))
    assert admin.get(refresh).status_code == 204
    world.ledger.asked.clear()
    answer(world, "GET", ONE, KEY | {"last_used_at": ago(0)})
    part = admin.get(refresh)
    assert "just now" in seen(part)
    assert "History" not in seen(part)
    assert "Revoke nightly import" in part.get_data(as_text=True)
    assert [path for _, path, _, _ in world.ledger.asked] == [ONE]
    knows(
        world, KEY | {"revoked_at": ago(0), "revision": 9}, events=[event("KeyRevoked", 9, "admin", 0, reason="other")]
    )
    whole = admin.get(refresh)
    assert whole.headers["HX-Retarget"] == "#key"
    assert "State Revoked" in seen(whole)
    assert "Revoked by you: another reason" in seen(whole)
    assert "Save name" not in seen(whole)


def test_what_many_rows_weigh_leaves_room_on_the_page(world: World, admin: Browser) -> None:
    rows = [
        KEY
        | {"key_id": f"{number:022}", "user_id": "u" * 22, "name": "a name of a usual length", "last_used_at": ago(1)}
        for number in range(25)
    ]
    answer(world, "GET", KEYS, listed(*rows, next_cursor="x" * 80))
    assert len(admin.get(PAGE).get_data()) < 33_000


def test_a_whole_key_in_the_search_leads_to_its_page_and_out_of_the_address(world: World, admin: Browser) -> None:
    answered = admin.get(f"{PAGE}?search=kl_{KEY['key_id']}_{'a' * 49}")
    assert (answered.status_code, answered.headers["Location"]) == (303, f"{PAGE}/{KEY['key_id']}")
