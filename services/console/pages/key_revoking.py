"""Revoking one key or several. GET says what it means and asks once, POST does it."""

from typing import Any, Final

from flask import Response, request
from markupsafe import Markup

from schemas import times
from schemas.problems import Problem
from services.console import key_story, wording
from services.console.caller import must_administer
from services.console.pages import rendering
from services.console.pages.blueprint import pages
from services.console.pages.key import address, is_own
from services.console.pages.rendering import REFUSED, confirm, done, in_form, show
from services.console.pages.users import PAGE
from services.console.pages.visit import Visit, here, typed
from services.console.wording import count

# Each is read and revoked by itself; nobody can tick more than one page of the table shows.
_MOST: Final = PAGE
_FIELDS: Final = (
    {"kind": "choice", "name": "reason", "label": "Reason", "options": key_story.CHOICES},
    {
        "kind": "field",
        "name": "comment",
        "label": "Comment (optional)",
        "maxlength": 500,
        "autocomplete": "off",
        "hint": "It is kept in the history, so write nothing personal in it.",
    },
)


@pages.route("/orgs/<org>/keys/<key>/revoke", methods=["GET", "POST"])
def revoke_key(org: str, key: str) -> Response:
    """Revoke a key: one's own, or as an admin any."""
    guest, refused = here(), {}
    found = guest.read("orgs", org, "keys", key)
    if not is_own(guest, found):
        must_administer(guest.caller(), org)
    if request.method == "POST":
        try:
            answer = guest.command("DELETE", "orgs", org, "keys", key, body=_why())
            return done(rendering.back(address(org, key)), wording.effect(answer, f"“{found['name']}” was revoked."))
        except Problem as problem:
            if problem.status not in REFUSED:
                raise
            refused = in_form(problem)
    elif found["revoked_at"]:
        return rendering.redirect(address(org, key))
    return confirm(f"Revoke “{found['name']}”?", _effect(guest, found), "Revoke", fields=_FIELDS, **refused)


@pages.get("/orgs/<org>/keys/revoke")
def ask_to_revoke_keys(org: str) -> Response:
    """What revoking the keys with these ids (`key`, several times) stops."""
    keys = _chosen(here(), org)
    if not keys:
        return done(f"/orgs/{org}/keys", "No key was ticked, so there is none to revoke.")
    return _several(org, keys)


@pages.post("/orgs/<org>/keys/revoke")
def revoke_keys(org: str) -> Response:
    """Revoke them one by one; the answer has the outcome of each, and a form for what was refused."""
    guest = here()
    keys = _chosen(guest, org)
    results: dict[str, str] = {}
    refused: dict[str, str] = {}
    for key in keys:
        try:
            answer = guest.command("DELETE", "orgs", org, "keys", key["key_id"], body=_why())
            results[key["key_id"]] = wording.effect(answer, "Revoked.")
        except Problem as problem:
            refused[key["key_id"]] = wording.problem(problem)
    return _several(org, keys, results, refused)


def _several(
    org: str, keys: list[dict[str, Any]], results: dict[str, str] | None = None, refused: dict[str, str] | None = None
) -> Response:
    results, refused = results or {}, refused or {}
    left = [key for key in keys if not key["revoked_at"] and key["key_id"] not in results]
    owners = len({key["user_id"] for key in left})
    in_use = [key["key_id"] for key in keys if _is_in_use(key)]
    # What is in use comes first: there is more to think about.
    keys = sorted(keys, key=lambda key: key["last_used_at"] or "", reverse=True)
    return show(
        "keys_revoke.html",
        status=409 if refused else 200,
        problem=f"{count(len(refused), 'key')} could not be revoked." if refused else None,
        org=org,
        at=f"/orgs/{org}/keys",
        keys=keys,
        left=left,
        whose=f"{count(len(left), 'key')} of {count(owners, 'user')}",
        in_use=in_use,
        results=results,
        refused=refused,
        fields=_FIELDS,
    )


def _chosen(guest: Visit, org: str) -> list[dict[str, Any]]:
    """The keys that are named, for who may revoke them. Raises Problem."""
    must_administer(guest.caller(), org)
    ids = list(dict.fromkeys(" ".join(request.values.getlist("key")).split()))
    if len(ids) > _MOST:
        raise Problem(400, "too_many_keys", f"At most {_MOST} keys can be revoked at once: one page of the table")
    return [guest.read("orgs", org, "keys", key) for key in ids]


def _effect(guest: Visit, key: dict[str, Any]) -> list[str]:
    owner = "you" if is_own(guest, key) else wording.owner_name(key)
    effect = [f"The key belongs to {owner}. {_last_use(key)}", "It stops working at once. Revoking cannot be undone."]
    loud = [Markup("<strong>It is in use: it was used in the last 24 hours.</strong>")] if _is_in_use(key) else []
    return [*loud, *effect]


def _why() -> dict[str, str]:
    return {name: text for name in ("reason", "comment") if (text := typed(name)) is not None}


def _last_use(key: dict[str, Any]) -> str:
    if not key["last_used_at"]:
        return "It was never used."
    words = wording.distance(times.to_ms(key["last_used_at"]), times.wall_clock_ms())
    return f"It was last used {words}" + (
        f" from {wording.place(key['last_used_ip'])}." if key["last_used_ip"] else "."
    )


def _is_in_use(key: dict[str, Any]) -> bool:
    return bool(key["last_used_at"]) and times.to_ms(key["last_used_at"]) > times.wall_clock_ms() - times.DAY_MS
