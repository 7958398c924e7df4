"""What there is to look at in the demo organisation: people, a service account, keys, and uses that a checker saw.

It is made by the same commands that anyone uses, and every step may be repeated. Only the first answer has a key's
text: where a first start was cut short there are keys without uses, which does no harm.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import structlog

from schemas import times
from schemas.problems import Problem
from services.console.api_clients import Checker, CommandApi
from services.console.people import NewPerson, Person

DEMO: Final = "demo"
"""The id of the demo organisation."""
_log = structlog.get_logger()
_DAYS_TO_EXPIRY: Final = 20
_COMMENT: Final = "The contractor's laptop was lost on a train."


@dataclass(frozen=True, slots=True)
class _Uses:
    """What somebody with the key does from one address; `scopes` are what the service asks for."""

    count: int
    ip: str
    user_agent: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Key:
    """A key; `owner` is the first part of an e-mail address."""

    owner: str
    name: str
    uses: tuple[_Uses, ...] = ()
    scopes: tuple[str, ...] = ()
    cidrs: tuple[str, ...] = ()
    expires: bool = False

    def body(self, user_id: str, now_ms: int) -> dict[str, Any]:
        """What creates it: the same again for a repeat within the month."""
        body: dict[str, Any] = {"name": self.name, "user_id": user_id}
        body |= {name: list(items) for name, items in (("scopes", self.scopes), ("cidrs", self.cidrs)) if items}
        if self.expires:
            month = times.to_datetime(now_ms + _DAYS_TO_EXPIRY * times.DAY_MS)
            body["expires_at"] = f"{month:%Y-%m}-28T23:59:59Z"
        return body


_READ, _WRITE = "samples:read", "samples:write"
_PEOPLE: Final = (
    ("ada", "Ada Example", "person", "member"),
    ("noor", "Noor Example", "person", "auditor"),
    ("nightly-import", "Nightly import", "service_account", "member"),
)
_LOST: Final = _Key("ada", "Export for the contractor", (_Uses(3, "203.0.113.40", "curl/8.9"),), (_READ,))
"""It is revoked, and somebody goes on trying it."""
_TRIED: Final = _Uses(4, "203.0.113.187", "curl/8.9")
_KEYS: Final = (
    _Key(
        "nightly-import",
        "Sequencer import, production",
        (_Uses(24, "192.0.2.10", "sequencer-sync/2.4", (_WRITE,)), _Uses(11, "192.0.2.11", "sequencer-sync/2.4")),
        (_READ, _WRITE),
    ),
    _Key(
        "nightly-import",
        "Sequencer import, dry run",
        (_Uses(5, "192.0.2.12", "sequencer-sync/2.5-beta", (_READ,)), _Uses(2, "192.0.2.12", "", (_WRITE,))),
        (_READ,),
    ),
    _Key("ada", "Notebook on my laptop", (_Uses(7, "198.51.100.23", "python-requests/2.32"),), expires=True),
    _Key("ada", "Plate reader (not connected yet)", scopes=(_WRITE,)),
    _LOST,
    _Key("member", "Weekly report", (_Uses(1, "203.0.113.5", "reports/1.0"),), (_READ,)),
    _Key(
        "admin",
        "Audit dashboard",
        (_Uses(6, "198.51.100.80", "dashboard/3"), _Uses(1, "203.0.113.9", "dashboard/3")),
        ("keys:read",),
        ("198.51.100.0/24",),
    ),
)


@dataclass(frozen=True, slots=True)
class Demo:
    """Fills the demo organisation.

    `add` adds a user, `token_of` signs a person in, `once` makes the Idempotency-Key of a step, the same every time.
    """

    command_api: CommandApi
    checker: Checker
    now_ms: int
    add: Callable[[NewPerson], Person]
    token_of: Callable[[Person], str]
    once: Callable[[str], str]

    def fill(self, admin: Person, member: Person) -> None:
        """Raises Problem 503 when something has to be there first; what is refused is left out, and logged."""
        people = {"admin": admin, "member": member}
        for login, name, kind, role in _PEOPLE:
            with _left_out_if_refused(name):
                new = NewPerson(DEMO, name, f"{login}@demo.local", kind, role, None, must_change_password=False)
                people[login] = self.add(new)
        tokens = {login: self.token_of(person) for login, person in people.items() if person.kind == "person"}
        made: dict[_Key, dict[str, Any]] = {}
        for key in (key for key in _KEYS if key.owner in people):
            with _left_out_if_refused(key.name):
                # Admins make the keys of service accounts.
                made[key] = self._create(key, people[key.owner].user_id, tokens.get(key.owner, tokens["admin"]))
        self._use(list(chain.from_iterable(_questions(key.uses, answer) for key, answer in made.items())))
        if _LOST in made:
            with _left_out_if_refused("a revocation"):
                self._lose(made[_LOST], tokens["admin"])

    def _create(self, key: _Key, user_id: str, token: str) -> dict[str, Any]:
        body = key.body(user_id, self.now_ms)
        return self.command_api.send("POST", ("orgs", DEMO, "keys"), token, body, self.once(f"key {key.name}"))

    def _lose(self, answer: dict[str, Any], token: str) -> None:
        path, body = ("orgs", DEMO, "keys", answer["key_id"]), {"reason": "key_compromise", "comment": _COMMENT}
        revoked = self.command_api.send("DELETE", path, token, body, self.once("revoke"))
        self._use(_questions((_TRIED,), answer | {"revision": revoked["revision"]}))

    def _use(self, questions: list[dict[str, Any]]) -> None:
        try:
            codes = self.checker.validate(questions) if questions else []
        except Problem as problem:
            # A repeat would not know the texts of the keys any more.
            _log.warning("keys without uses", org=DEMO, why=problem.code)
        else:
            _log.info("keys were used", org=DEMO, uses=len(codes))


def _questions(uses: tuple[_Uses, ...], answer: dict[str, Any]) -> list[dict[str, Any]]:
    """What the checker is asked; nothing where the text of the key is not known."""
    if not answer.get("key"):
        return []
    # The checker waits until it knows the key as it is now.
    fixed = {"key": answer["key"], "min_revision": f"{DEMO}:{answer['revision']}"}
    return list(chain.from_iterable([fixed | _question(one)] * one.count for one in uses))


def _question(use: _Uses) -> dict[str, Any]:
    asked = {"ip": use.ip, "user_agent": use.user_agent or None, "scopes": list(use.scopes) or None}
    return {name: value for name, value in asked.items() if value is not None}


@contextmanager
def _left_out_if_refused(what: str) -> Iterator[None]:
    try:
        yield
    except Problem as problem:
        if problem.status >= 500:
            raise
        # Done by an earlier try whose Idempotency-Key is forgotten by now, most likely.
        _log.warning("left out of the demo organisation", what=what, why=problem.code)
