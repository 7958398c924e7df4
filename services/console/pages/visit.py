"""One request of a signed-in browser: who it is, what it may read and command, and that its forms are its own."""

import hmac
import re
from dataclasses import dataclass, field, replace
from typing import IO, Any, Final, cast

from flask import current_app, g, request

from schemas.problems import Problem
from schemas.validation import PLATFORM
from services.console.caller import Caller
from services.console.parts import Console
from services.console.sessions import BrowserSession, form_token, fresh_cookie

SLOW_MS: Final = 3000
"""From here on a page says that what it shows is old."""
_ONCE: Final = re.compile("[A-Za-z0-9_-]{1,255}")
_WITH_TEMPORARY_PASSWORD: Final = frozenset({"pages.password", "pages.change_password", "pages.sign_out"})


class SignedOut(Exception):
    """This browser is not signed in, or no longer. `why` is a sentence for the sign-in page."""

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


class PasswordFirst(Exception):
    """This person came in with a temporary password, which is only good for choosing another."""


class StaleForm(Exception):
    """A form that this browser got before it signed in again, or that is not ours at all."""


@dataclass(slots=True)
class Visit:
    """A signed-in person's request. `lag_ms` is the oldest of what was read, `behind` that an own change is missing."""

    console: Console
    session: BrowserSession
    token: str = field(repr=False)
    lag_ms: int = 0
    behind: bool = False
    halted: str | None = None
    _me: dict[str, Any] | None = None

    @property
    def me(self) -> dict[str, Any]:
        """The read API's answer about this person: user_id, org_id, role, kind, name, email, org."""
        if self._me is None:
            self._me = self.read("me", counts="exclude")
        return self._me

    @property
    def is_operator(self) -> bool:
        """Operators are the admins of the org `platform`."""
        return bool(self.me["org_id"] == PLATFORM and self.me["role"] == "admin")

    def administers(self, org: str) -> bool:
        """Whether to offer what admins may do. Only an offer: the APIs decide again."""
        return self.is_operator or (self.me["org_id"] == org and self.me["role"] == "admin")

    def oversees(self, org: str) -> bool:
        """Whether to offer the lists of a whole organisation: admins, auditors, operators."""
        return self.administers(org) or (self.me["org_id"] == org and self.me["role"] == "auditor")

    def read(self, *path: str, **query: Any) -> dict[str, Any]:
        """`GET /v1/<path>` at the read API, at or after this browser's last command. Raises Problem, SignedOut."""
        waiting = self._wait_for(path)
        try:
            found = self.console.read_api.get(path, self.token, query | waiting)
        except Problem as problem:
            if problem.status == 401:
                raise self._refused(problem) from problem
            if problem.code != "not_caught_up" or not waiting:
                raise
            self.behind = True
            found = self.console.read_api.get(path, self.token, query)
        self.lag_ms = max(self.lag_ms, found.lag_ms or 0)
        self.halted = self.halted or found.halted
        return found.document

    def download(self, *path: str) -> tuple[IO[bytes], str | None]:
        """`GET /v1/<path>` at the read API as a file, and its name there. Raises Problem, SignedOut."""
        try:
            return self.console.read_api.download(path, self.token)
        except Problem as problem:
            if problem.status == 401:
                raise self._refused(problem) from problem
            raise

    def command(self, method: str, *path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A command at `/v1/<path>` of the command API, at most once per form. Raises Problem, SignedOut."""
        try:
            answer = self.console.command_api.send(method, path, self.token, body or {}, once())
        except Problem as problem:
            if problem.status == 401:
                raise self._refused(problem) from problem
            raise
        if isinstance(answer.get("revision"), int):
            self.acted(str(answer.get("org_id") or path[1]), answer["revision"])
        return answer

    def acted(self, org: str, revision: int) -> None:
        """What is read from now on about this org, for this page and the next ones, waits for this revision."""
        self.console.sessions.acted(self.session.cookie, org, revision)
        self.session = replace(self.session, acted_org=org, acted_revision=revision)

    def tell(self, notice: str | None) -> None:
        """One sentence for the next page, or none any more."""
        self.console.sessions.tell(self.session.cookie, notice)

    def begin_anew(self, password_hash: str) -> None:
        """Another cookie for this browser, after all sessions of this person ended with the old password."""
        known = self.session
        g.cookie = self.console.sessions.begin(known.org_id, known.user_id, known.revision, password_hash)
        self.session = replace(known, cookie=g.cookie)

    def caller(self) -> Caller:
        """Who this is, asked of the auth checker: for what the console itself decides. Raises Problem, SignedOut."""
        code, caller = self.console.checker.caller(self.token, address(), user_agent())
        if caller is None:
            raise self._refused(Problem(401, code.value.lower(), "the session is not good any more"))
        return caller

    def _wait_for(self, path: tuple[str, ...]) -> dict[str, Any]:
        org, revision = self.session.acted_org, self.session.acted_revision
        if self.behind or org is None or revision is None:
            return {}  # Waited for in vain once, the rest of this page is not held up too.
        if path[:2] == ("orgs", org) or (path == ("me",) and org == self.session.org_id):
            return {"min_revision": revision}
        return {"min_revision": f"{org}:{revision}"} if path == ("orgs",) else {}

    def _refused(self, problem: Problem) -> SignedOut:
        self.console.sessions.end(self.session.cookie)
        if problem.code == "owner_disabled":
            return SignedOut("Your account is disabled. An admin of your organisation can enable it again.")
        return SignedOut("Your session has ended. Please sign in again.")


def console() -> Console:
    """The parts that the app was made with."""
    return cast(Console, current_app.extensions["console"])


def here() -> Visit:
    """The visit of this request. Raises SignedOut, PasswordFirst."""
    if "visit" not in g:
        g.visit = _visit()
    return cast(Visit, g.visit)


def cookie() -> str:
    """This browser's cookie; a fresh one, to be set with the answer, for a browser without."""
    if "cookie" not in g:
        g.cookie = request.cookies.get(cookie_name(), "") or fresh_cookie()
    return cast(str, g.cookie)


def cookie_name() -> str:
    """With the prefix that makes browsers refuse it from anyone else, where there is https."""
    return "__Host-keyledger" if console().is_https else "keyledger"


def is_part() -> bool:
    """Whether only the live part of a page is asked for."""
    return request.method == "GET" and request.args.get("part") == "1"


def must_be_own_form() -> None:
    """Every POST carries the token of its browser's cookie. Raises StaleForm."""
    if not hmac.compare_digest(request.form.get("csrf", "").encode(), form_token(cookie()).encode()):
        raise StaleForm


def once() -> str:
    """What makes a form count once, however often it is sent."""
    given = request.form.get("once", "")
    return given if _ONCE.fullmatch(given) else fresh_cookie()


def typed(name: str) -> str | None:
    """What was typed into a field, trimmed; None where it is empty."""
    return request.form.get(name, "").strip() or None


def address() -> str:
    """The address of the browser."""
    return request.remote_addr or ""


def user_agent() -> str:
    """What the browser says it is."""
    return request.headers.get("User-Agent", "")[:200]


def _visit() -> Visit:
    parts = console()
    session = parts.sessions.find(cookie(), by_itself=is_part()) if cookie_name() in request.cookies else None
    if session is None:
        raise SignedOut
    if session.must_change_password and request.endpoint not in _WITH_TEMPORARY_PASSWORD:
        raise PasswordFirst
    token = parts.sign_in.token_of(session.org_id, session.user_id, session.revision)
    return Visit(parts, session, token)
