"""The pages as one blueprint: what holds before and after every view, and what becomes of everything that goes wrong."""

import re
from typing import Final

import psycopg
import structlog
from flask import Blueprint, Response, g, request
from psycopg_pool import PoolTimeout

from schemas import fields
from schemas.problems import Problem
from services.console import wording
from services.console.pages import rendering, visit
from services.console.pages.visit import PasswordFirst, SignedOut, StaleForm

pages = Blueprint("pages", __name__, template_folder="../templates")
WHOLE_KEY: Final = re.compile(f"_({fields.KEY_ID})_[0-9A-Za-z]{{49}}")
"""The text of a key, from its id on."""
_log = structlog.get_logger()
# What a browser may send that is not signed in; any other POST leads to the sign-in page before its form is judged.
_OPEN = frozenset({"pages.sign_in_with_password"})

for name, filter_ in wording.FILTERS.items():
    pages.add_app_template_filter(filter_, name)


@pages.before_request
def judge_form() -> None:
    """No form does anything unless it is one of ours, given to this very browser. Raises SignedOut, StaleForm."""
    if request.method == "POST":
        if request.endpoint not in _OPEN:
            visit.here()
        visit.must_be_own_form()


@pages.before_request
def keep_keys_out_of_addresses() -> Response | None:
    """A whole key that was pasted into a search must not stay in the address: its id leads to its page."""
    whole = WHOLE_KEY.search(request.query_string.decode(errors="replace")) if request.method == "GET" else None
    if whole is None:
        return None
    org = (request.view_args or {}).get("org")
    return rendering.redirect(f"/orgs/{org}/keys/{whole[1]}" if org else request.path)


@pages.after_request
def finish(response: Response) -> Response:
    """Headers that every page has."""
    return rendering.finish(response)


@pages.errorhandler(SignedOut)
def signed_out(ended: SignedOut) -> Response:
    """To the sign-in page."""
    return rendering.signed_out(ended)


@pages.errorhandler(PasswordFirst)
def password_first(_error: PasswordFirst) -> Response:
    """To the one page that a temporary password opens."""
    return rendering.redirect("/account/password")


@pages.errorhandler(StaleForm)
def stale_form(_error: StaleForm) -> Response:
    """Nothing was done."""
    return rendering.stale_form()


@pages.errorhandler(Problem)
def problem(problem: Problem) -> Response:
    """A page that says why not."""
    return rendering.not_done(problem)


@pages.errorhandler(psycopg.OperationalError)
@pages.errorhandler(PoolTimeout)
def database_away(_error: Exception) -> Response:
    """PostgreSQL holds the sessions, so there is nothing to show without it."""
    _log.warning("PostgreSQL is away", route=str(request.url_rule))
    g.pop("visit", None)
    return rendering.not_done(Problem(503, "database_away", "PostgreSQL does not answer right now", retry_after_s=1))


@pages.errorhandler(Exception)
def bug(error: Exception) -> Response:
    """It is in the log, with what it takes to find it."""
    _log.error("unexpected error", route=str(request.url_rule), exc_info=error)
    g.pop("visit", None)
    return rendering.not_done(Problem(500, "internal_error", "this should not have happened; it is in the log"))
