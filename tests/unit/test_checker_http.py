"""What the checker answers over HTTP: both lanes, every route with and without a credential, every refusal a problem."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import Client, TestResponse

from schemas.problems import MAX_BODY_BYTES, Problem
from schemas.validation import CallerAnswer, ValidationAnswer
from services.auth_checker import bodies
from services.auth_checker.routes import OPERATIONS
from services.auth_checker.windows import Window
from tests.unit.checker_site import lanes
from tests.unit.checker_story import BEGINNING, NOW_MS, Asking, asking, created, key_id, key_of

__all__ = ["asking"]  # A fixture, asked for by its name.
TOKEN = "shared-credential-of-our-services"


@dataclass
class Site:
    """The whole app, and what is behind it."""

    asking: Asking
    client: Client
    flask: Client
    rules: set[tuple[str, str]]

    def post(self, path: str, body: object, lane: str = "fast", **headers: str) -> TestResponse:
        client = self.client if lane == "fast" else self.flask
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return client.post(path, data=raw, content_type="application/json", headers=headers)


def said(answer: TestResponse) -> Any:
    """The JSON of an answer."""
    return answer.json


def site(asking: Asking, tmp_path, token: str | None = None) -> Site:
    fast, app = lanes(asking, tmp_path, token)
    rules = {(method, str(rule)) for rule in app.url_map.iter_rules() for method in (rule.methods or set()) - {"HEAD"}}
    return Site(asking, Client(fast), Client(app), rules)


@pytest.fixture
def open_site(asking: Asking, tmp_path) -> Site:
    asking.index.tell("org", *BEGINNING, created())
    return site(asking, tmp_path)


# Each route: a body that works, and whether a credential is asked for.
ROUTES = {
    ("POST", "/v1/validations"): ({"key": key_of()}, True),
    ("POST", "/v1/validations/batch"): ({"items": [{"key": key_of()}]}, True),
    ("POST", "/v1/callers"): ({"token": key_of()}, True),
    ("POST", "/introspect"): (f"token={key_of()}", True),
    # Its credential is in a header of its own: see test_checker_doors.
    ("GET", "/v1/authorize"): (None, True),
    ("GET", "/healthz"): (None, False),
    ("GET", "/readyz"): (None, False),
    ("GET", "/metrics"): (None, False),
    ("GET", "/openapi.json"): (None, False),
}


def test_an_organisations_api_key_learns_nothing_of_another_ones_ledger(asking: Asking, tmp_path) -> None:
    asking.index.tell("org", *BEGINNING, created(), created(2, scopes=("keys:validate",)))
    client = site(asking, tmp_path, TOKEN).client
    for min_revision, credential, status in (
        ("other:1", key_of(2), 400),
        ("org:1", key_of(2), 200),
        ("other:1", TOKEN, 200),
    ):
        asked = {"key": key_of(), "min_revision": min_revision}
        for path, body in (("/v1/validations", asked), ("/v1/validations/batch", {"items": [asked]})):
            answer = client.post(path, json=body, headers={"Authorization": f"Bearer {credential}"})
            assert answer.status_code == status, answer.data


@pytest.mark.parametrize(("route", "row"), ROUTES.items())
def test_each_route_asks_for_a_credential_where_it_must(asking: Asking, tmp_path, route, row) -> None:
    asking.index.tell("org", *BEGINNING, created(), created(2, scopes=("keys:validate",)), created(3, scopes=("a",)))
    guarded = site(asking, tmp_path, TOKEN)
    assert guarded.rules == set(ROUTES)
    assert {(operation.method, operation.path) for operation in OPERATIONS} == set(ROUTES)
    body, wants_credential = row
    expected = {
        None: 401,
        "": 401,
        "Basic abc": 401,
        "Bearer wrong": 401,
        f"Bearer {key_of(3)}": 401,
        f"Bearer {key_of()}": 401,
        f"Bearer {key_of(4)}": 401,
        f"Bearer {TOKEN}": 200,
        f"bearer {key_of(2)}": 200,
    }
    for authorization, status in expected.items():
        headers = {} if authorization is None else {"Authorization": authorization}
        method, path = route
        form = isinstance(body, str)
        raw = b"" if body is None else (body if form else json.dumps(body)).encode()
        media_type = "application/x-www-form-urlencoded" if form else "application/json"
        answer = guarded.client.open(path, method=method, data=raw, content_type=media_type, headers=headers)
        if path == "/v1/authorize":
            assert answer.status_code == 401
            continue
        assert answer.status_code == (status if wants_credential else 200), (authorization, answer.data)
        if answer.status_code == 401:
            assert (answer.mimetype, said(answer)["code"]) == ("application/problem+json", "unauthenticated")
            error = ', error="invalid_token"' if (authorization or "").startswith("Bearer") else ""
            assert answer.headers["WWW-Authenticate"] == f'Bearer realm="auth checker"{error}'


def test_a_stale_ledger_accepts_no_api_key_as_a_credential(asking: Asking, tmp_path) -> None:
    guarded = site(asking, tmp_path, TOKEN)
    answer = guarded.post("/v1/validations", {"key": "x"}, Authorization=f"Bearer {key_of()}")
    assert (answer.status_code, said(answer)["code"]) == (503, "stale")


@pytest.mark.parametrize("lane", ["fast", "flask"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"text"', 400),
        (b"{", 400),
        (b"[" * 20_000, 400),
        (b'{"key":1}', 400),
        (b'{"key":null}', 400),
        (b'{"key":"a","key":"b"}', 400),
        (b'{"key":"a","ip":"\\u003a","ip":"b"}', 400),
        (b'{"key":"a","more":1}', 400),
        (b'{"key":"a","scopes":"b"}', 400),
        (b'{"key":"a","scopes":[1]}', 400),
        (b'{"key":"a","min_revision":"org"}', 400),
        (b'{"key":"a","min_revision":"org:-1"}', 400),
        (b'{"key":"a","min_revision":"org:1\\n"}', 400),
        (b'{"key":"\xff"}', 400),
        (b'{"key":"\\ud800"}', 400),
        (b'{"key":"' + b"a" * MAX_BODY_BYTES + b'"}', 413),
        (b'{"key":""}', 200),
        (b'{"key":"\\u0000"}', 200),
        ('{"key":"ключ"}'.encode(), 200),
        (b'{"key":"' + b"a" * 900_000 + b'"}', 200),
        (b'{"key":"a","ip":null,"scopes":null,"user_agent":null,"min_revision":null}', 200),
        (b' {"key" : "a:b" , "ip":"2001:db8::1", "scopes": ["keys:read"], "user_agent": "x: y"} ', 200),
    ],
)
def test_a_body_is_refused_with_a_problem_or_any_text_is_a_key(open_site: Site, lane, body, status) -> None:
    answer = open_site.post("/v1/validations", body, lane)
    assert answer.status_code == status
    if status == 200:
        assert answer.json == {"valid": False, "code": "MALFORMED"}
    else:
        assert answer.mimetype == "application/problem+json"
        assert said(answer)["code"] == {400: "malformed", 413: "too_large"}[status]


def test_another_media_type_is_refused_with_415(open_site: Site) -> None:
    answer = open_site.client.post("/v1/validations", data=b'{"key":"a"}', content_type="text/plain")
    assert (answer.status_code, said(answer)["code"]) == (415, "unsupported_media_type")


def test_parameters_of_the_media_type_do_no_harm(open_site: Site) -> None:
    answer = open_site.client.post(
        "/v1/validations", data=json.dumps({"key": key_of()}), content_type="application/json; charset=utf-8"
    )
    assert said(answer)["code"] == "VALID"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/validations", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/callers", 405, "method_not_allowed"),
        ("POST", "/v1/nothing", 404, "not_found"),
    ],
)
def test_what_there_is_not_is_a_problem_too(open_site: Site, method, path, status, code) -> None:
    answer = open_site.client.open(path, method=method)
    assert (answer.status_code, said(answer)["code"], answer.mimetype) == (status, code, "application/problem+json")


def test_both_lanes_give_the_same_answer_byte_by_byte(open_site: Site) -> None:
    for asked in ({"key": key_of()}, {"key": key_of(), "scopes": ["a"], "ip": "::1"}, {"key": key_of(2)}, {"key": ""}):
        fast, slow = (open_site.post("/v1/validations", asked, lane) for lane in ("fast", "flask"))
        assert fast.data == slow.data
        assert dict(fast.headers) == dict(slow.headers)
        assert not ValidationAnswer().validate(said(fast))


TEXT = st.text(max_size=8) | st.sampled_from(["a:b", "{}", '":"', "::1"])
DOCUMENT = st.dictionaries(
    st.sampled_from(["key", "scopes", "ip", "user_agent", "min_revision", "other", "ke\\y"]),
    TEXT | st.none() | st.integers() | st.lists(TEXT, max_size=3) | st.booleans(),
)


@given(DOCUMENT | st.fixed_dictionaries({"key": TEXT}, optional={"scopes": st.lists(TEXT), "ip": TEXT}), st.data())
def test_what_the_fast_decoder_takes_the_strict_reading_takes_as_the_same_question(asked: dict, data) -> None:
    raw = json.dumps(asked, ensure_ascii=data.draw(st.booleans())).encode(errors="surrogatepass")
    if data.draw(st.booleans()):  # One name more, which may be there already.
        name, value = data.draw(st.sampled_from(["key", "ip", "scopes"])), data.draw(TEXT)
        raw = raw[:-1] + (b"," if asked else b"") + json.dumps({name: value}).encode()[1:]
    fast = bodies.fast_question(raw)
    if fast is None:
        return
    assert bodies.question(raw, "application/json") == fast


@given(st.fixed_dictionaries({"key": st.text("ab:{}", max_size=9)}, optional={"ip": st.text("ab:", max_size=9)}))
def test_plain_questions_do_take_the_fast_lane(asked: dict) -> None:
    assert bodies.fast_question(json.dumps(asked).encode()) == bodies.Asked(**asked)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(raw=st.binary(max_size=60))
def test_no_bytes_bring_either_lane_to_another_answer_than_the_other(open_site: Site, raw: bytes) -> None:
    fast, slow = (open_site.post("/v1/validations", raw, lane) for lane in ("fast", "flask"))
    assert (fast.status_code, fast.data) == (slow.status_code, slow.data)
    assert fast.status_code in {200, 400}


def test_a_batch_answers_in_order_and_takes_a_hundred(open_site: Site) -> None:
    keys = [key_of(), "x", key_of(2)] * 33 + [key_of()]
    answer = open_site.post("/v1/validations/batch", {"items": [{"key": key} for key in keys]})
    assert [item["code"] for item in said(answer)["items"]] == ["VALID", "MALFORMED", "NOT_FOUND"] * 33 + ["VALID"]
    refused = open_site.post("/v1/validations/batch", {"items": [{"key": "x"}] * 101})
    assert (refused.status_code, said(refused)["errors"][0]["pointer"]) == (400, "/items")
    pointed = open_site.post("/v1/validations/batch", {"items": [{"key": "x"}, {"key": "x", "min_revision": "?"}]})
    assert said(pointed)["errors"][0]["pointer"] == "/items/1/min_revision"
    assert open_site.post("/v1/validations/batch", {"items": []}).json == {"items": []}


def test_a_full_house_of_uses_refuses_answers_about_known_keys_with_a_problem(open_site: Site) -> None:
    open_site.asking.uses._windows._most = 0
    for _ in range(3):
        answer = open_site.post("/v1/validations", {"key": key_of()})
    assert (answer.status_code, said(answer)["code"]) == (503, "uses_full")
    assert answer.headers["Retry-After"] == "1"


def test_an_api_key_as_a_caller_is_described_as_every_key_is(open_site: Site) -> None:
    answer = open_site.post("/v1/callers", {"token": key_of(), "ip": "192.0.2.1", "min_revision": "org:4"})
    assert answer.json == {
        "valid": True,
        "code": "VALID",
        "key_id": key_id(),
        "org_id": "org",
        "user_id": "ann",
        "role": "admin",
        "kind": "person",
        "scopes": None,
        "revision": 4,
    }
    assert not CallerAnswer().validate(said(answer))
    assert open_site.post("/v1/callers", {"token": "?"}).json == {"valid": False, "code": "MALFORMED"}


def test_ready_says_why_not(asking: Asking, tmp_path) -> None:
    client = site(asking, tmp_path).client
    answer = client.get("/readyz")
    assert (answer.status_code, said(answer)["code"]) == (503, "not_ready")
    assert "not learnt yet how far" in said(answer)["detail"]
    asking.index.catch_up()
    assert client.get("/readyz").status_code == 200
    assert client.get("/healthz").status_code == 200


def test_ready_tells_what_waits_in_the_spool_and_is_not_ready_once_that_is_full(open_site: Site) -> None:
    spool, client = open_site.asking.spool, open_site.client
    assert client.get("/readyz").json == {"status": "ready", "spool": {"records": 0, "bytes": 0, "age_ms": 0}}
    spool.put([Window(key_id(), "org", "ann", "VALID", None, None, 1, NOW_MS, NOW_MS)])
    told = said(client.get("/readyz"))["spool"]
    assert told["records"] == 1
    assert told["bytes"] > 0
    spool._limit_bytes = 100_000  # Less than is put in at once.
    answer = client.get("/readyz")
    assert (answer.status_code, said(answer)["code"]) == (503, "not_ready")
    assert "the spool is full" in said(answer)["detail"]
    assert f"1 records of {told['bytes']} bytes wait in the spool" in said(answer)["detail"]


def test_figures_tell_codes_uses_and_the_follower(open_site: Site) -> None:
    open_site.post("/v1/validations", {"key": key_of()})
    open_site.post("/v1/validations", {"key": key_of(2)})
    lines = open_site.client.get("/metrics").data.decode().splitlines()
    for line in (
        'keyledger_validations_total{code="NOT_FOUND"} 1.0',
        'keyledger_validations_total{code="VALID"} 1.0',
        "keyledger_uses_total 1.0",
        "keyledger_usage_windows_waiting 1.0",
        "keyledger_follower_lag_records 0.0",
        "keyledger_follower_lag_seconds 0.0",
        'keyledger_ledger_records_total{outcome="applied"} 4.0',
        "keyledger_orgs_halted 0.0",
        "keyledger_fresh 1.0",
        "keyledger_lease_left_ms 2000.0",
        "keyledger_follower_starts 1.0",
        'keyledger_pulses_total{outcome="counted"} 1.0',
        'keyledger_pulses_total{outcome="failed"} 0.0',
        'keyledger_pulses_total{outcome="foreign"} 0.0',
        'keyledger_pulses_total{outcome="sent"} 1.0',
    ):
        assert line in lines


def test_the_openapi_document_names_every_call_and_a_credential_only_where_one_is_asked_for(asking, tmp_path) -> None:
    guarded, free = (said(site(asking, tmp_path, token).client.get("/openapi.json")) for token in (TOKEN, None))
    assert guarded["openapi"].startswith("3.1")
    for method, path in ROUTES:
        assert ("security" in guarded["paths"][path][method.lower()]) == ROUTES[method, path][1]
        assert "security" not in free["paths"][path][method.lower()]


def test_a_bug_is_a_problem_without_its_details(open_site: Site, monkeypatch) -> None:
    def broken(raw: bytes, media_type: str) -> None:
        raise RuntimeError(key_of())

    monkeypatch.setattr(bodies, "questions", broken)
    answer = open_site.post("/v1/validations/batch", {"items": []}, lane="strict")
    assert (answer.status_code, said(answer)["code"]) == (500, "internal_error")
    assert key_of() not in answer.text


def test_a_place_that_was_not_checked_is_a_bug_not_an_answer() -> None:
    with pytest.raises(ValueError, match="<org>:<revision>"):
        bodies.place("org")
    with pytest.raises(Problem):
        bodies.question(b'{"key":"a","min_revision":"org:01"}', "application/json")
