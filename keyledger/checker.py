"""Ask the auth checker whether a key is good. Standard library only.

checker = Checker("https://checker.internal:8003", token)
answer = checker.validate(key, scopes=["invoices:read"], ip=address)
if not answer.valid: …
"""

import http.client
import json
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

PATH: Final = "/v1/validations"


class CheckerUnavailable(Exception):
    """No answer was had, for whatever reason: the key must not be accepted."""


class Validation(NamedTuple):
    """The checker's answer. `code` is one of `schemas.validation.Code`; all else only for a key that is known.

    `scopes` None means that the key is not restricted. Times are RFC 3339 texts, UTC.
    """

    valid: bool
    code: str
    key_id: str | None = None
    org_id: str | None = None
    user_id: str | None = None
    role: str | None = None
    kind: str | None = None
    name: str | None = None
    scopes: tuple[str, ...] | None = None
    expires_at: str | None = None
    revision: int | None = None
    as_of: str | None = None
    max_staleness_ms: int | None = None


_KNOWN: Final = frozenset(Validation._fields)


class Checker:
    """A client that keeps its connections; thread-safe. `token` is an API key with the scope `keys:validate`, or the
    credential the checker was given; a checker on this machine needs none.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 2.0) -> None:
        """Raises ValueError when `url` is no http(s) address."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https address: {url!r}")
        self._make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/") + PATH
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._idle: deque[http.client.HTTPConnection] = deque()

    def validate(
        self, key: str, scopes: Sequence[str] = (), ip: str | None = None, user_agent: str | None = None
    ) -> Validation:
        """Is this key good for all of `scopes`, used from `ip`? Raises CheckerUnavailable, never a doubtful answer."""
        asked = {"key": key, "scopes": list(scopes) or None, "ip": ip, "user_agent": user_agent}
        body = json.dumps({name: value for name, value in asked.items() if value is not None}).encode()
        try:
            status, answer = self._post(body)
            if status != http.HTTPStatus.OK:
                raise CheckerUnavailable(f"the checker answered {status}")
            return _validation(json.loads(answer))
        except (OSError, http.client.HTTPException, ValueError, TypeError, RecursionError) as error:
            raise CheckerUnavailable(f"the checker did not answer: {type(error).__name__}") from error

    def close(self) -> None:
        """Let go of the connections."""
        while self._idle:
            self._idle.pop().close()

    def _post(self, body: bytes) -> tuple[int, bytes]:
        try:
            kept = self._idle.pop()
        except IndexError:
            return self._exchange(self._connect(), body)
        try:
            return self._exchange(kept, body)
        except ConnectionError:
            # It may have been closed while it was idle; a fresh one tells whether the checker is there.
            return self._exchange(self._connect(), body)

    def _connect(self) -> http.client.HTTPConnection:
        return self._make(self._host, self._port, timeout=self._timeout_s)

    def _exchange(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
        try:
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            answer = response.read()
        except BaseException:
            # Whatever interrupts an exchange, an answer to it must never be taken for the answer to the next.
            connection.close()
            raise
        self._idle.append(connection)
        return response.status, answer


def _validation(answer: Any) -> Validation:
    """Raises ValueError for anything that is not an answer; fields of a newer checker are left out."""
    code = answer.get("code") if isinstance(answer, dict) else None
    if not isinstance(code, str) or answer.get("valid") is not (code == "VALID"):
        raise ValueError("not an answer")
    if code == "VALID" and not all(isinstance(answer.get(name), str) for name in ("key_id", "org_id", "user_id")):
        raise ValueError("valid, but for whom is not said")
    known = {name: value for name, value in answer.items() if name in _KNOWN}
    if known.get("scopes") is not None:
        known["scopes"] = tuple(map(str, known["scopes"]))
    return Validation(**known)
