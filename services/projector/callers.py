"""Asks the auth checker who is behind a bearer token. Nobody else decides that, and nothing is remembered here."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
import urllib3

from schemas.problems import Problem
from schemas.validation import KEYS_READ, Code
from services.projector.access import Caller

_LONGEST_TOKEN: Final = 8192
_log = structlog.get_logger("keyledger.projector")


class Callers:
    """The auth checker's `POST /v1/callers`. Thread-safe."""

    def __init__(self, checker_url: str, checker_token: str, http: urllib3.PoolManager) -> None:
        self._url, self._http = checker_url + "/v1/callers", http
        self._headers = {"Authorization": f"Bearer {checker_token}"} if checker_token else {}

    def identify(self, authorization: str | None, ip: str | None, user_agent: str | None) -> Caller:
        """The caller behind an Authorization header. Raises Problem 401, 403, 503."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
            raise _unauthorized("unauthenticated", "send Authorization: Bearer with a signed token or an API key")
        answer = self._ask({"token": token, "ip": ip, "user_agent": (user_agent or "")[:200] or None})
        if answer.get("valid") is not True:
            raise _refusal(answer.get("code"))
        scopes = answer.get("scopes")
        caller = Caller(
            org_id=answer["org_id"],
            user_id=answer["user_id"],
            role=answer["role"],
            kind=answer["kind"],
            key_id=answer.get("key_id"),
            scopes=None if scopes is None else tuple(scopes),
        )
        if caller.key_id is not None and KEYS_READ not in (caller.scopes or ()):
            raise Problem(403, "insufficient_scope", f"the API key needs the scope {KEYS_READ}")
        return caller

    def _ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            timeout = urllib3.Timeout(3.0)
            response = self._http.request(
                "POST", self._url, json=question, headers=self._headers, timeout=timeout, retries=False
            )
            answer = msgspec.json.decode(response.data, type=dict[str, Any]) if response.status == 200 else {}
        except (urllib3.exceptions.HTTPError, msgspec.DecodeError) as error:
            _log.warning("checker_away", error=repr(error))
            return {}
        return answer


def _refusal(code: str | None) -> Problem:
    match code:
        case None:
            return Problem(503, "checker_unavailable", "the auth checker does not answer", retry_after_s=1)
        case Code.STALE:
            return Problem(503, "stale", "the auth checker is not up to date", retry_after_s=1)
        case Code.IP_NOT_ALLOWED:
            return Problem(403, "ip_not_allowed", "the API key is not allowed from this address")
        case _:
            return _unauthorized(code.lower(), "the token is not valid")


def _unauthorized(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": 'Bearer realm="keyledger"'})
