"""Forward auth and introspection: the same decision as every door, in the words of a proxy and of RFC 7662."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from schemas.bearer import key_of
from schemas.times import to_text
from schemas.validation import IntrospectionAnswer
from services.auth_checker import index_reader
from tests.unit.checker_site import lanes
from tests.unit.checker_story import BEGINNING, M_MS, NOW_MS, Asking, asking, created, key_id
from tests.unit.checker_story import key_of as text_of

__all__ = ["asking"]  # A fixture, asked for by its name.
TOKEN = "shared-credential-of-our-services"
PROXIES = [ip_network("10.0.0.0/8"), ip_network("127.0.0.1")]
UNRESTRICTED, SCOPED, NONE, BOUND, EXPIRING, CALLER = range(1, 7)
Lane = str


def clients(asking: Asking, folder: Any, token: str | None = None) -> dict[Lane, Client]:
    asking.index.tell(
        "org",
        *BEGINNING,
        created(UNRESTRICTED),
        created(SCOPED, scopes=("a", "b:c")),
        created(NONE, scopes=()),
        created(BOUND, cidrs=("192.0.2.0/24",)),
        created(EXPIRING, expires_at="2026-11-24T00:00:00.999Z"),
        created(CALLER, scopes=("keys:validate",)),
    )
    fast, flask = lanes(asking, folder, token, PROXIES)
    return {"fast": Client(fast), "flask": Client(flask)}


@pytest.fixture(params=["fast", "flask"])
def client(asking: Asking, tmp_path, request: pytest.FixtureRequest) -> Client:
    return clients(asking, tmp_path)[request.param]


def said(answer: TestResponse) -> Any:
    """The JSON of an answer."""
    return answer.json


def authorize(
    client: Client, number: int | None = None, query: str = "", peer: str = "198.51.100.1", **headers: str
) -> TestResponse:
    sent: Mapping[str, str] = {} if number is None else {"Authorization": f"Bearer {text_of(number)}"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(
        "/v1/authorize", query_string=query, headers={**sent, **named}, environ_overrides={"REMOTE_ADDR": peer}
    )


def test_a_good_key_lets_the_request_through_and_says_whose_it_is(client: Client) -> None:
    answer = authorize(client, SCOPED, "scope=b:c&scope=a")
    assert (answer.status_code, answer.data) == (204, b"")
    assert dict(answer.headers) == {
        "Cache-Control": "no-store",
        "Keyledger-Key-Id": key_id(SCOPED),
        "Keyledger-Org-Id": "org",
        "Keyledger-User-Id": "ann",
        "Keyledger-Scopes": "a b:c",
        "Keyledger-Revision": "org:9",
        "Keyledger-As-Of": to_text(NOW_MS),
        "Keyledger-Max-Staleness-Ms": "2000",
    }


@pytest.mark.parametrize(("number", "text"), [(UNRESTRICTED, "*"), (NONE, "")])
def test_a_key_without_limits_and_a_key_without_scopes_look_different(client: Client, number: int, text: str) -> None:
    assert authorize(client, number).headers["Keyledger-Scopes"] == text


def test_a_key_may_come_in_x_api_key_and_be_asked_about_with_head(client: Client) -> None:
    assert authorize(client, X_API_Key=text_of()).status_code == 204
    answer = client.head("/v1/authorize", headers={"X-API-Key": text_of()})
    assert (answer.status_code, answer.data, answer.headers["Keyledger-Key-Id"]) == (204, b"", key_id())


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, "Bearer"),
        ({"Authorization": ""}, "Bearer"),
        ({"Authorization": "Basic YTpi"}, "Bearer"),
        ({"Authorization": "Bearer"}, "Bearer"),
        ({"X-API-Key": " "}, "Bearer"),
        ({"Authorization": "Bearer x"}, 'Bearer error="invalid_token"'),
        ({"Authorization": f"Bearer {text_of(7)}"}, 'Bearer error="invalid_token"'),
        ({"Authorization": f"Bearer {text_of()}, Bearer {text_of()}"}, 'Bearer error="invalid_token"'),
        ({"Authorization": f"Bearer {text_of()} {text_of()}"}, 'Bearer error="invalid_token"'),
        ({"Authorization": f"Bearer {text_of()}", "X-API-Key": text_of()}, 'Bearer error="invalid_token"'),
        ({"X-API-Key": f"{text_of()},{text_of()}"}, 'Bearer error="invalid_token"'),
    ],
)
def test_a_request_without_one_good_key_is_challenged(client: Client, headers: dict[str, str], challenge: str) -> None:
    answer = client.get("/v1/authorize", headers=headers)
    assert (answer.status_code, answer.data) == (401, b"")
    assert (answer.headers["WWW-Authenticate"], answer.headers["Cache-Control"]) == (challenge, "no-store")


def test_only_a_missing_scope_and_a_wrong_network_are_403(client: Client) -> None:
    answer = authorize(client, SCOPED, "scope=a&scope=x")
    challenge = 'Bearer error="insufficient_scope", scope="a x"'
    assert (answer.status_code, answer.data, answer.headers["WWW-Authenticate"]) == (403, b"", challenge)
    answer = authorize(client, BOUND)
    assert (answer.status_code, answer.data, "WWW-Authenticate" in answer.headers) == (403, b"", False)


@pytest.mark.parametrize(
    "query", ["scope=", "scopes=a", "scope=A", "scope=a%0d%0ab", "scope=a+b", "scope=%ff", "a", "scope=a&" * 51]
)
def test_needed_scopes_that_are_written_wrongly_let_nothing_through(client: Client, query: str) -> None:
    answer = authorize(client, UNRESTRICTED, query)
    assert (answer.status_code, answer.data) == (400, b"")


@pytest.mark.parametrize(
    ("peer", "forwarded", "status"),
    [
        ("192.0.2.7", None, 204),
        ("192.0.2.7", "198.51.100.1", 204),
        ("198.51.100.1", "192.0.2.7", 403),
        ("10.1.2.3", "192.0.2.7", 204),
        ("::ffff:10.1.2.3", "192.0.2.7", 204),
        ("10.1.2.3", "198.51.100.1, 192.0.2.7, 10.9.9.9,127.0.0.1", 204),
        ("10.1.2.3", "192.0.2.7, 198.51.100.1", 403),
        ("10.1.2.3", "192.0.2.7, nonsense", 403),
        ("10.1.2.3", "192.0.2.7,", 403),
        ("10.1.2.3", "", 403),
        ("10.1.2.3", "192.0.2.7:4711", 403),
        ("127.0.0.1", "10.0.0.1", 403),
    ],
)
def test_a_forwarded_address_is_believed_only_from_listed_proxies(
    client: Client, peer: str, forwarded: str | None, status: int
) -> None:
    headers = {} if forwarded is None else {"X_Forwarded_For": forwarded}
    assert authorize(client, BOUND, peer=peer, **headers).status_code == status


def test_a_stale_ledger_lets_nothing_through(asking: Asking, client: Client) -> None:
    asking.index.clock.advance(M_MS)
    answer = authorize(client, UNRESTRICTED)
    assert (answer.status_code, answer.data) == (503, b"")
    assert (answer.headers["Retry-After"], answer.headers["Cache-Control"]) == ("1", "no-store")
    described = client.post("/introspect", data={"token": text_of()})
    assert (described.status_code, said(described)["code"]) == (503, "stale")
    assert described.headers["Retry-After"] == "1"


@pytest.mark.parametrize("lane", ["fast", "flask"])
@pytest.mark.parametrize(
    ("credential", "status", "error"),
    [
        (None, 401, ""),
        ("Bearer wrong", 401, ', error="invalid_token"'),
        (TOKEN, 401, ""),
        (f"Bearer {text_of(UNRESTRICTED)}", 401, ', error="invalid_token"'),
        (f"Bearer {text_of(CALLER)}", 204, None),
        (f"bearer {TOKEN}", 204, None),
    ],
)
def test_a_proxy_shows_its_own_credential_in_a_header_of_its_own(
    asking: Asking, tmp_path, lane: Lane, credential: str | None, status: int, error: str | None
) -> None:
    guarded = clients(asking, tmp_path, TOKEN)[lane]
    headers = {} if credential is None else {"Keyledger_Caller": credential}
    answer = authorize(guarded, UNRESTRICTED, **headers)
    challenge = None if error is None else f'Bearer realm="auth checker"{error}'
    assert (answer.status_code, answer.data) == (status, b"")
    assert answer.headers.get("WWW-Authenticate") == challenge


def test_introspection_describes_a_good_key(client: Client) -> None:
    answer = client.post("/introspect", data={"token": text_of(EXPIRING), "token_type_hint": "access_token", "x": "y"})
    described = said(answer)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert not IntrospectionAnswer().validate(described)
    assert described.pop("as_of")
    assert described == {
        "active": True,
        "token_type": "Bearer",
        "scope": "*",
        "client_id": key_id(EXPIRING),
        "sub": "ann",
        "exp": 1_795_478_400,
        "key_id": key_id(EXPIRING),
        "org_id": "org",
        "revision": 9,
        "max_staleness_ms": 2000,
    }
    assert "exp" not in said(client.post("/introspect", data={"token": text_of(SCOPED)}))


def test_introspection_says_nothing_of_a_key_that_is_not_good(client: Client) -> None:
    for form in ({"token": "x"}, {"token": text_of(7)}, {"token": text_of(BOUND)}):
        assert client.post("/introspect", data=form).json == {"active": False}
    assert said(client.post("/introspect", data={"token": text_of(BOUND), "ip": "192.0.2.1"}))["active"] is True


@pytest.mark.parametrize(
    ("raw", "media_type", "refused"),
    [
        (b"", "application/x-www-form-urlencoded", 400),
        (b"token_type_hint=x", "application/x-www-form-urlencoded", 400),
        (b"token=a&token=b", "application/x-www-form-urlencoded", 400),
        (b"token=%ff", "application/x-www-form-urlencoded", 400),
        (b"token=\xff", "application/x-www-form-urlencoded", 400),
        (b"token=a&" + b"b=&" * 30, "application/x-www-form-urlencoded", 400),
        (b'{"token":"a"}', "application/json", 415),
        (b"token=" + b"a" * 1024 * 1024, "application/x-www-form-urlencoded", 413),
    ],
)
def test_introspection_refuses_what_is_no_form(client: Client, raw: bytes, media_type: str, refused: int) -> None:
    answer = client.post("/introspect", data=raw, content_type=media_type)
    assert (answer.status_code, answer.mimetype) == (refused, "application/problem+json")


@pytest.mark.parametrize("lane", ["fast", "flask"])
def test_a_revision_that_does_not_come_is_waited_for_and_then_stale(
    asking: Asking, tmp_path, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = clients(asking, tmp_path)[lane]
    assert index_reader.LONGEST_WAIT_S == 1.0
    monkeypatch.setattr(index_reader, "LONGEST_WAIT_S", 0.02)
    for revision, code in ((9, "VALID"), (10, "STALE")):
        asked = {"key": text_of(), "min_revision": f"org:{revision}"}
        answer = said(client.post("/v1/validations", json=asked))
        batch = said(client.post("/v1/validations/batch", json={"items": [asked]}))
        assert (answer["code"], batch["items"][0]["code"]) == (code, code)
        assert (answer["revision"], answer["max_staleness_ms"]) == (9, 2000)
        assert answer["as_of"] == batch["items"][0]["as_of"]


@pytest.mark.parametrize(
    ("authorization", "api_key", "key"),
    [
        (None, None, None),
        ("", "", None),
        ("Bearer a", None, "a"),
        ("  bearer   a  ", None, "a"),
        ("Bearera", None, None),
        ("Basic a", "b", "b"),
        ("Bearer a", "a", "a,a"),
    ],
)
def test_the_key_of_a_request_is_the_only_one_in_it(authorization, api_key, key) -> None:
    assert key_of(authorization, api_key) == key
