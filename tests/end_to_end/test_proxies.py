"""nginx and Caddy with the configuration files of docs/proxies: one test for each thing they must do."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.checker_server import FROM_ELSEWHERE, FROM_HERE, OTHER_SCOPE, SCOPED
from tests.end_to_end.proxied import Answer, Proxied, proxied
from tests.unit.checker_story import key_id, key_of

KEY = key_of(SCOPED)


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with proxied(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


def seen(answer: Answer) -> dict[str, Any]:
    """What the backend got."""
    assert answer.status == 200, answer
    told: dict[str, Any] = json.loads(answer.body)
    return told


IDENTITY = {
    "keyledger-key-id": key_id(SCOPED),
    "keyledger-org-id": "org",
    "keyledger-user-id": "ann",
    "keyledger-scopes": "invoices:read b",
}


def identity(told: dict[str, Any]) -> dict[str, str]:
    """The headers about the caller, however they are written."""
    return {name: value for name, value in told["headers"].items() if "keyledger" in name}


def test_a_good_key_reaches_the_backend_as_an_identity_and_not_as_a_key(proxy: Proxied) -> None:
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
        told = seen(proxy.ask("GET /some/path?a=1", headers=headers))
        assert told["request"].startswith("GET /some/path?a=1 ")
        assert identity(told) == IDENTITY
        assert KEY not in json.dumps(told)


def test_without_a_key_or_with_a_bad_one_the_challenge_reaches_the_client(proxy: Proxied) -> None:
    none, bad = proxy.ask("GET /"), proxy.ask("GET /", key_of(9))
    assert (none.status, none.headers["www-authenticate"]) == (401, "Bearer")
    assert (bad.status, bad.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')


def test_a_request_with_several_keys_is_refused(proxy: Proxied) -> None:
    assert proxy.ask("GET /", KEY, {"X-API-Key": KEY}).status == 401
    assert proxy.ask("GET /", f"{KEY}\r\nAuthorization: Bearer {KEY}").status in {400, 401}


def test_a_missing_scope_is_forbidden_and_named(proxy: Proxied) -> None:
    answer = proxy.ask("GET /", key_of(OTHER_SCOPE))
    challenge = 'Bearer error="insufficient_scope", scope="invoices:read"'
    assert (answer.status, answer.headers["www-authenticate"]) == (403, challenge)


def test_a_client_cannot_choose_the_scopes_that_are_needed(proxy: Proxied) -> None:
    assert proxy.ask("GET /?scope=b", key_of(OTHER_SCOPE)).status == 403
    assert proxy.ask("GET /-/keyledger?scope=b", key_of(OTHER_SCOPE)).status in {403, 404}


def test_a_key_bound_to_a_network_is_good_from_there_only_whatever_the_client_says(proxy: Proxied) -> None:
    seen(proxy.ask("GET /", key_of(FROM_HERE)))
    for name in ("X-Forwarded-For", "X_Forwarded_For", "x_forwarded-for", "X-Real-IP", "Forwarded"):
        assert proxy.ask("GET /", key_of(FROM_ELSEWHERE), {name: "192.0.2.1"}).status == 403, name


@pytest.mark.parametrize("written", ["Keyledger-{}", "Keyledger_{}", "KEYLEDGER-{}", "keyledger_{}"])
def test_an_identity_that_the_client_made_up_never_reaches_the_backend(proxy: Proxied, written: str) -> None:
    hyphen = "-" if "-" in written else "_"
    names = [name.removeprefix("keyledger-").replace("-", hyphen) for name in IDENTITY]
    spoofed = {written.format(name): "spoofed" for name in names}
    told = seen(proxy.ask("GET /", KEY, spoofed))
    assert identity(told) == IDENTITY
    assert proxy.ask("GET /", None, spoofed).status == 401


def test_head_is_judged_and_passed_on(proxy: Proxied) -> None:
    assert proxy.ask("HEAD /", KEY).status == 200
    refused = proxy.ask("HEAD /")
    assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_the_body_of_a_post_reaches_the_backend_whole_and_not_the_checker(proxy: Proxied) -> None:
    told = seen(proxy.ask("POST /", KEY, body=b"x" * 500_000))
    assert (told["request"].split()[0], told["body"]) == ("POST", 500_000)
    told = seen(proxy.ask("GET /", KEY))
    assert identity(told) == IDENTITY


def test_a_websocket_is_upgraded_for_a_good_key_only(proxy: Proxied) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = proxy.ask("GET /", KEY, upgrade)
    assert (answer.status, answer.body) == (101, b"ping")
    assert proxy.ask("GET /", None, upgrade).status == 401


def test_a_stale_checker_is_a_503_that_says_when_to_come_back(proxy: Proxied) -> None:
    proxy.tell_checker("stale")
    answer = proxy.ask("GET /", KEY)
    proxy.tell_checker("fresh")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    seen(proxy.ask("GET /", KEY))


@pytest.mark.parametrize("name", ["nginx", "caddy"])
def test_without_a_checker_nothing_is_let_through(name: str, tmp_path) -> None:
    with proxied(name, tmp_path) as running:
        seen(running.ask("GET /", KEY))
        running.checker.terminate()
        running.checker.wait(10)
        answer = running.ask("GET /", KEY)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
