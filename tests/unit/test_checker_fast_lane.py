"""The fast lane gives what the Flask app behind it gives, byte for byte, and answers plain questions without it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import Client, TestResponse

from schemas import events
from schemas.times import to_text
from services.auth_checker.bodies import MOST_IN_BATCH
from services.auth_checker.doors import Door
from services.auth_checker.fast_lane import FastLane
from tests.unit.checker_site import lanes
from tests.unit.checker_story import BEGINNING, NOW_MS, Asking, created, key_id, key_of

ONE, BATCH = "/v1/validations", "/v1/validations/batch"
PLENTY = (
    created(1),
    created(2, scopes=("a", "b:c")),
    created(3, cidrs=("192.0.2.0/24", "2001:db8::/32")),
    created(4, expires_at=to_text(NOW_MS)),
    created(5, expires_at=to_text(NOW_MS + 60_000), name='Zoë\'s "key": \\ :'),
    created(6),
    events.KeyRevoked(key_id=key_id(6), reason="unused"),
    events.UserAdded(user_id="bob", kind="service_account", role="auditor"),
    created(7, user_id="bob"),
    events.UserDisabled(user_id="bob"),
)
KEYS = (
    st.integers(1, 8).map(key_of) | st.sampled_from([key_of(1, bytes(32)), key_of()[:-1] + "x"]) | st.text(max_size=9)
)
QUESTIONS = st.fixed_dictionaries(
    {"key": KEYS},
    optional={
        "scopes": st.none() | st.lists(st.sampled_from(["a", "b:c", "d"]) | st.text(max_size=3), max_size=3),
        "ip": st.none() | st.sampled_from(["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "203.0.113.1", ""]),
        "user_agent": st.none() | st.text(max_size=12),
        "min_revision": st.none() | st.sampled_from(["org:1", "org:x", ":"]),
        "more": st.integers(),
    },
)


def refuses(environ: dict[str, Any], _: Any) -> list[bytes]:
    raise AssertionError(f"the app was asked for {environ['PATH_INFO']}")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Client]]:
    """The fast lane with the app behind it, and the app alone."""
    asking = Asking(tmp_path_factory.mktemp("index"))
    asking.index.tell("org", *BEGINNING, *PLENTY)
    fast, app = lanes(asking, tmp_path_factory.mktemp("figures"))
    yield Client(fast), Client(app)
    asking.spool.close()
    asking.index.store.close()


@pytest.fixture
def alone(tmp_path) -> Iterator[tuple[Asking, Client]]:
    """A fast lane with nothing behind it."""
    asking = Asking(tmp_path)
    asking.index.tell("org", *BEGINNING, created())
    yield asking, Client(FastLane(refuses, asking.checker, Door(None, asking.checker)))
    asking.spool.close()
    asking.index.store.close()


def post(client: Client, path: str, document: object, *, ascii_only: bool = False) -> TestResponse:
    raw = json.dumps(document, ensure_ascii=ascii_only).encode(errors="replace")
    return client.post(path, data=raw, content_type="application/json")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(question=QUESTIONS, ascii_only=st.booleans())
def test_a_question_is_answered_alike_by_both_lanes(both, question, ascii_only) -> None:
    fast, strict = (post(client, ONE, question, ascii_only=ascii_only) for client in both)
    assert (fast.status_code, fast.data) == (strict.status_code, strict.data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(items=st.lists(QUESTIONS, max_size=5), ascii_only=st.booleans())
def test_a_batch_is_answered_alike_by_both_lanes(both, items, ascii_only) -> None:
    fast, strict = (post(client, BATCH, {"items": items}, ascii_only=ascii_only) for client in both)
    assert (fast.status_code, fast.data) == (strict.status_code, strict.data)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"key":"a","key":"b"}',
        b'{"items":[{"key":"a","key":"b"}]}',
        b'{"items":[{"key":"a"}],"items":[]}',
        b'{"items":[{"key":"a:","ip":null}]}',
        b"[" * 5000,
        b'{"key":"\xff"}',
        b'{"key":"\\ud800"}',
        b"",
    ],
)
@pytest.mark.parametrize("path", [ONE, BATCH])
def test_what_the_fast_lane_will_not_take_is_put_into_words_by_the_app(both, path, raw) -> None:
    fast, strict = (client.post(path, data=raw, content_type="application/json") for client in both)
    assert (fast.status_code, fast.data) == (strict.status_code, strict.data)


def test_plain_questions_and_full_batches_never_reach_the_app(alone) -> None:
    _, client = alone
    assert json.loads(post(client, ONE, {"key": key_of(), "ip": "192.0.2.1"}).data)["code"] == "VALID"
    answer = post(client, BATCH, {"items": [{"key": key_of()}, {"key": "x"}] * (MOST_IN_BATCH // 2)})
    assert [item["code"] for item in json.loads(answer.data)["items"]] == ["VALID", "MALFORMED"] * (MOST_IN_BATCH // 2)


@pytest.mark.parametrize(
    "items", [[{"key": "x"}] * (MOST_IN_BATCH + 1), [{"key": "x", "min_revision": "org:9"}], [{"key": "x", "more": 1}]]
)
def test_a_batch_too_long_or_with_something_to_wait_for_is_left_to_the_app(alone, items) -> None:
    with pytest.raises(AssertionError, match="the app was asked"):
        post(alone[1], BATCH, {"items": items})


def test_forward_auth_answers_without_a_body_and_a_request_with_one_is_left_to_the_app(alone) -> None:
    asking, _ = alone
    head = ("204 No Content", [("Keyledger-Key-Id", key_id())])
    client = Client(FastLane(refuses, asking.checker, Door(None, asking.checker), lambda environ: head))
    answer = client.get("/v1/authorize")
    assert (answer.status_code, answer.data, answer.headers["Keyledger-Key-Id"]) == (204, b"", key_id())
    with pytest.raises(AssertionError, match="the app was asked"):
        client.get("/v1/authorize", data=b"a body")


def test_a_key_takes_one_row_of_less_than_two_hundred_bytes(alone) -> None:
    asking, _ = alone
    with asking.index.store.read() as txn:
        [(at, row)] = txn.scan("keys")
    assert (at, len(row) < 200) == (key_id().encode(), True)
