"""Whatever is sent to any door of the checker: a problem, or MALFORMED or NOT_FOUND; never an error of ours."""

import json
import random
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import Client, TestResponse

from schemas import key_text
from services.auth_checker.fast_lane import FastLane
from tests.unit.checker_site import lanes
from tests.unit.checker_story import BEGINNING, Asking, asking, created, key_id, key_of

__all__ = ["asking"]  # A fixture, asked for by its name.
KEY = key_of()
FORM = "application/x-www-form-urlencoded"
BODIES = ("/v1/validations", "/v1/validations/batch", "/v1/callers", "/introspect")
Door = Callable[[Client, str], str]
"""Asks about a text that is sent as a key; gives what was answered, as a code."""


@pytest.fixture
def fast(asking: Asking, tmp_path) -> FastLane:
    asking.index.tell("org", *BEGINNING, created(), created(2, scopes=("a",)))
    return lanes(asking, tmp_path)[0]


@pytest.fixture
def client(fast: FastLane) -> Client:
    return Client(fast)


def said(answer: TestResponse) -> Any:
    """The JSON of an answer."""
    return answer.json


def by_validation(client: Client, text: str) -> str:
    answer = client.post("/v1/validations", json={"key": text})
    assert answer.status_code == 200, answer.data
    return said(answer)["code"]


def by_batch(client: Client, text: str) -> str:
    answer = client.post("/v1/validations/batch", json={"items": [{"key": text}]})
    assert answer.status_code == 200, answer.data
    return said(answer)["items"][0]["code"]


def by_caller(client: Client, text: str) -> str:
    answer = client.post("/v1/callers", json={"token": text})
    assert answer.status_code == 200, answer.data
    return said(answer)["code"]


def by_introspection(client: Client, text: str) -> str:
    answer = client.post("/introspect", data={"token": text})
    assert answer.status_code == 200, answer.data
    return "VALID" if said(answer)["active"] else "NOT_FOUND"


def by_bearer(client: Client, text: str) -> str:
    return _authorized(client, {"HTTP_AUTHORIZATION": f"Bearer {text}"})


def by_header(client: Client, text: str) -> str:
    return _authorized(client, {"HTTP_X_API_KEY": text})


def _authorized(client: Client, headers: dict[str, str]) -> str:
    answer = client.get("/v1/authorize", environ_overrides=headers)
    assert (answer.status_code, answer.data) in {(204, b""), (401, b"")}
    assert "\n" not in "".join(answer.headers.values())
    return "VALID" if answer.status_code == 204 else "NOT_FOUND"


DOORS = [by_validation, by_batch, by_caller, by_introspection, by_bearer, by_header]


@pytest.mark.parametrize("door", DOORS)
def test_the_key_itself_is_good_at_every_door(client: Client, door: Door) -> None:
    assert door(client, KEY) == "VALID"


@pytest.mark.parametrize("door", DOORS)
def test_ten_thousand_random_texts_are_malformed_or_not_found_at_every_door(client: Client, door: Door) -> None:
    rng = random.Random(12)
    alphabet = key_text.ALPHABET + "_ .,:;=\"'\\/%+&#\t\r\n\x00\x7f\xe4\xff"
    sent = (len(DOORS) - 1 + 10_000) // len(DOORS)
    for _ in range(sent):
        text = "".join(rng.choices(alphabet, k=rng.choice([0, 1, 5, 74, 75, 76, 200])))
        text = rng.choice(["", "kl_", f"kl_{key_id()}_", "ey"]) + text
        assert door(client, text) in {"MALFORMED", "NOT_FOUND"}, repr(text)


def test_a_key_with_any_one_character_changed_is_malformed(client: Client) -> None:
    for at, there in enumerate(KEY):
        for other in (key_text.ALPHABET + "_-").replace(there, ""):
            assert by_validation(client, KEY[:at] + other + KEY[at + 1 :]) == "MALFORMED"


@pytest.mark.parametrize("door", DOORS)
def test_a_key_with_a_character_changed_lost_doubled_or_moved_is_good_at_no_door(client: Client, door: Door) -> None:
    rng = random.Random(3)
    for at, there in enumerate(KEY):
        other = rng.choice(key_text.ALPHABET.replace(there, ""))
        lost, doubled = KEY[:at] + KEY[at + 1 :], KEY[:at] + there + KEY[at:]
        for text in (KEY[:at] + other + KEY[at + 1 :], lost, doubled, KEY[:at] + KEY[at:].swapcase()):
            assert text == KEY or door(client, text) in {"MALFORMED", "NOT_FOUND"}, text


def test_another_secret_or_id_with_the_right_checksum_is_not_found(client: Client) -> None:
    secret = bytearray(range(32))
    for bit in range(256):
        secret[bit // 8] ^= 1 << bit % 8
        assert by_validation(client, key_of(1, bytes(secret))) == "NOT_FOUND"
        secret[bit // 8] ^= 1 << bit % 8
    for at, there in enumerate(key_id()):
        changed = key_id()[:at] + ("1" if there == "0" else "0") + key_id()[at + 1 :]
        assert by_validation(client, key_text.compose(changed, bytes(range(32)))) == "NOT_FOUND"


def test_an_unknown_id_and_a_wrong_secret_are_answered_in_the_same_words(client: Client) -> None:
    wrong, unknown = key_of(1, bytes(32)), key_of(9)
    for path, body in (("/v1/validations", "key"), ("/v1/callers", "token")):
        answers = [client.post(path, json={body: text}) for text in (wrong, unknown)]
        assert answers[0].data == answers[1].data
        assert dict(answers[0].headers) == dict(answers[1].headers)
    heads = [client.get("/v1/authorize", headers={"X-API-Key": text}) for text in (wrong, unknown)]
    assert dict(heads[0].headers) == dict(heads[1].headers)


@pytest.mark.parametrize("path", [*BODIES, "/v1/authorize", "/healthz"])
def test_another_method_is_a_problem_that_names_the_right_one(client: Client, path: str) -> None:
    right = {"POST"} if path in BODIES else {"GET", "HEAD"}
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} - right:
        answer = client.open(path, method=method, data=b"{}", content_type="application/json")
        assert (answer.status_code, answer.mimetype) == (405, "application/problem+json")
        assert set(answer.headers["Allow"].split(", ")) == right


@pytest.mark.parametrize("path", BODIES)
def test_another_type_encoding_or_size_of_body_is_a_problem(client: Client, path: str) -> None:
    document = b'{"key":"a"}' if path == "/v1/validations" else b'{"token":"a"}'
    right, wrong = (FORM, "application/json") if path == "/introspect" else ("application/json", FORM)
    for raw, media_type, status in (
        (document, wrong, 415),
        (document, "text/plain", 415),
        (document, "", 415),
        (document.decode().encode("utf-16"), right, 400),
        (b"\xff\xfe", right, 400),
        (b"\x00" * 100, right, 400),
        (b"[" * 100_000, right, 400),
        (b"x" * 1024 * 1024, right, 400),
        (b"x" * (1024 * 1024 + 1), right, 413),
    ):
        answer = client.post(path, data=raw, content_type=media_type)
        assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), raw[:20]


def test_a_batch_of_101_is_refused_whole(client: Client) -> None:
    answer = client.post("/v1/validations/batch", json={"items": [{"key": KEY}] * 101})
    assert (answer.status_code, said(answer)["errors"][0]["pointer"]) == (400, "/items")


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (f"Bearer {KEY} {KEY}", None),
        (f"Bearer {KEY},{KEY}", None),
        (f"Bearer {KEY}, Bearer {KEY}", None),
        (f"Bearer Bearer {KEY}", None),
        (f"Bearer {KEY}", KEY),
        (f"Bearer {KEY}", "x"),
        (None, f"{KEY},{KEY}"),
        (None, f"Bearer {KEY}"),
        (f"Bearer {KEY}\r\nKeyledger-Org-Id: other", None),
        (None, f"{KEY}\r\n\r\nHTTP/1.1 200 OK"),
        (f"Bearer {KEY}\x00", None),
    ],
)
def test_of_several_tokens_in_a_header_none_is_taken(client: Client, authorization, api_key) -> None:
    headers = {"HTTP_AUTHORIZATION": authorization, "HTTP_X_API_KEY": api_key}
    assert _authorized(client, {name: value for name, value in headers.items() if value is not None}) == "NOT_FOUND"


def test_nothing_a_client_sends_makes_a_header_of_an_answer(client: Client) -> None:
    for query in ("scope=a%0d%0aX:y", "scope=%22", "scope=a%00", "%0d%0a=a", "scope=a&scope=%0aa"):
        answer = client.get("/v1/authorize", query_string=query, headers={"X-API-Key": KEY})
        assert (answer.status_code, answer.data, "X" in answer.headers) == (400, b"", False)
    answer = client.get("/v1/authorize", query_string="scope=x", headers={"X-API-Key": key_of(2)})
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="x"'


@given(
    st.text()
    | st.text(key_text.ALPHABET + "_").map(lambda text: f"kl_{text}")
    | st.binary().map(lambda b: b.decode("latin-1"))
)
def test_the_parser_of_keys_takes_any_text_and_reads_only_what_it_would_write(text: str) -> None:
    parsed = key_text.parse(text)
    if parsed is not None:
        assert len(text) == 75
        assert text.startswith(f"kl_{parsed.key_id}_")
        assert parsed.digest == key_text.digest(text)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32), st.integers(0, 74), st.characters())
def test_the_parser_reads_what_was_composed_and_nothing_that_differs_in_a_character(
    id_bytes: bytes, secret: bytes, at: int, other: str
) -> None:
    made = key_text.base62(int.from_bytes(id_bytes), 22)
    text = key_text.compose(made, secret)
    parsed = key_text.parse(text)
    assert parsed is not None
    assert parsed.key_id == made
    changed = text[:at] + other + text[at + 1 :]
    assert changed == text or key_text.parse(changed) is None


PATHS = st.sampled_from([*BODIES, "/v1/authorize", "/healthz", "/readyz", "/openapi.json"]) | st.text(
    "/v1.%a", max_size=9
)
HEADER = st.text(st.characters(max_codepoint=255), max_size=30)
BEARER = HEADER.map(lambda text: f"Bearer {text}") | st.sampled_from(["", "Basic YTpi", f"Bearer {KEY}"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just(KEY),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["key", "items", "token", "scopes", "ip", "user_agent", "min_revision", ""]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400, deadline=None)
@given(
    method=st.sampled_from(["POST", "POST", "GET", "HEAD", "PUT", "BREW"]),
    path=PATHS,
    query=st.text("scope=a&%0dA:+", max_size=20) | st.just("scope=a"),
    body=st.binary(max_size=40) | JSON.map(lambda document: json.dumps(document).encode()),
    media_type=st.sampled_from(
        ["application/json", FORM, "application/json; charset=latin-1", "multipart/form-data", ""]
    ),
    headers=st.fixed_dictionaries(
        {},
        optional={
            "HTTP_AUTHORIZATION": BEARER,
            "HTTP_X_API_KEY": HEADER,
            "HTTP_X_FORWARDED_FOR": HEADER,
            "HTTP_USER_AGENT": HEADER,
            "HTTP_KEYLEDGER_CALLER": BEARER,
            "REMOTE_ADDR": HEADER,
        },
    ),
)
def test_no_request_brings_the_fast_lane_or_what_is_behind_it_to_an_error_of_ours(
    fast: FastLane, method: str, path: str, query: str, body: bytes, media_type: str, headers: dict[str, str]
) -> None:
    answers: list[Any] = []

    def start_response(status: str, answered: list[tuple[str, str]], *_: Any) -> None:
        answers.append((int(status[:3]), dict(answered)))

    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": query,
        "SERVER_NAME": "checker",
        "SERVER_PORT": "8003",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
        "CONTENT_TYPE": media_type,
        "CONTENT_LENGTH": str(len(body)),
        **headers,
    }
    answered = b"".join(fast(environ, start_response))
    [(status, sent)] = answers
    # A revision that does not come is waited for, but never an error; nothing here is stale or full.
    assert status in {200, 204, 400, 401, 403, 404, 405, 413, 415}, (status, answered)
    assert not any("\r" in value or "\n" in value for value in sent.values())
    assert path != "/v1/authorize" or method not in {"GET", "HEAD"} or answered == b""
