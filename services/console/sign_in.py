"""Signing in: e-mail and password, or an e-mail that single sign-on vouches for, become a token of five minutes."""

from dataclasses import dataclass, field, replace

import structlog

from schemas.problems import Problem
from schemas.times import Clock
from schemas.tokens import LONGEST_LIFE_S, Claims
from schemas.validation import Code
from services.console.api_clients import Checker
from services.console.passwords import Passwords
from services.console.people import People, Person
from services.console.signing_keys import SigningKeys
from services.console.sso import SingleSignOn
from services.console.throttle import Throttle

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Session:
    """`expires_ms` is in milliseconds since 1970, `revision` that of the org's ledger. The token is good at every API of Keyledger."""

    token: str = field(repr=False)
    expires_ms: int
    person: Person
    revision: int


@dataclass(frozen=True, slots=True)
class SignIn:
    """Judges passwords, and makes sessions for people whom the ledger knows as active."""

    people: People
    passwords: Passwords
    throttle: Throttle
    checker: Checker
    keys: SigningKeys
    clock: Clock
    sso: SingleSignOn

    def with_password(self, email: str, password: str, address: str, user_agent: str) -> Session:
        """Raises Problem 401 `bad_credentials`, 403 `owner_disabled` or `sso_required`, 429 or 503."""
        self.throttle.begin(email, address)
        person = self.people.with_email(email)
        if not self.passwords.verify(person.password_hash if person else None, password) or person is None:
            _log.info("sign-in refused", address=address)
            raise Problem(401, "bad_credentials", "the e-mail address or the password is wrong")
        self.throttle.succeeded(email, address)
        # Only now, so that strangers do not learn whose organisation that is.
        self.sso.refuse_password(person.org_id)
        return self.session_of(self._with_renewed_hash(person, password), address, user_agent)

    def with_email(self, email: str, address: str, user_agent: str) -> Session:
        """For an e-mail that single sign-on vouches for. Raises Problem 401 `sso_refused`, 403 `owner_disabled`, 503."""
        person = self.people.with_email(email)
        if person is None or person.kind != "person":
            _log.info("single sign-on without an account", address=address)
            raise Problem(401, "sso_refused", "there is no account for this e-mail address here")
        session = self.session_of(person, address, user_agent)
        if person.must_change_password:
            # A temporary password is a way in for whoever was told it; its owner came in without it, so it goes.
            self.people.set_password(person.org_id, person.user_id, None, must_change=False)
            person = replace(person, password_hash=None, must_change_password=False)
        return replace(session, person=person)

    def token_of(self, org_id: str, user_id: str, revision: int) -> str:
        """A token of five minutes for a person whose browser session is known; `revision` is that of the session."""
        exp = self.clock() // 1000 + LONGEST_LIFE_S
        return self.keys.sign(Claims(sub=user_id, org=org_id, rev=revision, exp=exp))

    def session_of(self, person: Person, address: str = "", user_agent: str = "") -> Session:
        """A session for a person who has been recognised. Raises Problem 403 `owner_disabled` or 503."""
        # The checker has to have read the ledger at least to where this person was added.
        first = self.token_of(person.org_id, person.user_id, person.added_revision)
        code, caller = self.checker.caller(first, address, user_agent)
        if code is Code.OWNER_DISABLED:
            raise Problem(403, "owner_disabled", "this account is disabled")
        if caller is None:
            raise Problem(
                503, "not_ready", "the auth checker does not know this account or our signing key", retry_after_s=2
            )
        expires_ms = (self.clock() // 1000 + LONGEST_LIFE_S) * 1000
        return Session(
            self.token_of(person.org_id, person.user_id, caller.revision), expires_ms, person, caller.revision
        )

    def check_password(self, person: Person, password: str, address: str) -> None:
        """Is it really the person who holds the token? Raises Problem 403 `wrong_password` or `sso_required`, or 429."""
        self.sso.refuse_password(person.org_id)
        account = person.email or person.user_id
        self.throttle.begin(account, address)
        if not self.passwords.verify(person.password_hash, password):
            raise Problem(403, "wrong_password", "the old password is wrong")
        self.throttle.succeeded(account, address)

    def _with_renewed_hash(self, person: Person, password: str) -> Person:
        if not person.password_hash or not self.passwords.is_outdated(person.password_hash):
            return person
        renewed = self.passwords.hash(password)
        # Only if it is still the password: one that is being changed right now must not come back.
        if not self.people.renew_hash(person.org_id, person.user_id, person.password_hash, renewed):
            return person
        return replace(person, password_hash=renewed)
