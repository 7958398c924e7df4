"""The client of the checker: what it asks, what it makes of the answers, and that every doubt is a refusal."""

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import flask
import pytest

from keyledger.checker import Checker, CheckerUnavailable, Validation
from keyledger.middleware import require_key

WHO: dict[str, Any] = {"key_id": "0" * 22, "org_id": "org_a", "user_id": "user_a"}
VALID: dict[str, Any] = {"valid": True, "code": "VALID", **WHO, "scopes": ["a:b"], "revision": 7}


class Server(ThreadingHTTPServer):
    """Answers what the test put in `answer`; remembers what it was asked and from where."""

    daemon_threads = True
    answer: tuple[int, bytes] = (200, b"")
    closes = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []
        self.clients: set[Any] = set()
        self.checker = Checker(f"http://127.0.0.1:{self.server_port}", "token")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers["Authorization"]))
        self.server.clients.add(self.client_address)
        status, answer = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = self.server.closes

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.checker.close()
        server.shutdown()
        thread.join()


def answering(server: Server, answer: Any, status: int = 200) -> Checker:
    server.answer = (status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())
    return server.checker


def test_a_valid_key_comes_with_whose_it_is(server: Server) -> None:
    answer = answering(server, VALID | {"new_field": 1}).validate("kl_x", ["a:b"], "192.0.2.7")
    assert answer == Validation(valid=True, code="VALID", **WHO, scopes=("a:b",), revision=7)
    assert server.asked == [("/v1/validations", {"key": "kl_x", "scopes": ["a:b"], "ip": "192.0.2.7"}, "Bearer token")]


def test_what_is_not_given_is_not_sent(server: Server) -> None:
    assert answering(server, {"valid": False, "code": "NOT_FOUND"}).validate("kl_x").code == "NOT_FOUND"
    assert server.asked[0][1] == {"key": "kl_x"}


def test_one_connection_serves_many_questions_and_is_made_anew_when_it_was_closed(server: Server) -> None:
    checker = answering(server, VALID)
    assert all(checker.validate("kl_x").valid for _ in range(3))
    assert len(server.clients) == 1
    server.closes = True
    assert all(checker.validate("kl_x").valid for _ in range(3))
    assert len(server.clients) > 1


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"not json", b"[" * 100_000, b"[]", b"null", b"\xff"),
        *({}, {"valid": True}, {"valid": True, "code": "REVOKED"}, {"valid": False, "code": "VALID"}),
        *({"valid": "yes", "code": "VALID", **WHO}, {"valid": 1, "code": "VALID", **WHO}, VALID | {"scopes": 5}),
        *({"valid": True, "code": "VALID"}, VALID | {"org_id": None}, {"valid": True, "code": None}),
    ],
    ids=lambda answer: repr(answer)[:40],
)
def test_an_answer_that_makes_no_sense_is_none(server: Server, answer: Any) -> None:
    with pytest.raises(CheckerUnavailable):
        answering(server, answer).validate("kl_x")


@pytest.mark.parametrize("status", [201, 204, 301, 400, 401, 403, 500, 503])
def test_any_other_status_is_no_answer_whatever_the_body_says(server: Server, status: int) -> None:
    with pytest.raises(CheckerUnavailable):
        answering(server, b"" if status == 204 else VALID, status).validate("kl_x")


def test_a_checker_that_is_away_or_silent_is_unavailable_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(CheckerUnavailable):
            Checker(f"http://127.0.0.1:{port}", timeout_s=0.05).validate("kl_x")
    with pytest.raises(CheckerUnavailable):
        Checker(f"http://127.0.0.1:{port}").validate("kl_x")


@pytest.mark.parametrize("url", ["", "checker:8003", "ftp://checker", "http://"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        Checker(url)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (VALID, 200),
        ({"valid": False, "code": "REVOKED"}, 401),
        ({"valid": False, "code": "MALFORMED"}, 401),
        ({"valid": False, "code": "INSUFFICIENT_SCOPE"}, 403),
        ({"valid": False, "code": "IP_NOT_ALLOWED"}, 403),
        ({"valid": False, "code": "STALE"}, 503),
        ({}, 503),
    ],
)
def test_a_guarded_app_lets_good_keys_through_and_no_other(server: Server, answer: Any, status: int) -> None:
    app = flask.Flask("guarded")
    app.before_request(require_key(answering(server, answer), ["a:b"]))
    app.add_url_rule("/", view_func=lambda: flask.g.validation.org_id)
    response = app.test_client().get("/", headers={"Authorization": "Bearer kl_x"})
    assert response.status_code == status
    assert (response.text == "org_a") == (status == 200)
    assert server.asked[0][1]["key"] == "kl_x"
