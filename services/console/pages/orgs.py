"""Organisations: the list that operators see, and what admins and operators decide for one."""

from typing import Any, Final

from flask import Response, request

from schemas.problems import Problem
from schemas.validation import PLATFORM
from services.console import wording
from services.console.caller import must_administer, not_found
from services.console.pages import rendering
from services.console.pages.blueprint import pages
from services.console.pages.rendering import REFUSED, confirm, done, in_form, live
from services.console.pages.users import PAGE, pager
from services.console.pages.visit import Visit, console, here, is_part, typed

_REASON: Final = {
    "kind": "field",
    "name": "reason",
    "label": "Reason (optional)",
    "maxlength": 500,
    "autocomplete": "off",
    "hint": "It is kept in the history of the organisation, where its admins can read it.",
}


@pages.get("/orgs")
def orgs() -> Response:
    """All organisations, newest first, for operators."""
    return _orgs(here())


@pages.post("/orgs")
def register_org() -> Response:
    """Register an organisation."""
    guest = here()
    body = {name: text for name in ("name", "org_id") if (text := typed(name)) is not None}
    try:
        made = guest.command("POST", "orgs", body=body)
    except Problem as problem:
        if problem.status not in REFUSED:
            raise
        return _orgs(guest, **in_form(problem))
    named = made["name"] or made["org_id"]
    return done(f"/orgs/{made['org_id']}", f"{named} is registered. Next, add its first admin and turn API keys on.")


@pages.get("/orgs/<org>")
def org(org: str) -> Response:
    """What is set for an organisation, for those who see all of it."""
    guest = here()
    found = guest.read("orgs", org)
    if "users" not in found:  # The read API counts only for who may see what is counted.
        raise Problem(403, "forbidden", "only admins and auditors of the organisation and operators may see this")
    if is_part():
        return live("org.html", "_org.html", found, may_change=request.args.get("may_change") == "1")
    may_change = guest.administers(org)
    marks = {"may_change": "1"} if may_change else {}
    # How people sign in is this console's own to tell, to the same as its JSON call for it.
    sign_in = _sign_in_rule(org) if may_change else None
    return live("org.html", "_org.html", found, marks=marks, may_change=may_change, sign_in=sign_in)


@pages.get("/orgs/<org>/keys-enabled")
def ask_to_switch_keys(org: str) -> Response:
    """What turning API keys on (`enabled=1`) or off (`enabled=0`) does."""
    return _ask_to_switch_keys(here(), org)


@pages.post("/orgs/<org>/keys-enabled")
def switch_keys(org: str) -> Response:
    """Turn API keys on or off."""
    guest, enabled, reason = here(), _flag("enabled"), typed("reason")
    body = {"enabled": enabled} | ({"reason": reason} if reason else {})
    try:
        answer = guest.command("PUT", "orgs", org, "keys-enabled", body=body)
    except Problem as problem:
        if problem.status not in REFUSED:
            raise
        return _ask_to_switch_keys(guest, org, **in_form(problem))
    notice = "API keys are turned on." if enabled else wording.effect(answer, "API keys are turned off.")
    return done(rendering.back(f"/orgs/{org}"), notice)


@pages.get("/orgs/<org>/sign-in-rule")
def ask_to_set_sign_in_rule(org: str) -> Response:
    """What refusing passwords (`sso_only=1`) or taking them again (`sso_only=0`) does."""
    return _ask_to_set_sign_in_rule(here(), org)


@pages.post("/orgs/<org>/sign-in-rule")
def set_sign_in_rule(org: str) -> Response:
    """Refuse the passwords of an organisation, or take them again."""
    guest, sso_only = here(), _flag("sso_only")
    # There is one: the rule is kept in this console's own table, which takes any id.
    guest.read("orgs", org, counts="exclude")
    try:
        console().members.require_sso(guest.caller(), org, sso_only)
    except Problem as problem:
        if problem.status not in REFUSED:
            raise
        return _ask_to_set_sign_in_rule(guest, org, **in_form(problem))
    words = "are refused from now on" if sso_only else "are taken again"
    return done(rendering.back(f"/orgs/{org}"), f"Passwords of this organisation {words}.")


def _orgs(guest: Visit, status: int = 200, **context: Any) -> Response:
    found = guest.read("orgs", limit=PAGE, cursor=request.args.get("cursor"))
    following = found["next_cursor"]
    data = {"orgs": found["items"], "more": following is not None}
    return live("orgs.html", "_orgs_table.html", data, status=status, **pager("/orgs", {}, following), **context)


def _ask_to_switch_keys(guest: Visit, org: str, **refused: Any) -> Response:
    enabled = _flag("enabled")
    found = guest.read("orgs", org)
    must_administer(guest.caller(), org)
    keys, users = wording.count(found["active_keys"], "key"), wording.count(found["key_owners"], "user")
    whose = f"{keys} of {users}"
    if enabled:
        title, button = "Turn API keys on?", "Turn API keys on"
        again = f" {whose} will work again." if found["active_keys"] else ""
        effect = f"Every user of {_called(found)} may then create API keys.{again}"
    else:
        title, button = "Turn API keys off?", "Turn API keys off"
        stops = f"{whose} will stop." if found["active_keys"] else "There is no active key, so nothing stops now."
        effect = (
            f"{stops} Nobody in {_called(found)} can create a key until they are turned on again. "
            "No key is deleted: those that are neither revoked nor expired by then work again."
        )
    fields = [{"kind": "hidden", "name": "enabled", "value": int(enabled)}, _REASON]
    return confirm(title, effect, button, danger=not enabled, fields=fields, **refused)


def _ask_to_set_sign_in_rule(guest: Visit, org: str, **refused: Any) -> Response:
    sso_only = _flag("sso_only")
    found = guest.read("orgs", org, counts="exclude")
    must_administer(guest.caller(), org)
    if sso_only:
        title, button = "Refuse passwords?", "Refuse passwords"
        effect = (
            f"People of {_called(found)}, its admins too, will sign in with {console().sso_name or 'single sign-on'} "
            "only, by the e-mail address that is known here. Whoever came in with a password has to sign in anew, you too. "
            "API keys go on working."
        )
    else:
        title, button = "Take passwords again?", "Take passwords again"
        effect = f"People of {_called(found)} can sign in with their passwords again. API keys are not touched."
    fields = [{"kind": "hidden", "name": "sso_only", "value": int(sso_only)}]
    return confirm(title, effect, button, danger=sso_only, fields=fields, **refused)


def _sign_in_rule(org: str) -> dict[str, Any] | None:
    """What the page says about signing in; nothing where there is nothing to choose."""
    sso = console().sso
    sso_only = sso.is_required(org)
    if not sso_only and (not sso.configured or org == PLATFORM):
        return None
    return {"sso_only": sso_only, "name": console().sso_name or "single sign-on"}


def _called(found: dict[str, Any]) -> str:
    return str(found["name"] or found["org_id"])


def _flag(name: str) -> bool:
    """Which way a switch is to go: `1` or `0`, in the address that asks and in the form that does it."""
    text = request.values.get(name)
    if text not in ("0", "1"):
        raise not_found()
    return text == "1"
