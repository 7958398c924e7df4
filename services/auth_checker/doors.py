"""Who may ask the checker: on loopback everybody, elsewhere our own services and API keys made for it."""

import hmac

from schemas.problems import Problem
from schemas.validation import KEYS_VALIDATE, Code
from services.auth_checker.bodies import Asked
from services.auth_checker.handler import Checker

_REFUSED = "send Authorization: Bearer with the checker's credential or an API key of scope keys:validate"


class Door:
    """`token` is the shared credential of our own services; None leaves the door open."""

    def __init__(self, token: str | None, checker: Checker) -> None:
        self._token = None if token is None else token.encode()
        self._checker = checker

    @property
    def is_guarded(self) -> bool:
        """Whether a credential is asked for at all."""
        return self._token is not None

    def is_open(self, authorization: str | None) -> bool:
        """Whether no look-up is needed to see that this caller may ask."""
        if self._token is None:
            return True
        return hmac.compare_digest(_bearer(authorization).encode(errors="replace"), self._token)

    def enter(self, authorization: str | None) -> str | None:
        """Let the caller in: the organisation of the API key that opened the door, None for our own services.

        Raises Problem 401, or 503 when an API key cannot be judged now.
        """
        if self.is_open(authorization):
            return None
        answer = self._checker.validate(Asked(key=_bearer(authorization), scopes=[KEYS_VALIDATE]))
        if answer.code == Code.STALE:
            raise Problem(503, "stale", "the ledger cannot be reached, so no API key is accepted now", retry_after_s=1)
        # On Keyledger's own APIs only scopes named on the key count; a key without any is not unrestricted here.
        if not answer.valid or KEYS_VALIDATE not in (answer.scopes or ()):
            raise Problem(401, "unauthenticated", _REFUSED, headers={"WWW-Authenticate": "Bearer"})
        return str(answer.org_id)


def _bearer(authorization: str | None) -> str:
    scheme, _, credential = (authorization or "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""
