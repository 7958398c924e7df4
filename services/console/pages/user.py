"""One user: who it is, which keys it has and had, its role, and new keys for service accounts."""

from typing import Any

from flask import Response, request

from schemas import times
from schemas.problems import Problem
from services.console import forms, wording
from services.console.pages.blueprint import pages
from services.console.pages.rendering import REFUSED, done, in_form, live
from services.console.pages.users import PAGE, pager
from services.console.pages.visit import Visit, console, here, is_part


@pages.get("/orgs/<org>/users/<user>")
def org_user(org: str, user: str) -> Response:
    """Account information and the current keys, or with `keys=past` those that are revoked or expired."""
    return _user(here(), org, user)


@pages.post("/orgs/<org>/users/<user>/role")
def change_role(org: str, user: str) -> Response:
    """Give a user another role."""
    guest, role = here(), request.form.get("role", "")
    try:
        answer = guest.command("PUT", "orgs", org, "users", user, "role", body={"role": role})
    except Problem as problem:
        if problem.status not in REFUSED:
            raise
        return _user(guest, org, user, **in_form(problem))
    if user == guest.session.user_id:
        return done("/", wording.effect(answer, f"You are now {wording.ROLES[role]}."))
    name = wording.user_name(guest.read("orgs", org, "users", user))
    return done(address(org, user), wording.effect(answer, f"{name} is now {wording.ROLES[role]}."))


@pages.post("/orgs/<org>/users/<user>/keys")
def create_key(org: str, user: str) -> Response:
    """Create a key for a service account; the answer is the only page that ever shows it."""
    guest = here()
    try:
        made = guest.command("POST", "orgs", org, "keys", body=forms.key_body(request.form) | {"user_id": user})
    except Problem as problem:
        if problem.status not in REFUSED:
            raise
        return _user(guest, org, user, **in_form(problem))
    return _user(guest, org, user, made=made, typed={}, status=201)  # What is typed next is another key.


def address(org: str, user: str) -> str:
    """The page of a user."""
    return f"/orgs/{org}/users/{user}"


def _user(guest: Visit, org: str, user: str, status: int = 200, **context: Any) -> Response:
    is_past, path = request.args.get("keys") == "past", address(org, user)
    listed = _keys(guest, org, user, is_past)
    given: dict[str, Any] = {"org": org, "path": path, "address": path, "is_past": is_past, "made": None}
    given |= pager(path, {"keys": "past"} if is_past else {}, listed["next_cursor"])
    if is_part():
        may_revoke = request.args.get("may") == "1"
    else:
        found, may_revoke = guest.read("orgs", org, "users", user), guest.administers(org)
        given |= {"user": found, "name": wording.user_name(found), "may_create": _may_create(guest, found)}
        given["sso_only"] = console().sso.is_required(org)
    data = {"keys": listed["items"], "more": listed["next_cursor"] is not None}
    # Only an offer, so the page may pass it on to its part, and spare a read each second.
    marks = {"may": "1"} if may_revoke else {}
    return live(
        "user.html", "_user_keys.html", data, status=status, marks=marks, may_revoke=may_revoke, **given | context
    )


def _may_create(guest: Visit, user: dict[str, Any]) -> bool:
    # Only in one's own organisation: an operator acts from outside, and owns nothing there.
    me, is_service_account = guest.me, user["kind"] == "service_account" and user["status"] == "active"
    return bool(is_service_account and me["org_id"] == user["org_id"] and me["role"] == "admin")


def _keys(guest: Visit, org: str, user: str, is_past: bool) -> dict[str, Any]:
    """A page of the current or past keys. The read API lists past keys among all others, so these are left out."""
    state, cursor = "all" if is_past else "active", request.args.get("cursor")
    while True:
        listed = guest.read("orgs", org, "users", user, "keys", state=state, limit=PAGE, cursor=cursor)
        if not is_past:
            return listed
        listed["items"] = [key for key in listed["items"] if _is_past(key, times.to_text(times.wall_clock_ms()))]
        cursor = listed["next_cursor"]
        if listed["items"] or cursor is None:
            return listed


def _is_past(key: dict[str, Any], now: str) -> bool:
    return bool(key["revoked_at"]) or (key["expires_at"] is not None and key["expires_at"] <= now)
