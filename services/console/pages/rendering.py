"""Answers of the pages: whole pages, the parts that htmx asks for, redirections, and errors in plain words."""

import hashlib
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec
from flask import Response, current_app, g, render_template, request

from schemas.problems import Problem
from services.console import wording
from services.console.caller import not_found
from services.console.pages import visit
from services.console.pages.visit import SignedOut, StaleForm, is_part
from services.console.sessions import form_token, fresh_cookie

REFUSED: Final = frozenset({400, 409, 422, 429, 503})
"""Refusals that belong beside the form they refuse; others are pages of their own."""
_SECRETS: Final = frozenset({"csrf", "password", "old", "new", "again", "pasted"})
"""Fields that never come back in a page."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def show(template: str, status: int = 200, **context: Any) -> Response:
    """A page, or one of its parts. Templates always get `visit` (None when signed out), `csrf` and `once`."""
    context.setdefault("typed", request.form)
    context.setdefault("errors", {})
    context.setdefault("problem", None)
    # A form that is shown again after a refusal, or an outcome that nobody knows, must count as the same one.
    once = visit.once() if context["problem"] else fresh_cookie()
    known, notice = g.get("visit"), None
    if known is not None and not template.startswith("_"):
        notice = known.session.notice
        if notice is not None:
            known.tell(None)
    csrf = form_token(visit.cookie())
    text = render_template(template, visit=known, notice=notice, csrf=csrf, once=once, slow_ms=visit.SLOW_MS, **context)
    return Response(text, status, content_type="text/html; charset=utf-8")


def live(
    page: str, part: str, data: Any, path: str | None = None, marks: dict[str, str] | None = None, **context: Any
) -> Response:
    """A page whose `part` asks for itself again (`refresh` is the address), and is sent only when `data` is another.

    `path` is where the page lives, where that is not the address of this request; `marks` are sent with each asking.
    """
    context["refresh"] = refresh_of(path or request.path, request.args.to_dict() | (marks or {}), data)
    if not is_part():
        return show(page, data=data, **context)
    is_known = request.args.get("seen") == _seen(data)
    answer = Response(status=204) if is_known else show(part, data=data, **context)
    known = visit.here()
    state = {"lag_s": known.lag_ms // 1000 if known.lag_ms > visit.SLOW_MS else 0, "halted": known.halted is not None}
    answer.headers["HX-Trigger"] = msgspec.json.encode({"read-side": state}).decode()
    return answer


def refresh_of(path: str, query: dict[str, str], data: Any) -> str:
    """Where a live part that shows `data` asks for what is newer."""
    return f"{path}?{urlencode(query | {'part': '1', 'seen': _seen(data)})}"


def retarget(answer: Response, target: str, swap: str = "outerHTML") -> Response:
    """Let htmx replace the element with this selector, or with `innerHTML` what is in it, and not the one that asked."""
    answer.headers.update({"HX-Retarget": target, "HX-Reswap": swap})
    return answer


def confirm(title: str, effect: str | list[str], button: str, **context: Any) -> Response:
    """Ask once before something is done, saying its `effect`: a dialog where htmx asks, else a page. The form posts to this address."""
    template = "_confirm.html" if request.headers.get("HX-Request") == "true" else "confirm.html"
    return show(template, title=title, effect=effect, button=button, action=request.path, back=back(), **context)


def done(address: str, notice: str | None = None) -> Response:
    """After a form: see `address` next, with one sentence about what happened."""
    if notice is not None:
        visit.here().tell(notice)
    return redirect(address)


def back(otherwise: str = "/") -> str:
    """Where the person came from: the parameter or field `back`, if it is an address of ours."""
    return own(request.values.get("back", "")) or otherwise


def own(address: str) -> str | None:
    """This address if it is a page of this console, so that no link leads people elsewhere."""
    if not address.startswith("/") or address.startswith(("//", "/\\")) or not address.isprintable():
        return None
    parts = urlsplit(address)
    return None if parts.netloc or parts.scheme else address


def in_form(problem: Problem) -> dict[str, Any]:
    """What a form shows when it was refused: `problem`, a sentence, and `errors`, by field."""
    errors = {pointer.strip("/").split("/")[0]: detail for pointer, detail in problem.errors}
    return {"problem": wording.problem(problem), "errors": errors, "status": problem.status}


def not_done(problem: Problem) -> Response:
    """A page that says why not."""
    g.outcome = problem.code
    text = wording.problem(problem)
    answer = show(
        "problem.html", problem.status, title=wording.title(problem.status), text=text, code=problem.code, bare=True
    )
    answer.headers.update({name: value for name, value in problem.headers.items() if name == "Retry-After"})
    return answer


def signed_out(ended: SignedOut) -> Response:
    """The sign-in page; what was being typed goes with it and can be sent after signing in."""
    g.outcome = "signed_out"
    g.pop("visit", None)
    if is_part():
        return retarget(show("_signed_out.html"), "#banner", "innerHTML")
    if request.method == "GET":
        query = {"next": request.full_path.rstrip("?")} if request.path != "/" else {}
        if ended.why:
            return sign_in_page(401, why=ended.why, next=query.get("next", "/"))
        return redirect("/sign-in" + ("?" + urlencode(query) if query else ""))
    try:
        visit.must_be_own_form()
    except StaleForm:
        return stale_form()
    return sign_in_page(
        401, why=ended.why or "Your session has ended. Nothing was sent yet.", kept=_kept(), shown=_typed()
    )


def sign_in_page(status: int = 200, **context: Any) -> Response:
    """The sign-in page. `why` it is shown, `kept` a form to go on with, `shown` what was typed, `next` a page to go to."""
    given = {"why": "", "is_refusal": False, "kept": None, "shown": (), "next": "/"} | context
    return show("sign_in.html", status, sso_name=visit.console().sso_name, **given)


def stale_form() -> Response:
    """The form is not this browser's: nothing was done, and what was typed can be copied."""
    g.outcome = "stale_form"
    return show("stale_form.html", 403, fields=_typed(), path=back(), bare=True)


def finish(response: Response) -> Response:
    """Headers that every page has."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    is_https = visit.console().is_https
    if is_https:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    # A form that is not ours may have been sent here by another site, without this browser's cookie: a new one would
    # sign the browser out.
    if g.get("outcome") != "stale_form" and "cookie" in g and request.cookies.get(visit.cookie_name()) != g.cookie:
        response.set_cookie(visit.cookie_name(), g.cookie, httponly=True, samesite="Lax", secure=is_https)
    return response


def _seen(data: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(data)).hexdigest()[:16]


def _typed() -> list[tuple[str, str]]:
    """What people typed into the form that was sent, by label."""
    fields = [(wording.field(name), value) for name, value in request.form.items() if name not in _SECRETS]
    return [(label, value) for label, value in fields if label and value]


def _kept() -> str:
    fields = {name: value for name, value in request.form.items() if name not in _SECRETS}
    return msgspec.json.encode({"path": request.path, "fields": fields}).decode()


def redirect(address: str) -> Response:
    """See another page next (303)."""
    if not address.isprintable():
        raise not_found()  # Made of an id in this request's address that nothing can have.
    answer = current_app.redirect(address, 303)
    assert isinstance(answer, Response)
    return answer
