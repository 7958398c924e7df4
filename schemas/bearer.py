"""How an HTTP request carries a key, and what is answered when the key is not good: RFC 6750, the same at every door.

The checker's own doors and the guards of `keyledger.middleware` all follow these rules, so that a client cannot tell
which of them stands before a service.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from schemas.validation import Code

EVERY_SCOPE: Final = "*"
"""How the scopes of a key that is not restricted are written. No scope is called so, which makes whoever looks for a
scope by its name refuse the key; an empty text would be read as that of a key without scopes, or be lost on the way.
"""


class Refusal(NamedTuple):
    """An answer without a body."""

    status: int
    headers: tuple[tuple[str, str], ...]

    @property
    def status_line(self) -> str:
        """As WSGI wants it: `401 Unauthorized`."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"


_NO_STORE: Final = ("Cache-Control", "no-store")
NO_KEY: Final = Refusal(401, (("WWW-Authenticate", "Bearer"), _NO_STORE))
"""No key was sent. RFC 6750: then no error code either."""
UNAVAILABLE: Final = Refusal(503, (("Retry-After", "1"), _NO_STORE))
_BAD_KEY: Final = Refusal(401, (("WWW-Authenticate", 'Bearer error="invalid_token"'), _NO_STORE))
_BAD_ADDRESS: Final = Refusal(403, (_NO_STORE,))


def key_of(authorization: str | None, api_key: str | None) -> str | None:
    """The key in the headers `Authorization: Bearer` and `X-API-Key`; None when there is none.

    Several keys are answered with a text that no key has: which of them was meant is not for us to guess. Servers join
    headers of one name with commas, so two of them are such a text anyway.
    """
    scheme, _, token = (authorization or "").strip().partition(" ")
    keys = [token.strip() if scheme.lower() == "bearer" else "", (api_key or "").strip()]
    found = [key for key in keys if key]
    return ",".join(found) or None


def refusal(code: str, scopes: Sequence[str] | None) -> Refusal:
    """What to answer for a code that is not VALID; `scopes` are those that were needed, of the shape of a scope."""
    match code:
        case Code.STALE:
            return UNAVAILABLE
        case Code.IP_NOT_ALLOWED:
            return _BAD_ADDRESS
        case Code.INSUFFICIENT_SCOPE:
            challenge = f'Bearer error="insufficient_scope", scope="{" ".join(scopes or ())}"'
            return Refusal(403, (("WWW-Authenticate", challenge), _NO_STORE))
        case _:
            return _BAD_KEY


def scope_text(scopes: Sequence[str] | None) -> str:
    """The scopes of a key, separated by spaces; None means that it is not restricted."""
    return EVERY_SCOPE if scopes is None else " ".join(scopes)
