"""Guard an app with keys: `WsgiGuard` and `AsgiGuard` around any app, `require_key` and `key_required` in Flask.

    app = WsgiGuard(app, Checker("https://checker.internal:8003", token), scopes=["invoices:read"])

A request carries its key in `Authorization: Bearer` or `X-API-Key`. Good for the scopes, it reaches the app with the
checker's answer beside it; else it is refused as `schemas.bearer` says: 401, 403 for scope and network, 503 when no
answer is to be had. Headers `Keyledger-*`, which only a reverse proxy may set, are taken out on the way.

The address is that of the connection; behind a reverse proxy, put what corrects it (werkzeug's ProxyFix, uvicorn's
`--proxy-headers`) around the guard.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar

from keyledger.checker import CheckerUnavailable, Validation
from schemas.bearer import NO_KEY, UNAVAILABLE, Refusal, key_of, refusal

if TYPE_CHECKING:
    from flask import Response

P = ParamSpec("P")
R = TypeVar("R")
Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Wsgi = Callable[[Environ, StartResponse], Iterable[bytes]]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
ENVIRON: Final = "keyledger.validation"
"""Where a WSGI app finds its `Validation`."""
SCOPE: Final = "keyledger"
"""Where an ASGI app finds it."""
_POLICY_VIOLATION: Final = 1008


class Validates(Protocol):
    """`keyledger.checker.Checker`, or anything that answers alike."""

    def validate(
        self, key: str, scopes: Sequence[str] = (), ip: str | None = None, user_agent: str | None = None
    ) -> Validation:
        """Is this key good? Raises CheckerUnavailable."""


class WsgiGuard:
    """A WSGI app around another one, which finds the answer in `environ["keyledger.validation"]`."""

    def __init__(self, app: Wsgi, checker: Validates, scopes: Sequence[str] = ()) -> None:
        self._app, self._checker, self._scopes = app, checker, scopes

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        judged = _judge_wsgi(self._checker, self._scopes, environ)
        if isinstance(judged, Refusal):
            start_response(judged.status_line, [*judged.headers, ("Content-Length", "0")])
            return []
        environ[ENVIRON] = judged
        return self._app(environ, start_response)


class AsgiGuard:
    """An ASGI app around another one, which finds the answer in `scope["keyledger"]`.

    The checker is asked in a thread, so that the loop goes on meanwhile. A WebSocket is refused before it is accepted.
    """

    def __init__(self, app: Asgi, checker: Validates, scopes: Sequence[str] = ()) -> None:
        self._app, self._checker, self._scopes = app, checker, scopes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] not in ("http", "websocket"):  # Start-up and shutdown carry no key.
            await self._app(scope, receive, send)
            return
        judged = await asyncio.to_thread(self._judge, scope)
        if isinstance(judged, Refusal):
            await _refuse(judged, scope, send)
            return
        headers = [pair for pair in scope["headers"] if not pair[0].lower().startswith((b"keyledger-", b"keyledger_"))]
        await self._app({**scope, "headers": headers, SCOPE: judged}, receive, send)

    def _judge(self, scope: Scope) -> Validation | Refusal:
        client = scope.get("client")
        return _judge(
            self._checker,
            self._scopes,
            key_of(_header(scope, b"authorization"), _header(scope, b"x-api-key")),
            client[0] if client else None,
            _header(scope, b"user-agent"),
        )


def require_key(checker: Validates, scopes: Sequence[str] = ()) -> "Callable[[], Response | None]":
    """For a whole Flask app: `app.before_request(require_key(checker, ["invoices:read"]))`.

    The answer is in `flask.g.validation`.
    """
    # Whoever guards another kind of app need not have Flask.
    from flask import Response, g, request  # noqa: PLC0415

    def check() -> Response | None:
        judged = _judge_wsgi(checker, scopes, request.environ)
        if isinstance(judged, Refusal):
            return Response(status=judged.status, headers=dict(judged.headers))
        g.validation = judged
        return None

    return check


def key_required(
    checker: Validates, scopes: Sequence[str] = ()
) -> "Callable[[Callable[P, R]], Callable[P, R | Response]]":
    """For one view of a Flask app: `@key_required(checker, ["invoices:read"])`, below the route."""
    check = require_key(checker, scopes)

    def guard(view: Callable[P, R]) -> "Callable[P, R | Response]":
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> "R | Response":
            refused = check()
            return view(*args, **kwargs) if refused is None else refused

        return guarded

    return guard


def _judge(
    checker: Validates, scopes: Sequence[str], key: str | None, ip: str | None, user_agent: str | None
) -> Validation | Refusal:
    if key is None:
        return NO_KEY
    try:
        validation = checker.validate(key, scopes, ip, user_agent)
    except CheckerUnavailable:
        return UNAVAILABLE
    return validation if validation.valid else refusal(validation.code, scopes)


def _judge_wsgi(checker: Validates, scopes: Sequence[str], environ: Environ) -> Validation | Refusal:
    key = key_of(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_X_API_KEY"))
    for name in [name for name in environ if name.startswith("HTTP_KEYLEDGER_")]:
        del environ[name]
    return _judge(checker, scopes, key, environ.get("REMOTE_ADDR"), environ.get("HTTP_USER_AGENT"))


def _header(scope: Scope, name: bytes) -> str | None:
    """A header of an ASGI request; several of one name are joined, as servers of WSGI do."""
    return b",".join(value for given, value in scope["headers"] if given.lower() == name).decode("latin-1") or None


async def _refuse(refused: Refusal, scope: Scope, send: Send) -> None:
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    if scope["type"] == "websocket" and kind not in scope.get("extensions", {}):
        # The server then answers 403 by itself.
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    headers = [(name.lower().encode(), value.encode()) for name, value in refused.headers]
    length = (b"content-length", b"0")
    await send({"type": f"{kind}.start", "status": refused.status, "headers": [*headers, length]})
    await send({"type": f"{kind}.body", "body": b""})
