"""Single sign-on: OpenID Connect's authorization code flow with PKCE, as far as an e-mail address that is verified.

Nothing is stored between leaving for the provider and coming back: state, nonce and code verifier all follow from a
random secret that only the visitor's browser holds.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import requests
import structlog
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from schemas.problems import Problem
from schemas.times import Clock
from services.console.config import OidcSettings

_log = structlog.get_logger()
_TIMEOUT_S: Final = (2.0, 10.0)
_KEEP_MS: Final = 3600 * 1000
_LEEWAY_S: Final = 30
# Only what a public key verifies: neither "none", nor a MAC that could be made with something public.
_ALGORITHMS: Final = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
]
_ERROR: Final = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class _Provider:
    authorization_endpoint: str
    token_endpoint: str
    client_auth: str
    keys: KeySet
    known_since_ms: int


class Oidc:
    """One provider. Thread-safe: what is known about it is read once an hour, and replaced as a whole."""

    def __init__(self, settings: OidcSettings, redirect_uri: str, clock: Clock) -> None:
        self._settings, self._redirect_uri, self._clock = settings, redirect_uri, clock
        self._known: _Provider | None = None
        self._name = settings.name

    def begin(self, secret: bytes) -> str:
        """The address to send the browser to. `secret`: 256 random bits of its cookie. Raises Problem 503 `sso_away`."""
        provider = self._provider()
        with self._session(provider) as session:
            address, _state = session.create_authorization_url(
                provider.authorization_endpoint,
                state=_derived(secret, "state"),
                nonce=_derived(secret, "nonce"),
                code_verifier=_derived(secret, "code verifier"),
            )
        return str(address)

    def finish(self, secret: bytes, query: Mapping[str, str]) -> str:
        """The verified e-mail address of whom the provider sent back. Raises Problem 401 `sso_refused`, 503 `sso_away`."""
        if not hmac.compare_digest(query.get("state", "").encode(), _derived(secret, "state").encode()):
            raise _refused("this sign-in was not begun in this browser, or too long ago; try again")
        if not query.get("code"):
            # Only what looks like an error code is shown: the address could have been written by anyone.
            shown = _ERROR.fullmatch(query.get("error", ""))
            raise _refused(f"{self._name} did not sign you in" + (f" ({shown[0]})" if shown else ""))
        provider = self._provider()
        claims = self._claims(provider, self._exchange(provider, query["code"], secret), secret)
        email = claims.get("email")
        # Beyond ASCII, another letter can have the same small letter as one in the address of an account here.
        plain = isinstance(email, str) and email.isascii() and email.isprintable()
        if not plain or claims.get("email_verified") is not True:
            raise _refused(f"{self._name} did not name a verified e-mail address")
        return str(email)

    def _exchange(self, provider: _Provider, code: str, secret: bytes) -> str:
        try:
            with self._session(provider) as session:
                answer = session.fetch_token(
                    provider.token_endpoint,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=_derived(secret, "code verifier"),
                    allow_redirects=False,
                )
            id_token = answer["id_token"]
            if not isinstance(id_token, str):
                raise TypeError("the ID token is no text")
            return id_token
        except AuthlibBaseError as error:
            if error.error != "invalid_grant":
                raise self._away(error) from error
            raise _refused("this sign-in was used before, or took too long; try again") from error
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            raise self._away(error) from error

    def _claims(self, provider: _Provider, id_token: str, secret: bytes) -> Mapping[str, Any]:
        try:
            decoded = self._decode(provider, id_token)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                options={
                    "iss": {"essential": True, "value": self._settings.issuer},
                    "aud": {"essential": True, "value": self._settings.client_id},
                },
                params={"client_id": self._settings.client_id, "nonce": _derived(secret, "nonce")},
            )
            claims.validate(now=self._clock() // 1000, leeway=_LEEWAY_S)
        except (JoseError, ValueError, TypeError) as error:
            _log.warning("ID token refused", why=f"{type(error).__name__}: {error}")
            raise _refused(f"what {self._name} said about you could not be verified") from error
        return dict(claims)

    def _decode(self, provider: _Provider, id_token: str) -> jwt.Token:
        try:
            return jwt.decode(id_token, provider.keys, _ALGORITHMS)
        except InvalidKeyIdError:
            # Signed with a key that is newer than what we know of the provider.
            return jwt.decode(id_token, self._discover().keys, _ALGORITHMS)

    def _session(self, provider: _Provider) -> OAuth2Session:
        return OAuth2Session(
            self._settings.client_id,
            self._settings.client_secret,
            token_endpoint_auth_method=provider.client_auth,
            scope="openid email",
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
            default_timeout=_TIMEOUT_S,
        )

    def _provider(self) -> _Provider:
        known = self._known
        if known is None or self._clock() - known.known_since_ms > _KEEP_MS:
            return self._discover()
        return known

    def _discover(self) -> _Provider:
        try:
            document = _get(self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
            if document["issuer"] != self._settings.issuer:
                raise ValueError(f"it says to be the issuer {document['issuer']!r}")
            methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
            found = _Provider(
                self._endpoint(document, "authorization_endpoint"),
                self._endpoint(document, "token_endpoint"),
                "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post",
                KeySet.import_key_set(_get(self._endpoint(document, "jwks_uri"))),
                self._clock(),
            )
        except (requests.RequestException, JoseError, ValueError, KeyError, TypeError) as error:
            raise self._away(error) from error
        self._known = found
        return found

    def _endpoint(self, document: Mapping[str, Any], name: str) -> str:
        address = str(document[name])
        # The configuration takes an issuer without TLS only on this machine; its endpoints then are there too.
        if not address.startswith(("https://", self._settings.issuer.rstrip("/") + "/")):
            raise ValueError(f"its {name} is no https address")
        return address

    def _away(self, why: Exception) -> Problem:
        _log.warning("single sign-on is away", issuer=self._settings.issuer, why=f"{type(why).__name__}: {why}")
        return Problem(503, "sso_away", f"{self._name} does not answer as it should right now", retry_after_s=2)


def _derived(secret: bytes, label: str) -> str:
    return urlsafe_b64encode(hmac.digest(secret, label.encode(), hashlib.sha256)).rstrip(b"=").decode()


def _get(address: str) -> Any:
    answer = requests.get(address, timeout=_TIMEOUT_S, allow_redirects=False)
    if answer.status_code != requests.codes.ok:
        raise ValueError(f"HTTP {answer.status_code} from {address}")
    return answer.json()


def _refused(detail: str) -> Problem:
    return Problem(401, "sso_refused", detail)
