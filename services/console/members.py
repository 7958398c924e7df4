"""What is done to people, by the JSON calls and by the pages alike: rights are judged here, once for both."""

import hashlib
from dataclasses import dataclass
from typing import Any

from schemas.problems import Problem, malformed
from schemas.validation import KEYS_WRITE
from services.console import passwords
from services.console.adding import Adding
from services.console.caller import Caller, must_administer, must_be_person, must_have_scope, not_found
from services.console.passwords import Passwords
from services.console.people import NewPerson, People, Person
from services.console.sessions import Sessions
from services.console.sign_in import SignIn
from services.console.sso import SingleSignOn


@dataclass(frozen=True, slots=True)
class Members:
    """Adds, erases, renames people and changes their passwords. Everything may raise Problem."""

    people: People
    passwords: Passwords
    adding: Adding
    sign_in: SignIn
    sso: SingleSignOn
    sessions: Sessions

    def add(
        self, caller: Caller, org: str, asked: dict[str, Any], once: str | None = None
    ) -> tuple[Person, str | None]:
        """Add who a `bodies.UserRequest` asks for; gives the temporary password of a person without one.

        What was added with the same `once` by the same caller is given again, without its password.

        Where single sign-on is required nobody needs a password, so none is made.
        """
        must_administer(caller, org)
        must_have_scope(caller, KEYS_WRITE)
        key = None if once is None else hashlib.sha256(f"{caller.org_id} {caller.user_id} {once}".encode()).hexdigest()
        known = None if key is None else self.people.added_with(key)
        if known is not None:
            if any(getattr(known, name) != asked[name] for name in ("name", "email", "kind", "role")):
                raise Problem(422, "idempotency_key_reused", "this was sent before with other values")
            return known, None
        password, given = asked.pop("password"), None
        if password is not None:
            _refuse_weak(password, "/password", asked["name"], asked["email"])
        if asked["kind"] == "person" and password is None and not self.sso.is_required(org):
            password = given = passwords.temporary()
        hashed = self.passwords.hash(password) if password else None
        new = NewPerson(org_id=org, password_hash=hashed, must_change_password=given is not None, **asked)
        return self.adding.add(new, caller.token, key), given

    def erase(self, caller: Caller, org: str, user: str) -> dict[str, Any]:
        """Erase a user: the personal data here, then the rights in the ledger. Gives the command API's answer."""
        must_administer(caller, org)
        must_have_scope(caller, KEYS_WRITE)
        answer = self.adding.erase(org, user, caller.token)
        self.sessions.end_all(org, user)
        return answer

    def reset_password(self, caller: Caller, org: str, user: str) -> str:
        """Give a person a temporary password, to be changed at the next sign-in; its browsers are signed out."""
        must_administer(caller, org)
        must_be_person(caller)
        self.sso.refuse_password(org)
        person = self.people.get(org, user)
        if person is None or person.kind != "person":
            raise not_found()
        given = passwords.temporary()
        self.people.set_password(org, user, self.passwords.hash(given), must_change=True)
        self.sessions.end_all(org, user)
        return given

    def change_password(self, me: Person, old: str, new: str, address: str) -> str:
        """Change one's own password; all browsers are signed out. Gives the new hash."""
        self.sign_in.check_password(me, old, address)
        if new == old:
            raise malformed("the new password is the old one", ("/new", "must differ from the old password"))
        _refuse_weak(new, "/new", me.name, me.email or "")
        hashed = self.passwords.hash(new)
        self.people.set_password(me.org_id, me.user_id, hashed, must_change=False)
        self.sessions.end_all(me.org_id, me.user_id)
        return hashed

    def require_sso(self, caller: Caller, org: str, required: bool) -> None:
        """Refuse the passwords of an organisation, or take them again. Whoever came in with one is signed out."""
        must_administer(caller, org)
        must_have_scope(caller, KEYS_WRITE)
        self.sso.require(org, required)


def _refuse_weak(password: str, pointer: str, *about: str) -> None:
    weakness = passwords.weakness(password, [text for text in about if text])
    if weakness is not None:
        raise malformed("the password is too easy to guess", (pointer, weakness))


def person_of(people: People, caller: Caller) -> Person:
    """The row of whoever is calling. Raises Problem 403 for an API key, 404 for a user without a row."""
    must_be_person(caller)
    person = people.get(caller.org_id, caller.user_id)
    if person is None:
        raise not_found()
    return person
