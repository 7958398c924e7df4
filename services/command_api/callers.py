"""Who is calling: a bearer token becomes a Caller.

A signed token is verified here, offline, against the console's JWKS; an API key is asked of the auth checker and
nowhere else. Rights in the caller's own organisation are judged by `decide` on our own state; an operator's right is
in another ledger, so it is asked of the checker, which answers at which revision it read it.
"""

import json
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final

import structlog
import urllib3

from schemas import tokens
from schemas.problems import Problem
from schemas.validation import BOOTSTRAP, PLATFORM, Code
from services.command_api.commands import Caller
from services.ledger.lmdb_chain import LmdbChain
from services.ledger.store import Store

_MOST_VERIFIED: Final = 10_000
_REV_WAIT_S: Final = 1.0
_log = structlog.get_logger("keyledger.command_api")


class Checker:
    """The auth checker's `POST /v1/callers`."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/v1/callers"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._pool = urllib3.PoolManager(maxsize=64, timeout=urllib3.Timeout(3.0), retries=False)

    def ask(self, token: str, ip: str | None, user_agent: str | None) -> Mapping[str, Any]:
        """A CallerAnswer. Raises Problem 503 when the checker is away or stale, 401 or 403 when the token is no good."""
        question = {"token": token, "ip": ip, "user_agent": user_agent}
        try:
            response = self._pool.request("POST", self._url, json=question, headers=self._headers)
            answer = json.loads(response.data) if response.status == 200 else {}
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            _log.warning("checker_away", error=repr(error))
            answer = {}
        if answer.get("valid") is True:
            return answer
        match answer.get("code"):
            case None:
                raise Problem(503, "checker_unavailable", "the auth checker does not answer", retry_after_s=1)
            case Code.STALE:
                raise Problem(503, "stale", "the auth checker is not up to date", retry_after_s=1)
            case Code.IP_NOT_ALLOWED:
                raise Problem(403, "ip_not_allowed", "the API key is not allowed from this address")
            case code:
                raise unauthorized(str(code).lower(), "the token is not valid")


def unauthorized(code: str, detail: str) -> Problem:
    """A 401 with the header that RFC 6750 asks for."""
    return Problem(401, code, detail, headers={"WWW-Authenticate": 'Bearer realm="keyledger"'})


class Callers:
    """Turns bearer tokens into callers. Thread-safe."""

    def __init__(
        self, key_set: tokens.KeySet, checker: Checker, store: Store, now_s: Callable[[], float] = time.time
    ) -> None:
        self._key_set, self._checker, self._store, self._now_s = key_set, checker, store, now_s
        self._verified: dict[str, tokens.Claims] = {}
        self._lock = Lock()

    def identify(self, authorization: str | None, org: str | None, ip: str | None, user_agent: str | None) -> Caller:
        """The caller of a call about `org`, None for a call about no organisation yet. Raises Problem."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized("token_missing", "send Authorization: Bearer with a signed token or an API key")
        token = token.strip()
        if not tokens.looks_signed(token):
            return self._by_key(token, org, ip, user_agent)
        claims = self._claims(token)
        if claims.sub == BOOTSTRAP and claims.org == PLATFORM:
            return Caller(PLATFORM, BOOTSTRAP, bootstrap=True)
        if claims.org == org:
            self._wait_for(claims)
            return Caller(claims.org, claims.sub)
        if claims.org != PLATFORM:
            return Caller(claims.org, claims.sub)  # A stranger: `decide` answers 404, or 403 for POST /v1/orgs.
        answer = self._checker.ask(token, ip, user_agent)
        revision = answer["revision"] if answer["role"] == "admin" else None
        return Caller(claims.org, claims.sub, operator_revision=revision)

    def _by_key(self, token: str, org: str | None, ip: str | None, user_agent: str | None) -> Caller:
        answer = self._checker.ask(token, ip, user_agent)
        elsewhere = answer["org_id"] == PLATFORM and org != PLATFORM
        return Caller(
            org=answer["org_id"],
            user_id=answer["user_id"],
            key_id=answer["key_id"],
            scopes=tuple(answer.get("scopes") or ()),
            operator_revision=answer["revision"] if elsewhere and answer["role"] == "admin" else None,
        )

    def _claims(self, token: str) -> tokens.Claims:
        claims = self._verified.get(token)
        if claims is not None and claims.exp > self._now_s():
            return claims
        try:
            claims = tokens.verify(token, self._key_set.key_of, self._now_s())
        except tokens.ExpiredToken as error:
            raise unauthorized("token_expired", "the token has expired; sign in again") from error
        except tokens.BadToken as error:
            raise unauthorized("token_invalid", "the token is not one of ours") from error
        except OSError as error:
            raise Problem(503, "console_unavailable", "the console's keys cannot be read", retry_after_s=1) from error
        with self._lock:
            if len(self._verified) >= _MOST_VERIFIED:
                self._verified.clear()
            self._verified[token] = claims
        return claims

    def _wait_for(self, claims: tokens.Claims) -> None:
        """What the token was signed upon must be known here: a user just added, a role just given."""
        deadline = time.monotonic() + _REV_WAIT_S
        while self._revision(claims.org) < claims.rev:
            if time.monotonic() > deadline:
                raise Problem(503, "stale", "this service has not caught up with your sign-in", retry_after_s=1)
            time.sleep(0.01)

    def _revision(self, org: str) -> int:
        with self._store.read() as txn:
            return LmdbChain(txn).head(org).revision


def fetch_jwks(console_url: str) -> Callable[[], Mapping[str, Any]]:
    """Fetches the console's JWKS document; raises OSError when it cannot."""
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(2.0), retries=False)

    def fetch() -> Mapping[str, Any]:
        try:
            response = pool.request("GET", f"{console_url}/.well-known/jwks.json")
            document = json.loads(response.data)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise OSError(f"the console's keys cannot be read: {error!r}") from error
        if response.status != 200 or not isinstance(document, dict):
            raise OSError(f"the console's keys cannot be read: status {response.status}")
        return document

    return fetch
