"""The history of an organisation, as browsers of admins, auditors, operators, members and others see it."""

from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any, get_args

import pytest
from werkzeug.test import TestResponse

from schemas import times
from schemas.events import LedgerEvent
from services.console import org_story
from tests.integration.console_parts import World, running_console
from tests.integration.page_parts import KEY, ORG, USER, Browser, answer, asked, browser, listed, seen

HISTORY = "/v1/orgs/demo/history"
CHECKPOINT = "/v1/orgs/demo/checkpoint"
BUNDLE = "/v1/orgs/demo/bundle"
USERS = "/v1/orgs/demo/users"
PAGE = "/orgs/demo/history"
PROOF, EXPORT = f"{PAGE}/proof", f"{PAGE}/bundle.zip"
ID = str(KEY["key_id"])
SIGNED = {"time": "2026-11-24T09:00:00.000Z", "origin": "keyledger/0123", "revision": 17, "head": "c" * 64, "root": "d"}
HOSTILE = '<img src=x onerror="alert(1)">'
FILES = b"PK\x03\x04" + bytes(range(256)) * 8000


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    with running_console(database, tmp_path) as made:
        yield made


@pytest.fixture
def admin(world: World) -> Browser:
    made = browser(world, "ada", "admin")
    knows(world)
    return made


def event(kind: str, revision: int, user: str = "ada", who: str = "user", /, **data: Any) -> dict[str, Any]:
    return {
        "revision": revision,
        "type": kind,
        "time": f"2026-11-23T10:00:{revision:02}.000Z",
        "actor": {"user_id": user, "type": who},
        "data": data,
        "hash": f"{revision:064x}",
        "parent": f"{revision - 1:064x}",
        "void": False,
    }


def knows(world: World, *events: dict[str, Any], following: str | None = None, **proof: Any) -> None:
    """The read API answers so about the organisation, its checkpoint, and the two users."""
    answer(world, "GET", HISTORY, listed(*events, next_cursor=following))
    answer(world, "GET", CHECKPOINT, {"signed": None, "revision": 17, "verified": None} | proof)
    answer(world, "GET", f"{USERS}/ada", USER | {"user_id": "ada", "name": "Ada Lovelace"})
    answer(world, "GET", f"{USERS}/member", USER)


def refuses(world: World, path: str, status: int, code: str, **more: Any) -> None:
    answer(world, "GET", path, {"code": code, "detail": "no"} | more, status)


def links(response: TestResponse) -> list[str]:
    return [unescape(part.split('"')[0]) for part in response.get_data(as_text=True).split('href="')[1:]]


def refreshes(response: TestResponse) -> list[str]:
    """Where the live parts of a page ask: the proof, and the table where it is live."""
    return [unescape(part.split('"')[0]) for part in response.get_data(as_text=True).split('hx-get="')[1:]]


def query_of(world: World) -> dict[str, str]:
    """What the history was last asked for."""
    return asked(world, "GET", HISTORY)[-1][0]


def test_each_event_has_its_revision_time_and_hash_what_happened_who_did_it_and_its_key(
    world: World, admin: Browser
) -> None:
    knows(
        world,
        event("OrgRegistered", 1, "olga", "operator", name="Demo"),
        event("KeyCreated", 4, "member", key_id=ID, user_id="member", name="nightly import", last4="abcd"),
        event("KeyRevoked", 5, key_id=ID, reason="key_compromise", comment="seen in a chat"),
    )
    answer(world, "GET", f"/v1/orgs/demo/keys/{ID}", KEY)
    page = admin.get(PAGE)
    text = seen(page)
    assert page.status_code == 200
    assert "1 000000000000 23 Nov 2026, 10:00:01 UTC Organisation registered as “Demo” olga (an operator) –" in text
    assert "4 000000000000 23 Nov 2026, 10:00:04 UTC API key created Member nightly import" in text
    assert "API key revoked: it may have leaked: seen in a chat Ada Lovelace nightly import" in text
    assert {"/orgs/demo/users/member", f"/orgs/demo/keys/{ID}#history-title"} <= set(links(page))
    assert asked(world, "GET", HISTORY) == [({"limit": "25"}, {})]


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("OrgKeysEnabled", {}, "API keys turned on"),
        ("OrgKeysDisabled", {"reason": "asked for"}, "API keys turned off: asked for"),
        ("UserAdded", {"user_id": "member", "kind": "person", "role": "auditor"}, "Person added as an auditor: Member"),
        (
            "UserAdded",
            {"user_id": "member", "kind": "service_account", "role": "member"},
            "Service account added as a member: Member",
        ),
        ("UserRoleChanged", {"user_id": "member", "role": "admin"}, "Role changed to an admin: Member"),
        ("UserDisabled", {"user_id": "member"}, "User disabled: Member"),
        ("UserEnabled", {"user_id": "member"}, "User enabled: Member"),
        ("PersonErased", {"user_id": "member"}, "User erased: Member"),
        ("KeyCreated", {"key_id": ID, "user_id": "member", "name": "n"}, "API key created for Member Ada Lovelace n"),
        ("KeyRenamed", {"key_id": ID, "name": "new"}, "API key renamed to “new” Ada Lovelace new"),
        (
            "LedgerResumed",
            {"offsets": [7, 9], "reason": "looked at"},
            "after a halt, with 2 records set aside: looked at",
        ),
        ("SomethingNewer", {"key_id": None}, "SomethingNewer Ada Lovelace –"),
    ],
)
def test_what_happened_is_said_in_words(
    world: World, admin: Browser, kind: str, data: dict[str, Any], words: str
) -> None:
    knows(world, event(kind, 3, **data))
    assert words in seen(admin.get(PAGE))


def test_every_type_of_event_has_words_and_can_be_chosen(admin: Browser) -> None:
    assert {one.__name__ for one in get_args(LedgerEvent)} == org_story.TYPES.keys()
    html = admin.get(PAGE).get_data(as_text=True)
    assert [kind for kind in org_story.TYPES if f'<option value="{kind}">' not in html] == []


def test_an_erased_user_is_told_by_id_and_an_unknown_one_has_no_page(world: World, admin: Browser) -> None:
    knows(world, event("UserDisabled", 3, "gone", user_id="nobody"))
    answer(world, "GET", f"{USERS}/gone", USER | {"user_id": "gone", "status": "erased", "name": None})
    refuses(world, f"{USERS}/nobody", 404, "not_found")
    page = admin.get(PAGE)
    assert "User disabled: nobody gone (erased) –" in seen(page)
    assert "/orgs/demo/users/gone" in links(page)
    assert "/orgs/demo/users/nobody" not in links(page)


def test_what_an_api_key_did_is_said_with_the_page_of_that_key(world: World, admin: Browser) -> None:
    by_key = event("KeyRenamed", 6, "member", "api_key", key_id=ID, name="new")
    by_key["actor"]["key_id"] = "0000000000000000000009"
    knows(world, by_key)
    page = admin.get(PAGE)
    assert "Member , with an API key" in seen(page)
    assert "/orgs/demo/keys/0000000000000000000009" in links(page)


def test_operators_see_which_operator_it_was(world: World) -> None:
    operator = browser(world, "olga", "admin", org="platform")
    knows(world, event("OrgRegistered", 1, "olga", "operator", name="Demo"))
    answer(world, "GET", "/v1/orgs/demo", ORG)
    answer(world, "GET", "/v1/orgs/platform/users/olga", USER | {"user_id": "olga", "name": "Olga"})
    page = operator.get(PAGE)
    assert "History of Demo" in seen(page)
    assert "registered as “Demo” Olga –" in seen(page)
    assert "/orgs/platform/users/olga" in links(page)


def test_a_void_event_is_marked_and_leads_to_no_key_that_never_was(world: World, admin: Browser) -> None:
    knows(world, event("KeyCreated", 4, key_id=ID, user_id="ada", name="lost the race") | {"void": True})
    refuses(world, f"/v1/orgs/demo/keys/{ID}", 404, "not_found")
    page = admin.get(f"{PAGE}?void=include")
    assert query_of(world) == {"limit": "25", "void": "include"}
    assert f"4 void 000000000000 23 Nov 2026, 10:00:04 UTC API key created Ada Lovelace {ID}" in seen(page)
    assert f"/orgs/demo/keys/{ID}#history-title" not in links(page)
    assert 'name="void" type="checkbox" value="include" checked' in page.get_data(as_text=True)


def test_text_of_anybody_is_text(world: World, admin: Browser) -> None:
    knows(
        world,
        event("KeyCreated", 4, "member", key_id=ID, user_id="member", name=HOSTILE),
        event("OrgKeysDisabled", 5, reason=HOSTILE),
        event("OrgRegistered", 6, HOSTILE, "operator", name=HOSTILE),
        signed=SIGNED | {"origin": HOSTILE},
        verified=True,
    )
    answer(world, "GET", f"{USERS}/member", USER | {"name": HOSTILE})
    answer(world, "GET", USERS, listed(USER | {"name": HOSTILE}))
    page = admin.get(f"{PAGE}?user=member&actor={HOSTILE}&key={HOSTILE}&since={HOSTILE}")
    assert page.status_code == 200
    assert "<img" not in page.get_data(as_text=True)
    assert page.get_data(as_text=True).count("&lt;img src=x") >= 8


def test_filters_are_passed_on_and_stay_with_the_next_page(world: World, admin: Browser) -> None:
    knows(world, event("KeyRevoked", 5, key_id="k" * 22, reason="other"), following="more")
    refuses(world, f"/v1/orgs/demo/keys/{'k' * 22}", 404, "not_found")
    answer(world, "GET", USERS, listed(USER))
    filters = f"user=member%40example.org&key={ID}&type=KeyRevoked"
    page = admin.get(f"{PAGE}?{filters}&since=2026-11-20T10:30&until=2026-11-25T11:00:00%2B01:00&cursor=here")
    assert query_of(world) == {
        "limit": "25",
        "cursor": "here",
        "user": "member",
        "key": ID,
        "type": "KeyRevoked",
        "since": "2026-11-20T10:30:00.000Z",
        "until": "2026-11-25T10:00:00.000Z",
    }
    kept = "since=2026-11-20T10%3A30%3A00.000Z&until=2026-11-25T10%3A00%3A00.000Z&type=KeyRevoked"
    assert f"{PAGE}?user=member%40example.org&key={ID}&{kept}&cursor=more" in links(page)
    assert f"{PAGE}?key={ID}&{kept}" in links(page)
    assert "About Member ×" in seen(page)
    html = page.get_data(as_text=True)
    assert 'value="2026-11-20T10:30:00.000"' in html
    assert '<option value="KeyRevoked" selected>' in html


def test_the_last_days_narrow_what_an_exact_time_leaves(world: World, admin: Browser) -> None:
    before = times.wall_clock_ms() - 7 * times.DAY_MS
    admin.get(f"{PAGE}?days=7&since=2026-01-01")
    assert before <= times.to_ms(query_of(world)["since"]) <= before + 60_000
    admin.get(f"{PAGE}?days=7&since=2100-01-01")
    assert query_of(world)["since"] == "2100-01-01T00:00:00.000Z"
    admin.get(f"{PAGE}?days=8&void=perhaps&type=Nothing")
    assert query_of(world) == {"limit": "25"}


@pytest.mark.parametrize(
    ("typed", "found", "meant"),
    [
        ("member@example.org", [USER, USER | {"user_id": "u2", "email": "a-member@example.org"}], "member"),
        ("Mem", [USER], "member"),
        ("olga-of-platform", [], "olga-of-platform"),
    ],
)
def test_a_user_is_meant_by_email_name_or_id(
    world: World, admin: Browser, typed: str, found: list[Any], meant: str
) -> None:
    answer(world, "GET", USERS, listed(*found))
    page = admin.get(f"{PAGE}?actor={typed}")
    assert query_of(world) == {"limit": "25", "actor": meant}
    assert asked(world, "GET", USERS) == [({"search": typed, "limit": "25"}, {})]
    world.ledger.asked.clear()
    assert admin.get(refreshes(page)[1]).status_code == 204
    assert [(path, query) for _, path, query, _ in world.ledger.asked] == [(HISTORY, {"limit": "25", "actor": meant})]


@pytest.mark.parametrize(
    ("typed", "found", "words"),
    [
        ("e", [USER, USER | {"user_id": "u2"}], "fits several users: type the e-mail address or the id"),
        ("nobody at all", [], "fits no user of this organisation"),
    ],
)
def test_a_text_that_means_no_single_user_is_said_beside_its_field(
    world: World, admin: Browser, typed: str, found: list[Any], words: str
) -> None:
    answer(world, "GET", USERS, listed(*found))
    page = admin.get(f"{PAGE}?user={typed}")
    assert (page.status_code, words in seen(page)) == (400, True)
    assert asked(world, "GET", HISTORY) == []
    assert f'value="{typed}"' in page.get_data(as_text=True)


def test_what_the_read_api_refuses_is_said_beside_its_field(world: World, admin: Browser) -> None:
    errors = [{"pointer": "/since", "detail": "is not a time"}]
    refuses(world, HISTORY, 400, "malformed", errors=errors)
    page = admin.get(f"{PAGE}?since=yesterday")
    assert query_of(world)["since"] == "yesterday"
    assert (page.status_code, "is not a time" in seen(page)) == (400, True)
    assert len(refreshes(page)) == 1
    assert '<details class="more" open>' in page.get_data(as_text=True)


def test_only_the_end_of_the_list_asks_for_more_and_is_sent_when_there_is_some(world: World, admin: Browser) -> None:
    first, second = event("OrgRegistered", 1, name="Demo"), event("OrgKeysEnabled", 2)
    knows(world, first, following="more")
    assert len(refreshes(admin.get(PAGE))) == 1
    knows(world, first)
    _, refresh = refreshes(admin.get(PAGE))
    world.ledger.asked.clear()
    assert admin.get(refresh, htmx=True).status_code == 204
    assert [path for _, path, _, _ in world.ledger.asked] == [HISTORY]
    knows(world, first, second)
    part = admin.get(refresh, htmx=True)
    assert "API keys turned on" in seen(part)
    assert "<h1" not in part.get_data(as_text=True)


def test_without_a_checkpoint_it_says_so_and_offers_no_bundle(world: World, admin: Browser) -> None:
    page = admin.get(PAGE)
    assert "Not signed yet" in seen(page)
    assert EXPORT not in links(page)


def test_what_is_verified_is_said_with_what_came_after_and_a_bundle_of_it(world: World, admin: Browser) -> None:
    knows(world, signed=SIGNED, verified=True)
    page = admin.get(PAGE)
    assert "Verified up to revision 17" in seen(page)
    assert "Checkpoint signed at 24 Nov 2026, 09:00:00 UTC" in seen(page)
    assert "Nothing has happened since." in seen(page)
    assert EXPORT in links(page)
    knows(world, signed=SIGNED, verified=True, revision=18)
    assert "1 later event waits for the next checkpoint." in seen(admin.get(PAGE))


def test_a_contradiction_is_an_alarm(world: World, admin: Browser) -> None:
    knows(world, signed=SIGNED, verified=False)
    for page in (admin.get(PAGE), admin.get(refreshes(admin.get(PAGE))[0].split("&seen")[0])):
        assert "The archive contradicts the signed checkpoint of 24 Nov 2026, 09:00:00 UTC" in seen(page)
        assert 'role="alert"' in page.get_data(as_text=True)
        assert EXPORT not in links(page)


def test_a_checkpoint_that_is_not_the_notarys_is_an_alarm_and_no_outage(world: World, admin: Browser) -> None:
    refuses(world, CHECKPOINT, 500, "archive_broken")
    page = admin.get(PAGE)
    assert (page.status_code, "The archive contradicts the signed checkpoint." in seen(page)) == (200, True)
    refuses(world, CHECKPOINT, 500, "internal_error")
    assert admin.get(PAGE).status_code == 503


def test_an_event_that_was_edited_is_an_alarm_instead_of_the_list(world: World, admin: Browser) -> None:
    knows(world, event("OrgKeysEnabled", 2), signed=SIGNED, verified=True)
    refresh = refreshes(admin.get(PAGE))[1]
    refuses(world, HISTORY, 500, "archive_broken", detail="record abc has other bytes")
    assert admin.get(refresh, htmx=True).headers["HX-Refresh"] == "true"
    page = admin.get(PAGE)
    assert page.status_code == 200
    assert "The archive contradicts the signed checkpoint." in seen(page)
    assert "an event of this page is not the one that was written" in seen(page)
    assert "record abc has other bytes" in seen(page)
    assert "Verified" not in seen(page)
    assert EXPORT not in links(page)
    (refresh,) = refreshes(page)
    assert "HX-Refresh" not in admin.get(refresh, htmx=True).headers
    knows(world, event("OrgKeysEnabled", 2))
    assert admin.get(refresh, htmx=True).headers["HX-Refresh"] == "true"


def test_an_archive_that_has_not_come_so_far_contradicts_nothing(world: World, admin: Browser) -> None:
    knows(world, signed=SIGNED, verified=False, revision=16)
    text = seen(admin.get(PAGE))
    assert "up to revision 17; the archive ends at revision 16" in text
    assert "contradicts" not in text


def test_the_proof_of_an_open_page_follows_by_itself(world: World, admin: Browser) -> None:
    refresh = refreshes(admin.get(PAGE))[0]
    assert refresh.startswith(f"{PROOF}?")
    assert admin.get(refresh, htmx=True).status_code == 204
    knows(world, signed=SIGNED, verified=True)
    part = admin.get(refresh, htmx=True)
    assert "Verified up to revision 17" in seen(part)
    assert "<h1" not in part.get_data(as_text=True)
    whole = admin.get(PROOF)
    assert (whole.status_code, whole.headers["Location"]) == (303, PAGE)


def test_the_bundle_is_passed_on_byte_for_byte_under_its_name_and_kept_nowhere(world: World, admin: Browser) -> None:
    name = "demo-2026-11-24T09-00-00.000Z.zip"
    answer(world, "GET", BUNDLE, FILES, Content_Disposition=f"attachment; filename={name}")
    download = admin.get(EXPORT)
    assert (download.status_code, download.mimetype) == (200, "application/zip")
    assert download.get_data() == FILES
    assert download.headers["Content-Length"] == str(len(FILES))
    assert download.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert download.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in download.headers["Content-Security-Policy"]


@pytest.mark.parametrize("disposition", ["attachment", 'attachment; filename="../../a b\\r.zip"'])
def test_a_bundle_without_a_good_name_gets_one(world: World, admin: Browser, disposition: str) -> None:
    answer(world, "GET", BUNDLE, FILES, Content_Disposition=disposition)
    name = admin.get(EXPORT).headers["Content-Disposition"].removeprefix('attachment; filename="demo-')
    assert name.startswith(times.to_text(times.wall_clock_ms())[:11])
    assert name.endswith('Z.zip"')


@pytest.mark.parametrize(
    ("status", "code", "words", "answered"),
    [
        (409, "not_signed", "Nothing was signed for this organisation yet", 409),
        (500, "archive_broken", "The archive contradicts the signed checkpoint", 500),
        (503, "not_caught_up", "No.", 503),
        (500, "internal_error", "does not answer right now", 503),
        (403, "forbidden", "Your role does not allow this.", 403),
        (404, "not_found", "nothing here", 404),
    ],
)
def test_why_there_is_no_bundle_is_said_on_a_page(
    world: World, admin: Browser, status: int, code: str, words: str, answered: int
) -> None:
    refuses(world, BUNDLE, status, code)
    page = admin.get(EXPORT)
    assert (page.status_code, page.mimetype) == (answered, "text/html")
    assert words in seen(page)


def test_a_bundle_that_is_cut_short_never_looks_whole(world: World, admin: Browser) -> None:
    answer(world, "GET", BUNDLE, FILES, Content_Length=str(len(FILES) + 1), Connection="close")
    page = admin.get(EXPORT)
    assert (page.status_code, page.mimetype) == (503, "text/html")


def test_a_session_that_ended_leads_to_the_sign_in_page_and_not_into_a_file(world: World, admin: Browser) -> None:
    refuses(world, BUNDLE, 401, "not_found")
    page = admin.get(EXPORT)
    assert (page.status_code, "Sign in" in seen(page)) == (401, True)


def test_an_auditor_gets_there_from_the_first_page(world: World) -> None:
    auditor = browser(world, "otto", "auditor")
    knows(world, event("OrgRegistered", 1, name="Demo"), signed=SIGNED, verified=True)
    answer(world, "GET", USERS, listed(USER))
    answer(world, "GET", BUNDLE, FILES)
    first = auditor.get(auditor.get("/").headers["Location"])
    assert PAGE in links(first)
    page = auditor.get(PAGE)
    assert f'href="{PAGE}" aria-current="page"' in page.get_data(as_text=True)
    assert "Organisation registered as “Demo”" in seen(page)
    assert auditor.get(EXPORT).get_data() == FILES


def test_members_are_offered_no_history_and_get_none(world: World) -> None:
    member = browser(world, "member")
    for path in (HISTORY, CHECKPOINT, BUNDLE):
        refuses(world, path, 403, "forbidden")
    answer(world, "GET", "/v1/orgs/demo/users/member/keys", listed())
    assert PAGE not in links(member.get("/account"))
    for path in (PAGE, f"{PROOF}?part=1", EXPORT):
        page = member.get(path)
        assert (page.status_code, "Your role does not allow this." in seen(page)) == (403, True)


def test_a_key_and_a_user_lead_to_what_happened_to_them(world: World, admin: Browser) -> None:
    answer(world, "GET", f"/v1/orgs/demo/keys/{ID}", KEY)
    answer(world, "GET", f"/v1/orgs/demo/keys/{ID}/usage", {"items": []})
    answer(world, "GET", f"/v1/orgs/demo/keys/{ID}/history", listed())
    answer(world, "GET", f"{USERS}/member/keys", listed())
    assert f"{PAGE}?key={ID}" in links(admin.get(f"/orgs/demo/keys/{ID}"))
    of_user = links(admin.get("/orgs/demo/users/member"))
    assert {f"{PAGE}?user=member", f"{PAGE}?actor=member"} <= set(of_user)


def test_what_many_rows_weigh_leaves_room_on_the_page(world: World, admin: Browser) -> None:
    many = [
        event("KeyCreated", number, key_id=f"{number:022}", user_id="member", name="a name of a usual length")
        for number in range(25)
    ]
    knows(world, *many, following="x" * 80, signed=SIGNED, verified=True)
    assert len(admin.get(PAGE).get_data()) < 33_000
