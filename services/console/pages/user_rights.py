"""What gives a user its rights and takes them away. GET asks once and says what it means, POST does it."""

from collections.abc import Callable
from typing import Any

from flask import Response, request

from schemas.problems import Problem
from services.console.caller import Caller, must_administer, not_found
from services.console.pages.blueprint import pages
from services.console.pages.rendering import REFUSED, back, confirm, done, in_form, show
from services.console.pages.user import address
from services.console.pages.visit import Visit, console, here
from services.console.wording import count, effect, user_name

_ASK_OR_DO = ["GET", "POST"]


@pages.route("/orgs/<org>/users/<user>/disabled", methods=_ASK_OR_DO)
def disable(org: str, user: str) -> Response:
    """Disable a user: neither it nor its keys get in any more."""
    guest, _, found = _about(org, user)
    name = user_name(found)

    def do() -> Response:
        answer = guest.command("PUT", "orgs", org, "users", user, "enabled", body={"enabled": False})
        console().sessions.end_all(org, user)
        return done(back(address(org, user)), effect(answer, f"{name} was disabled."))

    meaning = [_keys_stop(found)]
    if found["kind"] == "person":
        meaning.append("They cannot sign in any more, and are signed out everywhere.")
    meaning.append("Nothing is deleted: the account can be enabled again.")
    return _ask_once(do, f"Disable {name}?", meaning, "Disable")


@pages.route("/orgs/<org>/users/<user>/enabled", methods=_ASK_OR_DO)
def enable(org: str, user: str) -> Response:
    """Enable a disabled user again."""
    guest, _, found = _about(org, user)
    name = user_name(found)

    def do() -> Response:
        # Disabled by a program, it may have been without a word to the console: no old session comes back to life.
        console().sessions.end_all(org, user)
        guest.command("PUT", "orgs", org, "users", user, "enabled", body={"enabled": True})
        return done(back(address(org, user)), f"{name} was enabled.")

    keys = found["active_keys"]
    meaning = [f"{count(keys, 'key')} will work again." if keys else "There are no keys that would work again."]
    if found["kind"] == "person":
        meaning.append("They can sign in again.")
    return _ask_once(do, f"Enable {name}?", meaning, "Enable", danger=False)


@pages.route("/orgs/<org>/users/<user>/password-reset", methods=_ASK_OR_DO)
def reset_password(org: str, user: str) -> Response:
    """Give a person a temporary password; the answer is the only page that ever shows it."""
    _, caller, found = _about(org, user)
    if found["kind"] != "person" or found["status"] == "erased":
        raise not_found()
    name = user_name(found)

    def do() -> Response:
        password = console().members.reset_password(caller, org, user)
        title = f"{name} has a new temporary password"
        return show("user_password.html", title=title, password=password, address=address(org, user))

    meaning = [
        "They get a temporary password, which you see once and pass on. The old one stops working at once.",
        "They are signed out everywhere, and choose a password of their own when they sign in. Their keys go on working.",
    ]
    return _ask_once(do, f"Reset the password of {name}?", meaning, "Reset password")


@pages.route("/orgs/<org>/users/<user>/erase", methods=_ASK_OR_DO)
def erase(org: str, user: str) -> Response:
    """Erase a user for good."""
    guest, caller, found = _about(org, user)
    name = user_name(found)

    def do() -> Response:
        answer = console().members.erase(caller, org, user)
        guest.acted(org, answer["revision"])
        return done(f"/orgs/{org}/users", effect(answer, "The account was erased."))

    meaning = [
        "Name, e-mail address and password are deleted, and the account can never be used again.",
        _keys_stop(found),
        "What the account and its keys did stays in the history, without a name. This cannot be undone.",
    ]
    return _ask_once(do, f"Erase {name}?", meaning, "Erase for good")


def _about(org: str, user: str) -> tuple[Visit, Caller, dict[str, Any]]:
    """The visit, who that is, and the user that it is about. Raises Problem for whoever may not do any of this."""
    guest = here()
    caller = guest.caller()
    must_administer(caller, org)
    return guest, caller, guest.read("orgs", org, "users", user)


def _keys_stop(user: dict[str, Any]) -> str:
    keys = user["active_keys"]
    return f"{count(keys, 'key')} will stop working at once." if keys else "There are no active keys that would stop."


def _ask_once(do: Callable[[], Response], title: str, meaning: list[str], button: str, danger: bool = True) -> Response:
    refused: dict[str, Any] = {}
    if request.method == "POST":
        try:
            return do()
        except Problem as problem:
            if problem.status not in REFUSED:
                raise
            refused = in_form(problem)
    return confirm(title, meaning, button, danger=danger, **refused)
