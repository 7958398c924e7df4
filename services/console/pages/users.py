"""The people and service accounts of an organisation: the table, and adding one."""

from typing import Any, Final
from urllib.parse import urlencode

from flask import Response, request

from schemas.problems import Problem, load
from services.console import bodies
from services.console.caller import must_administer
from services.console.pages.blueprint import pages
from services.console.pages.rendering import REFUSED, done, in_form, live, show
from services.console.pages.visit import Visit, console, here, is_part, once, typed

PAGE: Final = 25
"""So many rows does a page show."""
_FILTERS: Final = ("search", "kind", "status", "sort")
_SORTED: Final = {
    "name": ("Name", "ascending"),
    "active_keys": ("API keys", "descending"),
    "last_activity": ("Last activity", "descending"),
}
NOTHING: Final[dict[str, Any]] = {"items": [], "next_cursor": None}
"""A list before it is read."""


@pages.get("/orgs/<org>/users")
def org_users(org: str) -> Response:
    """The table, newest first. Parameters: search, kind, status, sort, cursor, as the read API has them."""
    guest, path = here(), f"/orgs/{org}/users"
    asked = {name: value for name in _FILTERS if (value := request.args.get(name, "").strip())}
    found, refused = NOTHING, {}
    try:
        found = guest.read("orgs", org, "users", limit=PAGE, cursor=request.args.get("cursor"), **asked)
    except Problem as problem:
        if problem.status != 400:
            raise
        refused = in_form(problem)
    following = found["next_cursor"]
    return live(
        "org_users.html",
        "_users_table.html",
        {"users": found["items"], "more": following is not None},
        org=org,
        about=None if is_part() else about(guest, org),
        path=path,
        address=path,
        asked=asked,
        is_filtered=bool(asked.keys() - {"sort"}),
        headings=_headings(path, asked),
        **pager(path, asked, following),
        **refused,
    )


@pages.get("/orgs/<org>/users/new")
def new_user(org: str) -> Response:
    """The form that adds a person or, with `kind=service_account`, a service account."""
    guest = here()
    must_administer(guest.caller(), org)
    return _new_user(org)


@pages.post("/orgs/<org>/users/new")
def add_user(org: str) -> Response:
    """Add a user; the answer is the only page that ever shows a person's temporary password."""
    guest = here()
    asked = {"name": request.form.get("name", ""), "email": typed("email"), "kind": _kind(), "role": typed("role")}
    try:
        person, password = console().members.add(guest.caller(), org, load(bodies.UserRequest(), asked), once())
    except Problem as problem:
        if problem.status not in REFUSED:
            raise
        return _new_user(org, **in_form(problem))
    guest.acted(org, person.added_revision)
    address = f"/orgs/{org}/users/{person.user_id}"
    if password is None:
        return done(address, f"{person.name} was added. It has no key yet.")
    return show("user_password.html", 201, title=f"{person.name} was added", password=password, address=address)


def about(guest: Visit, org: str) -> dict[str, Any]:
    """What is known of an organisation, without its counts: they take long, and the page above a list needs none."""
    if guest.me["org_id"] == org:
        return dict(guest.me["org"])
    return guest.read("orgs", org, counts="exclude")


def pager(path: str, query: dict[str, str], following: str | None) -> dict[str, Any]:
    """Where the next page of a list is, and from any but the first page the first."""
    return {
        "next_href": with_query(path, query | {"cursor": following}) if following else None,
        "first_href": with_query(path, query) if request.args.get("cursor") else None,
    }


def with_query(path: str, query: dict[str, str]) -> str:
    """An address with these parameters; empty ones are left out."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def _new_user(org: str, **context: Any) -> Response:
    return show("user_new.html", org=org, kind=_kind(), address=f"/orgs/{org}/users", **context)


def _kind() -> str:
    return "service_account" if request.values.get("kind") == "service_account" else "person"


def _headings(path: str, asked: dict[str, str]) -> list[str | tuple[str, str, str]]:
    return [
        _sorted_by("name", path, asked),
        "E-mail",
        "Kind",
        "Role",
        "Status",
        _sorted_by("active_keys", path, asked),
        _sorted_by("last_activity", path, asked),
    ]


def _sorted_by(name: str, path: str, asked: dict[str, str]) -> tuple[str, str, str]:
    text, direction = _SORTED[name]
    if asked.get("sort") == name:
        return text, with_query(path, asked | {"sort": ""}), direction  # Once more, and the newest come first again.
    return text, with_query(path, asked | {"sort": name}), "none"
