"""The active keys of an organisation: the table with its filters, the same as a file, and a way to find one key."""

import re
from typing import Any, Final
from urllib.parse import quote

from flask import Response, request

from schemas import fields, times
from schemas.problems import Problem
from services.console import key_list_csv
from services.console.pages.blueprint import WHOLE_KEY, pages
from services.console.pages.rendering import in_form, live, redirect
from services.console.pages.users import NOTHING, PAGE, about, pager, with_query
from services.console.pages.visit import Visit, here, is_part
from services.console.wording import user_name

_CHOICES: Final = {"unused_for": ("30", "90", "180"), "never_used": ("1",), "expiring": ("30",)}
_MOST: Final = 200
# Uses of revoked keys: what happens now, and no more of it than one takes in at a glance.
_TRIED_DAYS, _MOST_TRIED = 7, 5
_KEY_ID: Final = re.compile(f"(?<![0-9A-Za-z])({fields.KEY_ID})(?![0-9A-Za-z])")


@pages.get("/orgs/<org>/keys")
def org_keys(org: str) -> Response:
    """The table, newest first. Parameters: search, owner, unused_for (days), never_used, expiring (days), cursor."""
    return _org_keys(here(), org)


@pages.get("/orgs/<org>/keys.csv")
def download_keys(org: str) -> Response:
    """All keys that pass the same filters. Read to the end before the first byte, so that no file is cut short."""
    guest, now_ms = here(), times.wall_clock_ms()
    keys: list[dict[str, Any]] = []
    query, cursor, is_last = _query(_asked(), now_ms), None, False
    while not is_last:
        found = guest.read("orgs", org, "keys", limit=_MOST, cursor=cursor, **query)
        keys += found["items"]
        cursor = found["next_cursor"]
        is_last = cursor is None
    answer = Response(key_list_csv.text(keys), content_type="text/csv; charset=utf-8")
    name = f"api-keys-{org}-{times.to_text(now_ms)[:10]}.csv"
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


@pages.post("/orgs/<org>/keys/find")
def find_key(org: str) -> Response:
    """To the page of the key with this id or this full text, of which only the id is looked at."""
    guest, key_id = here(), key_id_in(request.form.get("pasted", ""))
    if key_id is None:
        wrong = Problem(400, "no_key", "There is neither a key nor the id of one in what you pasted")
        return _org_keys(guest, org, **in_form(wrong))
    try:
        guest.read("orgs", org, "keys", key_id)
    except Problem as problem:
        if problem.status != 404:
            raise
        absent = Problem(404, "no_such_key", "There is no such key in this organisation, neither active nor past")
        return _org_keys(guest, org, **in_form(absent))
    return redirect(f"/orgs/{org}/keys/{key_id}")


def key_id_in(text: str) -> str | None:
    """The id of the first key in a text: of a full key, else a word that is one. Pure."""
    found = WHOLE_KEY.search(text) or _KEY_ID.search(text)
    return found[1] if found else None


def _org_keys(guest: Visit, org: str, status: int = 200, **refused: Any) -> Response:
    at, asked, found, is_listed = f"/orgs/{org}/keys", _asked(), NOTHING, True
    try:
        query = _query(asked, times.wall_clock_ms())
        found = guest.read("orgs", org, "keys", limit=PAGE, cursor=request.args.get("cursor"), **query)
    except Problem as problem:
        if problem.status != 400:
            raise
        refused, is_listed = in_form(problem), False
        status = refused.pop("status")
    given: dict[str, Any] = {"org": org, "at": at, "asked": asked, "is_listed": is_listed}
    if is_part():
        may_revoke = request.args.get("may") == "1"
    else:
        may_revoke = guest.administers(org)
        given["about"] = about(guest, org)
        given["owner"] = _called(guest, org, asked.get("owner"))
        given["csv_href"] = with_query(f"{at}.csv", asked)
        given["all_owners_href"] = with_query(at, asked | {"owner": ""})
    following = found["next_cursor"]
    given |= pager(at, asked, following) | {"may_revoke": may_revoke, "back": quote(with_query(at, asked), safe="/")}
    is_first = is_listed and not asked and not request.args.get("cursor")
    tried = _tried(guest, org) if is_first else NOTHING
    data = {"keys": found["items"], "more": following is not None}
    data |= {"tried": tried["items"], "tried_more": tried["next_cursor"] is not None}
    # Only an offer, so the page may pass it on to its part, and spare a read each second.
    marks = {"may": "1"} if may_revoke else {}
    return live("org_keys.html", "_org_keys_table.html", data, path=at, status=status, marks=marks, **given, **refused)


def _tried(guest: Visit, org: str) -> dict[str, Any]:
    """The revoked keys that somebody goes on trying, last tried first."""
    since = times.to_text(times.wall_clock_ms() - _TRIED_DAYS * times.DAY_MS)
    return guest.read("orgs", org, "refused-uses", limit=_MOST_TRIED, **{"from": since})


def _asked() -> dict[str, str]:
    """The filters that are set, as they stand in the address; a choice that is not offered counts as none."""
    given = {name: request.args.get(name, "").strip() for name in ("search", "owner", *_CHOICES)}
    return {name: value for name, value in given.items() if value and value in _CHOICES.get(name, (value,))}


def _query(asked: dict[str, str], now_ms: int) -> dict[str, Any]:
    """The same filters as the read API has them."""
    query: dict[str, Any] = {name: asked[name] for name in ("search", "owner") if name in asked}
    if "unused_for" in asked:
        query["unused_since"] = times.to_text(now_ms - int(asked["unused_for"]) * times.DAY_MS)
    if "never_used" in asked:
        query["never_used"] = True
    if "expiring" in asked:
        query["expires_before"] = times.to_text(now_ms + int(asked["expiring"]) * times.DAY_MS)
    return query


def _called(guest: Visit, org: str, owner: str | None) -> str | None:
    """What to call the owner whose keys alone are shown."""
    if owner is None:
        return None
    try:
        return user_name(guest.read("orgs", org, "users", owner))
    except Problem as problem:
        if problem.status != 404:
            raise
        return owner
