"""Forward auth: `GET /v1/authorize`, asked by a reverse proxy about the request in its hands. Never a body.

The request's headers are the client's: its key in `Authorization: Bearer` or `X-API-Key`, its `User-Agent`. The proxy
adds its own credential in `Keyledger-Caller: Bearer` where one is asked for, and names the scopes that are needed in
the query, `?scope=a&scope=b`, which is fixed in its configuration.

204 lets the request through and says whose it is; 401, 403 and 503 refuse it as `schemas.bearer` says. A 400 means that
the proxy is configured wrongly; proxies refuse the request then.

`ForwardAuth` is WSGI in and the head of an answer out, so that the fast lane can give it without Flask:
`start_response(*forward_auth(environ))`, and then no body.
"""

from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final
from urllib.parse import parse_qsl

from schemas.bearer import NO_KEY, Refusal, key_of, refusal, scope_text
from schemas.fields import SCOPE, Shape
from schemas.problems import Problem, malformed
from services.auth_checker.bodies import Answer, Asked
from services.auth_checker.check import address
from services.auth_checker.doors import Door
from services.auth_checker.handler import Checker

PATH: Final = "/v1/authorize"
_MOST_SCOPES: Final = 50
_SCOPE: Final = Shape(SCOPE).whole
Head = tuple[str, list[tuple[str, str]]]
"""Status line and headers."""


class ForwardAuth:
    """Judges requests. `trusted_proxies` are the networks whose `X-Forwarded-For` is believed. Thread-safe."""

    def __init__(self, checker: Checker, door: Door, trusted_proxies: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._checker, self._door, self._trusted_proxies = checker, door, trusted_proxies

    def __call__(self, environ: dict[str, Any]) -> Head:
        """The head of the answer to a GET or HEAD; never raises a Problem."""
        try:
            self._door.enter(environ.get("HTTP_KEYLEDGER_CALLER"))
            scopes = _needed(environ.get("QUERY_STRING", ""))
            key = key_of(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_X_API_KEY"))
            if key is None:
                return _head(NO_KEY)
            user_agent = environ.get("HTTP_USER_AGENT")
            asked = Asked(key=key, scopes=scopes, ip=self._client(environ), user_agent=user_agent)
            answer = self._checker.validate(asked)
        except Problem as problem:
            status = HTTPStatus(problem.status)
            return f"{status.value} {status.phrase}", [("Cache-Control", "no-store"), *problem.headers.items()]
        return ("204 No Content", _identity(answer)) if answer.valid else _head(refusal(answer.code, scopes))

    def _client(self, environ: dict[str, Any]) -> str | None:
        """Where the request came from: the last address that no trusted proxy has.

        What is left of it in `X-Forwarded-For` was said by the client, and may be anything.
        """
        at: str | None = environ.get("REMOTE_ADDR")
        hops: list[str] = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
        while hops and at is not None and self._is_trusted(at) and (hop := hops.pop().strip()):
            at = hop
        return at

    def _is_trusted(self, peer: str) -> bool:
        if not self._trusted_proxies:
            return False
        found = address(peer[:64])
        return found is not None and any(found in network for network in self._trusted_proxies)


@lru_cache(256)
def _needed(query: str) -> list[str] | None:
    """The scopes of a query. Raises Problem 400: a name or scope written wrongly must not let everything through."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_SCOPES)
    except ValueError as error:
        raise malformed("too many parameters") from error
    for name, value in pairs:
        if name != "scope" or not _SCOPE.fullmatch(value):
            raise malformed("the query may only have scope=, each with one scope")
    return [value for _, value in pairs] or None


def _head(refused: Refusal) -> Head:
    return refused.status_line, list(refused.headers)


def _identity(answer: Answer) -> list[tuple[str, str]]:
    return [
        ("Cache-Control", "no-store"),
        ("Keyledger-Key-Id", str(answer.key_id)),
        ("Keyledger-Org-Id", str(answer.org_id)),
        ("Keyledger-User-Id", str(answer.user_id)),
        ("Keyledger-Scopes", scope_text(None if answer.scopes is None else answer.scopes or ())),
        ("Keyledger-Revision", f"{answer.org_id}:{answer.revision}"),
        ("Keyledger-As-Of", str(answer.as_of)),
        ("Keyledger-Max-Staleness-Ms", str(answer.max_staleness_ms)),
    ]
