"""Bodies are read strictly, and what is wrong with one is said with a code and a pointer."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from marshmallow import Schema

from schemas import fields
from schemas.problems import MAX_BODY_BYTES, TITLES, Problem, load, malformed, read_json


class Body(Schema):
    """A body with a field of each kind."""

    name = fields.plain(5, required=True)
    size = fields.whole(1, 9)
    flag = fields.Flag()
    words = fields.items(fields.text("[a-z]+", 3), 2)


def _refusal(call: Callable[[], Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"nothing",
        b'{"a":1}{"b":2}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e400}',
        b'{"a":01}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":"\x01"}',
        b'{"a":"\xff"}',
        b'{"\xff":1}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"a":"\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b"[" * 20_000,
        b'{"a":' * 20_000,
        b'{"a":' + b"1" * 5000 + b"}",
        b" ",
    ],
    ids=lambda raw: repr(raw[:16]),
)
def test_what_is_not_json_in_utf8_is_malformed(raw: bytes) -> None:
    refusal = _refusal(lambda: read_json(raw, "application/json"))
    assert (refusal.status, refusal.code) == (400, "malformed")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'[{"x":0},{"b":1,"c":[{"b":2,"b":3}]}]',
        b'{"a":1,"\\u0061":2}',
        b'{"a:":1,"a:":2}',
        b'{"\\"":1,"\\"":2}',
    ],
)
def test_a_name_twice_in_one_object_is_refused(raw: bytes) -> None:
    refusal = _refusal(lambda: read_json(raw, "application/json"))
    assert (refusal.status, refusal.code) == (400, "malformed")
    assert "twice" in refusal.detail


@pytest.mark.parametrize(
    "document",
    [
        {"a": {"a": 1}},
        [{"a": 1}, {"a": 1}],
        {"a": '":"', ":": "::", '"': "\\"},
        "a:b",
        [],
        {"a": {}, "b": [[]]},
        {"\\": ":"},
    ],
)
def test_names_may_be_alike_in_different_objects_and_colons_may_stand_in_texts(document: Any) -> None:
    assert read_json(json.dumps(document).encode(), "application/json") == document
    assert read_json(json.dumps(document, indent=2).encode(), "application/json") == document


def test_an_empty_body_is_an_empty_object_whatever_its_type() -> None:
    assert read_json(b"", "") == {}
    assert read_json(b"", "text/plain") == {}


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_another_media_type_is_unsupported(media_type: str) -> None:
    refusal = _refusal(lambda: read_json(b"{}", media_type))
    assert (refusal.status, refusal.code) == (415, "unsupported_media_type")


def test_a_body_over_a_megabyte_is_too_large_before_it_is_looked_at() -> None:
    assert read_json(b'"' + b"a" * (MAX_BODY_BYTES - 2) + b'"', "application/json")
    refusal = _refusal(lambda: read_json(b"{" * (MAX_BODY_BYTES + 1), "text/plain"))
    assert (refusal.status, refusal.code) == (413, "too_large")


def test_thirty_two_levels_are_read_and_one_more_is_refused() -> None:
    assert read_json(b"[" * 32 + b"]" * 32, "application/json")
    refusal = _refusal(lambda: read_json(b'{"a":' * 33 + b"1" + b"}" * 33, "application/json"))
    assert (refusal.status, refusal.code) == (400, "malformed")


@pytest.mark.parametrize("document", [[], "text", 1, None, True])
def test_a_body_that_is_no_object_is_refused_with_a_pointer_to_the_whole(document: Any) -> None:
    assert _refusal(lambda: load(Body(), document)).errors == (("", "must be an object"),)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": 1}, "/name"),
        ({"name": None}, "/name"),
        ({"name": "sixsix"}, "/name"),
        ({"name": "a\u202e"}, "/name"),
        ({"name": "\ud800"}, "/name"),
        ({"size": 0}, "/size"),
        ({"size": 10}, "/size"),
        ({"size": True}, "/size"),
        ({"size": 1.0}, "/size"),
        ({"size": "1"}, "/size"),
        ({"flag": 1}, "/flag"),
        ({"flag": "yes"}, "/flag"),
        ({"words": "ab"}, "/words"),
        ({"words": ["a", "b", "c"]}, "/words"),
        ({"words": ["a", "B"]}, "/words/1"),
        ({"words": ["a", "b\n"]}, "/words/1"),
        ({"a/b~c": 1}, "/a~1b~0c"),
        ({"\u00e4": 1}, "/\u00e4"),
    ],
)
def test_an_error_points_at_the_place_in_the_body(change: dict[str, Any], pointer: str) -> None:
    refusal = _refusal(lambda: load(Body(), {"name": "good", **change}))
    assert (refusal.status, refusal.code) == (400, "malformed")
    assert [at for at, _ in refusal.errors] == [pointer]


def test_a_missing_field_is_pointed_at() -> None:
    assert [at for at, _ in _refusal(lambda: load(Body(), {})).errors] == ["/name"]


def test_a_good_body_is_given_back() -> None:
    good = {"name": "good", "size": 9, "flag": False, "words": ["a", "bcd"]}
    assert load(Body(), good) == good


def test_ten_thousand_unknown_fields_make_a_short_answer() -> None:
    refusal = _refusal(lambda: load(Body(), {"name": "good", **{"x" * 300 + str(n): n for n in range(10_000)}}))
    assert len(refusal.errors) == 50
    assert len(refusal.body()) < 20_000


def test_a_problem_says_type_title_status_detail_code_and_errors() -> None:
    problem = malformed("the body is wrong", ("/name", "too long"))
    assert json.loads(problem.body()) == {
        "type": "urn:keyledger:problem:malformed",
        "title": "Malformed request",
        "status": 400,
        "detail": "the body is wrong",
        "code": "malformed",
        "errors": [{"pointer": "/name", "detail": "too long"}],
    }


def test_a_problem_carries_its_headers_and_when_to_come_again() -> None:
    problem = Problem(503, "busy", "try again", retry_after_s=2, headers={"Allow": "GET"})
    assert problem.headers == {"Allow": "GET", "Retry-After": "2"}
    assert "errors" not in json.loads(problem.body())


def test_every_status_we_answer_has_a_title() -> None:
    assert {400, 401, 403, 404, 409, 413, 415, 422, 429, 503} <= set(TITLES)
