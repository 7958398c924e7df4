"""Signing in and out: by password, by single sign-on, and again in the middle of a form."""

from typing import Any, Final, cast

import msgspec
from flask import Response, g, request

from schemas.problems import Problem, load
from services.console import bodies, wording
from services.console.pages import rendering, visit
from services.console.pages.blueprint import pages
from services.console.pages.rendering import show
from services.console.pages.visit import console, here
from services.console.sessions import derive, fresh_cookie
from services.console.sign_in import Session

_SHOWN_KEPT: Final = 2000
_NEXT: Final = "keyledger-next"


class _Kept(msgspec.Struct):
    """A form that was sent after its session had ended."""

    path: str
    fields: dict[str, str]


@pages.get("/")
def home() -> Response:
    """Where people begin: what their role is for."""
    guest = here()
    if guest.is_operator:
        return rendering.done("/orgs")
    org = guest.me["org_id"]
    return rendering.done(f"/orgs/{org}/users" if guest.oversees(org) else "/account")


@pages.get("/sign-in")
def sign_in() -> Response:
    """The sign-in page."""
    return rendering.sign_in_page(next=rendering.own(request.args.get("next", "")) or "/")


@pages.post("/sign-in")
def sign_in_with_password() -> Response:
    """Sign in with e-mail and password."""
    going_to = rendering.own(request.form.get("next", "")) or "/"
    try:
        body = _credentials(visit.typed("email") or "", request.form.get("password", ""))
        session = console().sign_in.with_password(**body, address=visit.address(), user_agent=visit.user_agent())
    except Problem as problem:
        g.outcome = problem.code
        return rendering.sign_in_page(**rendering.in_form(problem), kept=request.form.get("kept"), next=going_to)
    return _enter(session, going_to, session.person.password_hash)


@pages.get("/sign-in/sso")
def sign_in_with_sso() -> Response:
    """To the provider of single sign-on."""
    answer = rendering.redirect(_provider().begin(derive(visit.cookie(), "sso")))
    going_to = rendering.own(request.args.get("next", "")) or "/"
    # Where to go after coming back; the provider need not know. It lives as long as people take to sign in there.
    answer.set_cookie(
        _NEXT, going_to, max_age=900, path="/sign-in", httponly=True, samesite="Lax", secure=console().is_https
    )
    return answer


@pages.get("/sign-in/sso/callback")
def back_from_sso() -> Response:
    """Back from the provider, with a code that says who it is."""
    try:
        email = _provider().finish(derive(visit.cookie(), "sso"), request.args.to_dict())
        session = console().sign_in.with_email(email, visit.address(), visit.user_agent())
    except Problem as problem:
        g.outcome = problem.code
        return rendering.sign_in_page(problem.status, why=wording.problem(problem), is_refusal=True)
    answer = _enter(session, rendering.own(request.cookies.get(_NEXT, "")) or "/", None)
    answer.delete_cookie(_NEXT, path="/sign-in")
    return answer


@pages.post("/sign-out")
def sign_out() -> Response:
    """End this browser's session."""
    console().sessions.end(here().session.cookie)
    g.cookie = fresh_cookie()
    return rendering.redirect("/sign-in")


def _credentials(email: str, password: str) -> dict[str, str]:
    """Of the shape that the JSON call wants; nothing else can be anyone's. Raises Problem 401."""
    try:
        return cast(dict[str, str], load(bodies.SessionRequest(), {"email": email, "password": password}))
    except Problem as problem:
        raise Problem(401, "bad_credentials", "the e-mail address or the password is wrong") from problem


def _enter(session: Session, going_to: str, password_hash: str | None) -> Response:
    # A new cookie, so that nobody who knew the one before is signed in with it.
    person, sessions, before = session.person, console().sessions, visit.cookie()
    was_of = sessions.was_of(before)
    sessions.end(before)
    g.cookie = sessions.begin(person.org_id, person.user_id, session.revision, password_hash)
    if person.must_change_password:
        return rendering.redirect("/account/password")
    kept = _kept(request.form.get("kept", ""))
    # What somebody else typed into this browser is not this person's to send.
    if kept is None or was_of != (person.org_id, person.user_id):
        return rendering.redirect(going_to)
    shown = [(wording.field(name), value[:_SHOWN_KEPT]) for name, value in kept.fields.items()]
    shown = [(label, value) for label, value in shown if label and value]
    return show("continue.html", action=kept.path, kept=kept.fields, shown=shown)


def _kept(text: str) -> _Kept | None:
    try:
        kept = msgspec.json.decode(text, type=_Kept)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return kept if rendering.own(kept.path) else None


def _provider() -> Any:
    provider = console().oidc
    if provider is None:
        raise Problem(404, "not_found", "this console has no single sign-on")
    return provider
