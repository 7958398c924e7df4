"""The history of an organisation: its events with filters, whether they are what was signed, and a bundle of them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import IO, Any, Final

from flask import Response, request

from schemas import fields, times
from schemas.problems import Problem, malformed
from schemas.validation import PLATFORM
from services.console import org_story
from services.console.pages import key, user
from services.console.pages.blueprint import pages
from services.console.pages.rendering import in_form, live, redirect, refresh_of
from services.console.pages.users import NOTHING, PAGE, about, pager, with_query
from services.console.pages.visit import Visit, here, is_part
from services.console.wording import user_name

_PIECE_BYTES: Final = 65_536
_DAYS: Final = ("1", "7", "30")
_WHO: Final = ("user", "actor")
_CHOICES: Final = {"type": tuple(org_story.TYPES), "days": _DAYS, "void": ("include",)}
_ID: Final = re.compile(fields.ID)
# As browsers send a date and a time of day, which are meant in UTC here.
_LOCAL: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(T[0-9]{2}:[0-9]{2})?(:[0-9]{2}(\.[0-9]{1,3})?)?")


_BROKEN: Final = "archive_broken"
_People = dict[str, dict[str, Any]]
_Outcome = tuple[dict[str, Any], _People, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Named:
    """A user or a key as a row shows it: its name, or else its id, with its page where there is one."""

    text: str
    href: str | None = None
    is_id: bool = False
    note: str = ""


@pages.get("/orgs/<org>/history")
def org_history(org: str) -> Response:
    """Every event, oldest first. Parameters: user and actor (id, e-mail or name), key, type, days, since, until, void,
    cursor.
    """
    guest, at, asked = here(), address(org), _asked()
    found, who, refused = _read(guest, org, asked)
    following = found["next_cursor"]
    data = {"events": found["items"], "more": following is not None, "broken": found.get("broken")}
    # Whoever was looked up by name is asked for by id from then on.
    marks = {name: one["user_id"] for name, one in who.items()} | ({"broken": "1"} if data["broken"] else {})
    # What is written comes after all there is, so only the end of the list can change.
    given: dict[str, Any] = {"org": org, "at": at, "asked": asked, "is_end": not refused and following is None}
    given |= {"told": [(event, org_story.tell(event)) for event in found["items"]], "named": _Names(guest, org)}
    if not is_part():
        proof = {"state": "contradicted", "signed": None} if data["broken"] else _proof(guest, org)
        given |= {"about": about(guest, org), "proof": proof, "proof_refresh": refresh_of(f"{at}/proof", {}, proof)}
        given |= {"types": [("", "Everything"), *org_story.TYPES.items()], "chips": _chips(at, asked, who)}
    elif bool(data["broken"]) != (request.args.get("broken") == "1"):
        return Response(status=204, headers={"HX-Refresh": "true"})  # Now all of the page has something else to say.
    given |= pager(at, asked, following) | refused
    return live("org_history.html", "_org_history_table.html", data, path=at, marks=marks, **given)


@pages.get("/orgs/<org>/history/proof")
def org_history_proof(org: str) -> Response:
    """The part of that page that says whether the archive is what was signed."""
    guest, at = here(), address(org)
    if not is_part():
        return redirect(at)
    return live("org_history.html", "_org_history_proof.html", _proof(guest, org), at=at)


@pages.get("/orgs/<org>/history/bundle.zip")
def download_bundle(org: str) -> Response:
    """The bundle that proves itself. All of it is here before the first byte goes on, so that no file is cut short."""
    file, name = here().download("orgs", org, "bundle")
    size = file.seek(0, 2)
    file.seek(0)
    now = times.to_text(times.wall_clock_ms()).replace(":", "-")
    answer = Response(_pieces(file), content_type="application/zip")
    answer.call_on_close(file.close)
    answer.content_length = size
    answer.headers["Content-Disposition"] = f'attachment; filename="{name or f"{org}-{now}.zip"}"'
    return answer


def address(org: str) -> str:
    """The page of an organisation's history."""
    return f"/orgs/{org}/history"


class _Names:
    """Users and keys as rows show them. Each is looked up once, and only when a row with it is sent."""

    def __init__(self, guest: Visit, org: str) -> None:
        self._guest, self._org = guest, org
        self.user = cache(self._user)
        self.key = cache(self._key)

    def actor(self, actor: dict[str, Any] | None) -> Named:
        """Who did it. An operator is of another organisation, whose users none but operators see."""
        user_id = str((actor or {}).get("user_id") or "")
        if actor is None or actor["type"] != "operator":
            return self.user(user_id)
        if self._guest.is_operator:
            return self.user(user_id, PLATFORM)
        return Named(user_id, is_id=True, note="an operator")

    def with_key(self, actor: dict[str, Any] | None) -> str | None:
        """The page of the API key that somebody used to do it."""
        key_id = (actor or {}).get("key_id")
        return key.address(self._org, key_id) if key_id else None

    def _user(self, user_id: str, org: str | None = None) -> Named:
        org = org or self._org
        found = self._read(org, "users", user_id)
        if found is None:
            return Named(user_id or "unknown", is_id=bool(user_id))
        at = user.address(org, user_id)
        if found["status"] == "erased":
            return Named(user_id, at, is_id=True, note="erased")
        return Named(user_name(found), at)

    def _key(self, told: org_story.Told, is_void: bool) -> Named:
        """The key of an event, by its name then. Where the event says none it revoked the key: no other name came after."""
        key_id = told.key_id or ""
        at = f"{key.address(self._org, key_id)}#history-title"
        if told.key_name is not None and not is_void:
            return Named(told.key_name, at)
        found = self._read(self._org, "keys", key_id)
        return Named(key_id, is_id=True) if found is None else Named(str(found["name"]), at)

    def _read(self, org: str, *path: str) -> dict[str, Any] | None:
        if not _ID.fullmatch(path[-1]):
            return None
        try:
            return self._guest.read("orgs", org, *path)
        except Problem as problem:
            if problem.status not in {403, 404}:
                raise
            return None


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _asked() -> dict[str, str]:
    """The filters that are set, as they stand in the address; a choice that is not offered counts as none."""
    names = (*_WHO, "key", "since", "until", *_CHOICES)
    given = {name: request.args.get(name, "").strip() for name in names}
    for name in ("since", "until"):
        given[name] = _moment(given[name])
    return {name: value for name, value in given.items() if value and value in _CHOICES.get(name, (value,))}


def _query(asked: dict[str, str], now_ms: int) -> dict[str, Any]:
    """The same filters as the read API has them; each one narrows what the others leave."""
    query: dict[str, Any] = {name: asked[name] for name in ("key", "type", "since", "until", "void") if name in asked}
    if "days" in asked:
        first = times.to_text(now_ms - int(asked["days"]) * times.DAY_MS)
        query["since"] = max(first, query.get("since", ""))
    return query


def _moment(text: str) -> str:
    """A time as the read API wants it, or what was typed when it is none: the read API says so then."""
    local = _LOCAL.fullmatch(text)
    full = f"{local[1]}{local[2] or 'T00:00'}{local[3] or ':00'}Z" if local else text
    try:
        return times.to_text(times.parse_any_offset(full))
    except ValueError:
        return text


def _who(guest: Visit, org: str, asked: dict[str, str]) -> _People:
    """The users that `user` and `actor` mean. Raises Problem 400 for a text that means none, or several."""
    given = {name: asked[name] for name in _WHO if name in asked}
    if is_part():
        return {name: {"user_id": text} for name, text in given.items()}
    return {name: _find(guest, org, name, text) for name, text in given.items()}


def _find(guest: Visit, org: str, name: str, text: str) -> dict[str, Any]:
    try:
        found = guest.read("orgs", org, "users", search=text, limit=PAGE)["items"]
    except Problem as problem:
        if problem.status != 400:
            raise
        found = []
    exact = [one for one in found if text in (one["user_id"], one["email"], one["name"])]
    for fitting in (exact, found):
        if len(fitting) == 1:
            return dict(fitting[0])
    if found:
        raise malformed("several users fit", (f"/{name}", "fits several users: type the e-mail address or the id"))
    if not _ID.fullmatch(text):
        raise malformed("no user fits", (f"/{name}", "fits no user of this organisation"))
    return {"user_id": text}  # Such as an operator, who is of another organisation.


def _chips(at: str, asked: dict[str, str], who: _People) -> list[tuple[str, str]]:
    """What to call each user that is asked for, and the page without that filter."""
    words = {"user": "About", "actor": "By"}
    called = {name: user_name(one) if "status" in one else one["user_id"] for name, one in who.items()}
    return [(f"{words[name]} {text}", with_query(at, asked | {name: ""})) for name, text in called.items()]


def _read(guest: Visit, org: str, asked: dict[str, str]) -> _Outcome:
    """A page of the events, or why there is none: `broken` in it, or what a refused form shows; and who was meant."""
    found: dict[str, Any] = NOTHING
    who: _People = {}
    refused: dict[str, Any] = {}
    try:
        who = _who(guest, org, asked)
        query = _query(asked, times.wall_clock_ms()) | {name: one["user_id"] for name, one in who.items()}
        found = guest.read("orgs", org, "history", limit=PAGE, cursor=request.args.get("cursor"), **query)
    except Problem as problem:
        if problem.code == _BROKEN:
            found = NOTHING | {"broken": problem.detail}
        elif problem.status == 400:
            refused = in_form(problem)
        else:
            raise
    return found, who, refused


def _proof(guest: Visit, org: str) -> dict[str, Any]:
    """What the newest checkpoint says of the archive: `state` is verified, unsigned, behind or contradicted."""
    try:
        found = guest.read("orgs", org, "checkpoint")
    except Problem as problem:
        if problem.code != _BROKEN:
            raise
        return {"state": "contradicted", "signed": None}
    signed = found["signed"]
    if signed is None:
        state = "unsigned"
    elif found["verified"]:
        state = "verified"
    else:
        # What is not in the tables yet contradicts nothing.
        state = "behind" if signed["revision"] > found["revision"] else "contradicted"
    return {"state": state, "signed": signed, "revision": found["revision"]}
