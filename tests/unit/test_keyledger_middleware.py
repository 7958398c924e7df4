"""The guards of other people's apps: WSGI, ASGI and Flask refuse alike and let the same requests through."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import flask
import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Request, Response

from keyledger.checker import CheckerUnavailable, Validation
from keyledger.middleware import AsgiGuard, Message, Scope, WsgiGuard, key_required, require_key

GOOD = Validation(True, "VALID", key_id="1" * 22, org_id="acme", user_id="ann")
ASKED = ("kl_x", ["a:b"], "192.0.2.1", "curl/8")


class Answering:
    """A checker that gives one answer, or none, and remembers what it was asked."""

    def __init__(self, answer: Validation | None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Sequence[str], str | None, str | None]] = []

    def validate(
        self, key: str, scopes: Sequence[str] = (), ip: str | None = None, user_agent: str | None = None
    ) -> Validation:
        self.asked.append((key, scopes, ip, user_agent))
        if self.answer is None:
            raise CheckerUnavailable("away")
        return self.answer


Answer = tuple[int, dict[str, str], str]
Guarded = Callable[[Answering, dict[str, str]], Answer]


def _seen(org_id: str | None, identity: str | None) -> str:
    return f"{org_id} {identity}"


def by_wsgi(checker: Answering, headers: dict[str, str]) -> Answer:
    @Request.application
    def app(request: Request) -> Response:
        return Response(_seen(request.environ["keyledger.validation"].org_id, request.headers.get("Keyledger-Org-Id")))

    return _ask(Client(WsgiGuard(app, checker, ["a:b"])), headers)


def by_flask(checker: Answering, headers: dict[str, str]) -> Answer:
    app = flask.Flask("guarded")
    app.before_request(require_key(checker, ["a:b"]))
    app.add_url_rule("/", view_func=_view)
    return _ask(Client(app), headers)


def by_view(checker: Answering, headers: dict[str, str]) -> Answer:
    app = flask.Flask("guarded")

    @app.get("/")
    @key_required(checker, ["a:b"])
    def view() -> str:
        return _view()

    return _ask(Client(app), headers)


def _view() -> str:
    return _seen(flask.g.validation.org_id, flask.request.headers.get("Keyledger-Org-Id"))


def _ask(client: Client, headers: dict[str, str]) -> Answer:
    answer = client.get("/", headers=headers, environ_overrides={"REMOTE_ADDR": "192.0.2.1"})
    return answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.text


def by_asgi(checker: Answering, headers: dict[str, str]) -> Answer:
    sent = talk(checker, {"type": "http", "headers": _raw(headers), "client": ("192.0.2.1", 4711)})
    start, body = sent
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body["body"].decode()


def talk(checker: Answering, scope: Scope) -> list[Message]:
    """What is sent to whoever opened this scope."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        identity = dict(scope.get("headers", ())).get(b"keyledger-org-id")
        org_id = scope["keyledger"].org_id if "keyledger" in scope else scope["type"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": _seen(org_id, identity).encode()})

    async def receive() -> Message:
        raise AssertionError("a guard reads no body")

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(AsgiGuard(app, checker, ["a:b"])(scope, receive, send))
    return sent


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


GUARDS = [by_wsgi, by_flask, by_view, by_asgi]


@pytest.mark.parametrize("guarded", GUARDS)
@pytest.mark.parametrize("sent", [{"Authorization": "Bearer kl_x"}, {"X-API-Key": "kl_x"}])
def test_a_good_key_reaches_the_app_with_the_answer_and_no_identity_that_the_client_made_up(
    guarded: Guarded, sent: dict[str, str]
) -> None:
    checker = Answering(GOOD)
    headers = {**sent, "User-Agent": "curl/8", "Keyledger-Org-Id": "other"}
    status, _, text = guarded(checker, headers)
    assert (status, text) == (200, "acme None")
    assert checker.asked == [ASKED]


@pytest.mark.parametrize("guarded", GUARDS)
@pytest.mark.parametrize(
    ("code", "status", "name", "value"),
    [
        ("MALFORMED", 401, "www-authenticate", 'Bearer error="invalid_token"'),
        ("NOT_FOUND", 401, "www-authenticate", 'Bearer error="invalid_token"'),
        ("REVOKED", 401, "www-authenticate", 'Bearer error="invalid_token"'),
        ("A_NEWER_CODE", 401, "www-authenticate", 'Bearer error="invalid_token"'),
        ("INSUFFICIENT_SCOPE", 403, "www-authenticate", 'Bearer error="insufficient_scope", scope="a:b"'),
        ("IP_NOT_ALLOWED", 403, "www-authenticate", None),
        ("STALE", 503, "retry-after", "1"),
        (None, 503, "retry-after", "1"),
    ],
)
def test_a_key_that_is_not_good_is_refused_alike_by_every_guard(
    guarded: Guarded, code: str | None, status: int, name: str, value: str | None
) -> None:
    checker = Answering(None if code is None else Validation(False, code))
    answered, headers, text = guarded(checker, {"Authorization": "Bearer kl_x"})
    assert (answered, headers.get(name), text) == (status, value, "")
    assert (headers["cache-control"], headers["content-length"]) == ("no-store", "0")


@pytest.mark.parametrize("guarded", GUARDS)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer "}])
def test_without_a_key_the_checker_is_not_asked_and_the_challenge_names_no_error(
    guarded: Guarded, headers: dict[str, str]
) -> None:
    checker = Answering(GOOD)
    status, answered, _ = guarded(checker, headers)
    assert (status, answered["www-authenticate"]) == (401, "Bearer")
    assert checker.asked == []


@pytest.mark.parametrize("guarded", GUARDS)
def test_of_several_keys_none_is_picked(guarded: Guarded) -> None:
    checker = Answering(Validation(False, "MALFORMED"))
    assert guarded(checker, {"Authorization": "Bearer kl_x", "X-API-Key": "kl_y"})[0] == 401
    assert checker.asked[0][0] == "kl_x,kl_y"


def test_repeated_headers_of_an_asgi_request_are_several_keys() -> None:
    checker = Answering(Validation(False, "MALFORMED"))
    talk(checker, {"type": "http", "headers": [(b"x-api-key", b"kl_x"), (b"X-API-Key", b"kl_y")]})
    assert checker.asked == [("kl_x,kl_y", ["a:b"], None, None)]


def test_a_websocket_is_refused_before_it_is_accepted() -> None:
    scope: Scope = {"type": "websocket", "headers": _raw({"Authorization": "Bearer kl_x"})}
    refused = Answering(Validation(False, "REVOKED"))
    assert talk(refused, scope) == [{"type": "websocket.close", "code": 1008}]
    told = talk(refused, {**scope, "extensions": {"websocket.http.response": {}}})
    assert [message["type"] for message in told] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert told[0]["status"] == 401
    assert talk(Answering(GOOD), scope)[1]["body"] == b"acme None"


def test_start_up_of_an_asgi_app_needs_no_key() -> None:
    assert talk(Answering(None), {"type": "lifespan"})[1]["body"] == b"lifespan None"


def test_the_guards_can_be_imported_without_flask() -> None:
    program = "import sys; sys.modules['flask'] = None; import keyledger.middleware as m; print(m.WsgiGuard.__name__)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), ran.stderr) == ("WsgiGuard", "")
