"""The signed tokens of signed-in people: the claims, how they are signed and how they are checked.

EdDSA (Ed25519) JWTs, RFC 7519 and RFC 8037, made by the console and checked offline against its JWKS (RFC 7517).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ISSUER: Final = "keyledger-console"
AUDIENCE: Final = "keyledger"
LONGEST_LIFE_S: Final = 300
_ALGORITHM: Final = "EdDSA"


@dataclass(frozen=True, slots=True)
class Claims:
    """Who signed in. `rev` is the org's revision at sign-in, `exp` in seconds since 1970."""

    sub: str
    org: str
    rev: int
    exp: int


class BadToken(Exception):
    """The token is not one of ours: shape, signature, issuer, audience or claims."""


class ExpiredToken(BadToken):
    """The token was good once."""


def looks_signed(token: str) -> bool:
    """Whether a bearer token is meant as a signed one: three parts with dots, which no API key has."""
    return token.count(".") == 2


def sign(claims: Claims, key: Ed25519PrivateKey, kid: str) -> str:
    """Make a token. Raises ValueError when it would live longer than five minutes."""
    now_s = int(time.time())
    if claims.exp - now_s > LONGEST_LIFE_S:
        raise ValueError("a token lives five minutes at most")
    payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": claims.sub, "org": claims.org, "rev": claims.rev}
    return jwt.encode(payload | {"exp": claims.exp, "iat": now_s}, key, _ALGORITHM, headers={"kid": kid})


def verify(token: str, key_of: Callable[[str], Ed25519PublicKey | None], now_s: float) -> Claims:
    """Check a token; `key_of` gives the public key of a `kid`. Raises ExpiredToken, or BadToken for all else."""
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        key = key_of(kid) if isinstance(kid, str) else None
        if key is None:
            raise BadToken("the signing key is not known")
        options: Any = {"require": ["iss", "aud", "sub", "exp", "iat"], "verify_exp": False, "verify_iat": False}
        payload = jwt.decode(token, key, [_ALGORITHM], options=options, audience=AUDIENCE, issuer=ISSUER)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise BadToken("the token is not one of ours") from error
    claims = _claims(payload)
    if claims.exp <= now_s:
        raise ExpiredToken("the token has expired")
    if claims.exp > now_s + LONGEST_LIFE_S + 60:
        raise BadToken("the token lives too long")
    return claims


def _claims(payload: Mapping[str, Any]) -> Claims:
    sub, org, rev, exp = (payload.get(name) for name in ("sub", "org", "rev", "exp"))
    if type(sub) is not str or type(org) is not str or type(rev) is not int or type(exp) is not int:
        raise BadToken("a claim is missing or has the wrong type")
    return Claims(sub=sub, org=org, rev=rev, exp=exp)


def jwk_of(key: Ed25519PublicKey, kid: str) -> dict[str, Any]:
    """The public key as an entry of a JWKS."""
    return {**jwt.algorithms.OKPAlgorithm.to_jwk(key, as_dict=True), "kid": kid, "use": "sig", "alg": _ALGORITHM}


class KeySet:
    """The console's public keys, fetched when first needed, every minute while used, and when an unknown `kid` turns up.

    `fetch` gives the JWKS document and raises OSError when it cannot. Unknown kids cause at most one fetch each
    `retry_s`, failed ones included, so that forged tokens cannot make us hammer the console. Thread-safe.
    """

    def __init__(self, fetch: Callable[[], Mapping[str, Any]], retry_s: float = 2.0, good_for_s: float = 60.0) -> None:
        self._fetch, self._retry_s, self._good_for_s = fetch, retry_s, good_for_s
        self._got_at = float("-inf")
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._asked_at: float | None = None
        self._failure: OSError | None = None
        self._lock = Lock()

    def key_of(self, kid: str) -> Ed25519PublicKey | None:
        """The key of this `kid`, or None. Raises OSError when the console is needed and away."""
        if kid in self._keys and time.monotonic() - self._got_at < self._good_for_s:
            return self._keys[kid]
        with self._lock:
            now = time.monotonic()
            # A key that the console took back must not be believed for ever; while it is away the last ones count on.
            wanted = kid not in self._keys or now - self._got_at >= self._good_for_s
            if wanted and (self._asked_at is None or now - self._asked_at >= self._retry_s):
                self._asked_at = now
                self._ask()
            if kid not in self._keys and self._failure is not None:
                raise OSError("the console's public keys are not to be had") from self._failure
        return self._keys.get(kid)

    def _ask(self) -> None:
        try:
            self._keys, self._failure = _keys_in(self._fetch()), None
            self._got_at = time.monotonic()
        except OSError as error:
            self._failure = error
        except (jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._failure = OSError(f"no key set: {error!r}")


def _keys_in(document: Mapping[str, Any]) -> dict[str, Ed25519PublicKey]:
    keys = {}
    for entry in document.get("keys", ()):
        key = jwt.algorithms.OKPAlgorithm.from_jwk(entry)
        if isinstance(key, Ed25519PublicKey):
            keys[str(entry["kid"])] = key
    return keys
