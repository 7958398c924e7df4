"""Who may ask the checker: on loopback everybody, elsewhere our own services and API keys made for it.

Where only mutual TLS is configured, everybody who comes this far has shown a certificate, and the door is open.
"""

import hmac

from schemas.problems import Problem
from schemas.validation import KEYS_VALIDATE, Code
from services.auth_checker.bodies import Asked
from services.auth_checker.handler import Checker

_REFUSED = "send the checker's credential as a bearer token, or an API key of scope keys:validate"
_CHALLENGE = 'Bearer realm="auth checker"'
"""The realm tells a proxy's own credential, refused here, from that of its client."""


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

        `authorization` is `Bearer` and the credential. Raises Problem 401, or 503 when no API key can be judged now.
        """
        if self.is_open(authorization):
            return None
        credential = _bearer(authorization)
        if not credential:
            raise _refused(_CHALLENGE)
        answer = self._checker.validate(Asked(key=credential, scopes=[KEYS_VALIDATE]))
        if answer.code == Code.STALE:
            raise Problem(503, "stale", "the ledger cannot be reached, so no API key is accepted now", retry_after_s=1)
        # On Keyledger's own APIs only scopes named on the key count; a key without any is not unrestricted here.
        if not answer.valid or KEYS_VALIDATE not in (answer.scopes or ()):
            raise _refused(f'{_CHALLENGE}, error="invalid_token"')
        return str(answer.org_id)


def _refused(challenge: str) -> Problem:
    return Problem(401, "unauthenticated", _REFUSED, headers={"WWW-Authenticate": challenge})


def _bearer(authorization: str | None) -> str:
    scheme, _, credential = (authorization or "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""
