"""One key: what it is, how often it was used, and everything that happened to it."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from flask import Response, request

from schemas import times
from schemas.problems import Problem
from services.console import chart, key_story
from services.console.pages.blueprint import pages
from services.console.pages.rendering import REFUSED, done, in_form, live, retarget
from services.console.pages.users import NOTHING
from services.console.pages.visit import Visit, here, is_part
from services.console.wording import ERASED, user_name

_CHART_DAYS: Final = 30
# Uses are kept as long (DESIGN, section 2), and the read API sums up no more of them at once.
_STORY_DAYS: Final = 400
_MOST_EVENTS: Final = 1000
_MOST_ADDRESSES: Final = 3
_PAGE: Final = 200


@pages.get("/orgs/<org>/keys/<key>")
def org_key(org: str, key: str) -> Response:
    """Details, a chart of the last 30 days, and the history."""
    return _key(here(), org, key)


@pages.post("/orgs/<org>/keys/<key>/name")
def rename_key(org: str, key: str) -> Response:
    """Give a key another name."""
    guest = here()
    try:
        answer = guest.command("PATCH", "orgs", org, "keys", key, body={"name": request.form.get("name", "")})
    except Problem as problem:
        if problem.status not in REFUSED:
            raise
        return _key(guest, org, key, **in_form(problem))
    return done(address(org, key), f"The key is now called “{answer['name']}”.")


def address(org: str, key: str) -> str:
    """The page of a key."""
    return f"/orgs/{org}/keys/{key}"


def is_own(guest: Visit, key: Mapping[str, Any]) -> bool:
    """Whether a key of the read API belongs to who looks at it."""
    return (guest.session.org_id, guest.session.user_id) == (key["org_id"], key["user_id"])


def _key(guest: Visit, org: str, key: str, **context: Any) -> Response:
    found, now_ms = guest.read("orgs", org, "keys", key), times.wall_clock_ms()
    data = {"key": found, "state": _state(found, times.to_text(now_ms)), "tried": NOTHING}
    if found["revoked_at"]:
        data["tried"] = guest.read("orgs", org, "keys", key, "refused-uses", limit=_MOST_ADDRESSES)
    marks = {"revision": str(found["revision"])}
    if is_part() and request.args.get("revision") == marks["revision"]:
        given: dict[str, Any] = {name: request.args.get(name) == "1" for name in ("may_revoke", "oversees")}
    else:
        given = _offers(guest, org, data) | _history(guest, org, key, now_ms)
    marks |= {name: "1" for name in ("may_revoke", "oversees") if given[name]}
    given |= {"org": org, "at": address(org, key)} | context
    if "story" not in given:
        return live("key.html", "_key_facts.html", data, path=given["at"], marks=marks, **given)
    # Something happened to the key: the open page gets all of its content anew.
    answer = live("key.html", "_key.html", data, path=given["at"], marks=marks, **given)
    return retarget(answer, "#key") if is_part() else answer


def _state(key: Mapping[str, Any], now: str) -> str:
    if key["revoked_at"]:
        return "revoked"
    return "expired" if key["expires_at"] and key["expires_at"] <= now else "active"


def _offers(guest: Visit, org: str, data: Mapping[str, Any]) -> dict[str, bool]:
    """What to offer. Only owners and admins rename, and only what is in use; the APIs decide again."""
    own, state = is_own(guest, data["key"]), data["state"]
    is_admin = guest.me["org_id"] == org and guest.me["role"] == "admin"
    return {
        "oversees": guest.oversees(org),
        "may_revoke": state != "revoked" and (own or guest.administers(org)),
        "may_rename": state == "active" and (own or is_admin),
    }


def _history(guest: Visit, org: str, key: str, now_ms: int) -> dict[str, Any]:
    # From the beginning of a day on, today included; a day less, for the read API's clock may be past midnight already.
    first = times.to_text(now_ms - now_ms % times.DAY_MS - (_STORY_DAYS - 2) * times.DAY_MS)
    counts = guest.read("orgs", org, "keys", key, "usage", step="day", **{"from": first})["items"]
    events, left_out = _events(guest, org, key)
    days = chart.by_day(counts, now_ms, _CHART_DAYS)
    return {
        "story": key_story.story(events, counts, _names(guest, org)),
        "left_out": left_out,
        "days": days,
        "bars": chart.bars(days),
        "size": (chart.WIDTH, chart.HEIGHT),
    }


def _events(guest: Visit, org: str, key: str) -> tuple[list[dict[str, Any]], int]:
    """The newest events of a key, oldest first, at most _MOST_EVENTS; and how many older ones are left out.

    Read to the end, for what came last matters most: a key is revoked once, and renamed as often as somebody likes.
    """
    events: deque[dict[str, Any]] = deque(maxlen=_MOST_EVENTS)
    count, cursor, is_last = 0, None, False
    while not is_last:
        listed = guest.read("orgs", org, "keys", key, "history", uses="exclude", limit=_PAGE, cursor=cursor)
        events.extend(listed["items"])
        count += len(listed["items"])
        cursor = listed["next_cursor"]
        is_last = cursor is None
    return list(events), count - len(events)


def _names(guest: Visit, org: str) -> Callable[[Mapping[str, Any]], str]:
    """Names the actors of a history; each is looked up once."""
    known = {guest.session.user_id: "you"}

    def name(actor: Mapping[str, Any]) -> str:
        if actor["type"] == "operator":
            return "an operator"
        user = actor["user_id"]
        if user not in known:
            known[user] = _look_up(guest, org, user)
        return known[user] + (", with an API key" if actor.get("key_id") else "")

    return name


def _look_up(guest: Visit, org: str, user: str) -> str:
    try:
        found = user_name(guest.read("orgs", org, "users", user))
    except Problem as problem:
        if problem.status not in {403, 404}:
            raise
        return "an admin"  # Members see no other users, and nobody but an admin acts on their keys.
    return "an erased user" if found == ERASED else found
