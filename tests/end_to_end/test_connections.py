"""A refusal does not cost its client the connection: proxies and pools send the next request there."""

import http.client
from urllib.parse import urlsplit

import pytest

from schemas.problems import MAX_BODY_BYTES
from tests.end_to_end.system import System

TIMES = 100
REFUSED = [
    ("command", "POST", "/v1/orgs", 401),
    ("command", "POST", "/v1/me", 404),
    ("read", "POST", "/v1/orgs", 405),
    ("console", "PATCH", "/v1/me", 401),
    ("console", "POST", "/v1/me", 405),
    ("checker", "PUT", "/v1/validations", 405),
]


@pytest.mark.parametrize(("service", "method", "path", "status"), REFUSED)
def test_after_a_refused_body_the_next_request_on_the_connection_is_answered(
    system: System, service: str, method: str, path: str, status: int
) -> None:
    client = _client(system, service)
    for _ in range(TIMES):
        assert _ask(client, method, path, b'{"a": 1}') == (status, None)
        assert _ask(client, "GET", "/healthz") == (200, None)
    client.close()


@pytest.mark.parametrize("service", ["command", "read", "console", "checker"])
def test_a_body_that_is_too_large_is_refused_and_the_connection_closed_in_so_many_words(
    system: System, service: str
) -> None:
    client = _client(system, service)
    client.putrequest("POST", "/v1/orgs" if service != "checker" else "/v1/validations")
    client.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
    client.endheaders()  # The body itself never comes: it must be refused for its announced size.
    response = client.getresponse()
    assert (response.status, response.getheader("Connection")) == (413, "close")
    client.close()


def _client(system: System, service: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(str(urlsplit(system.urls[service][0]).netloc), timeout=10)


def _ask(
    client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, str | None]:
    # It opens a new connection by itself only when the last answer said that it closes the old one.
    client.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    response = client.getresponse()
    response.read()
    return response.status, response.getheader("Connection")
