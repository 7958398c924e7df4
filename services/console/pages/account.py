"""One's own account: details, name, password, and one's API keys."""

from typing import Any

from flask import Response, request

from schemas.problems import Problem, load
from services.console import bodies, forms
from services.console.members import person_of
from services.console.pages import visit
from services.console.pages.blueprint import pages
from services.console.pages.rendering import REFUSED, done, in_form, live, retarget, show
from services.console.pages.users import PAGE, pager
from services.console.pages.visit import Visit, console, here, is_part


@pages.get("/account")
def account() -> Response:
    """Basic details and, where they are turned on, the person's API keys."""
    return _account(here())


@pages.post("/account/name")
def rename_me() -> Response:
    """Change my name."""
    guest = here()
    try:
        body = load(bodies.NameRequest(), {"name": request.form.get("name", "")})
    except Problem as problem:
        return _account(guest, **in_form(problem))
    caller = guest.caller()
    console().people.rename(caller.org_id, caller.user_id, body["name"])
    return done("/account", "Your name was changed.")


@pages.get("/account/password")
def password() -> Response:
    """The form that changes the password."""
    return show("password.html", temporary=here().session.must_change_password)


@pages.post("/account/password")
def change_password() -> Response:
    """Change my password."""
    guest, form = here(), request.form
    try:
        if form.get("new") != form.get("again"):
            again = ("/again", "is not the same as the new password")
            raise Problem(400, "malformed", "the new password was typed in two ways", (again,))
        body = load(bodies.PasswordRequest(), {"old": form.get("old", ""), "new": form.get("new", "")})
        me = person_of(console().people, guest.caller())
        hashed = console().members.change_password(me, body["old"], body["new"], visit.address())
    except Problem as problem:
        if problem.status not in REFUSED and problem.code != "wrong_password":
            raise
        return show("password.html", temporary=guest.session.must_change_password, **in_form(problem))
    guest.begin_anew(hashed)
    return done("/account", "Your password was changed. Everywhere else you were signed out.")


@pages.post("/account/keys")
def create_my_key() -> Response:
    """Create an API key for myself; the answer is the only page that ever shows it."""
    guest = here()
    try:
        made = guest.command("POST", "orgs", guest.session.org_id, "keys", body=forms.key_body(request.form))
    except Problem as problem:
        if problem.status not in REFUSED:
            raise
        return _account(guest, **in_form(problem))
    return _account(guest, made=made, typed={}, status=201)


def _account(guest: Visit, status: int = 200, **context: Any) -> Response:
    org = guest.session.org_id
    cursor = request.args.get("cursor") if request.method == "GET" else None
    listed = guest.read("orgs", org, "users", guest.session.user_id, "keys", limit=PAGE, cursor=cursor)
    enabled = (
        guest.read("orgs", org, counts="exclude")["keys_enabled"] if is_part() else guest.me["org"]["keys_enabled"]
    )
    data = {"keys": listed["items"], "more": listed["next_cursor"], "keys_enabled": enabled}
    pages_of_it = pager("/account", {}, listed["next_cursor"])
    given = pages_of_it | {"org": org, "made": None, "path": "/account", "marks": {"on": str(enabled)}} | context
    # The whole section comes or goes with the switch; otherwise only its table is renewed, never what is being typed.
    if is_part() and request.args.get("on") != str(enabled):
        return retarget(live("account.html", "_my_keys_section.html", data, **given), "#api-keys")
    return live("account.html", "_my_keys.html", data, status=status, **given)
