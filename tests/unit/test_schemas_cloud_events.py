"""A use in the form of any CloudEvents producer is the use that it says."""

import base64
import json
from typing import Any

import pytest
from cloudevents.core.bindings import kafka
from cloudevents.core.v1.event import CloudEvent

from schemas import examples
from schemas.cloud_events import read_usage
from schemas.codec import encode_usage
from schemas.decoder import UndecodableEvent, UnknownEvent
from schemas.events import UsageEnvelope

USE = examples.usage(None)
PLAIN: dict[str, Any] = json.loads(encode_usage(USE))
DATA: dict[str, Any] = PLAIN["data"]
STRUCTURED = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def structured(**changes: Any) -> UsageEnvelope:
    """The example with other members; None takes one away."""
    document = {name: value for name, value in (PLAIN | changes).items() if value is not None}
    return read_usage(json.dumps(document).encode(), STRUCTURED)


def binary(data: Any = DATA, **headers: str | None) -> UsageEnvelope:
    """The example with its attributes in headers; None takes one away."""
    texts = {f"ce_{name}": value for name, value in PLAIN.items() if name != "data"}
    texts |= {"content-type": "application/json"} | headers
    return read_usage(json.dumps(data).encode(), [(name, text.encode()) for name, text in texts.items() if text])


def test_our_own_form_is_read_as_it_is() -> None:
    for number in (None, 7):
        assert read_usage(encode_usage(examples.usage(number)), [("ce_type", b"KeyUsed")]) == examples.usage(number)


def test_names_stand_in_any_order_and_unknown_attributes_are_ignored() -> None:
    reverse = dict(sorted(PLAIN.items(), reverse=True))
    more = {
        "datacontenttype": "application/json; charset=utf-8",
        "traceparent": "00-1",
        "partitionkey": "x",
        "no": None,
    }
    assert read_usage(json.dumps(reverse | more, indent=2).encode(), []) == USE


def test_attributes_may_stand_in_headers() -> None:
    assert binary() == USE
    assert binary(ce_tenant="acme", **{"content-type": "application/vnd.acme+json"}) == USE
    assert binary(**{"content-type": None}) == USE


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T10:00:00Z",
        "2026-11-23T11:30:00.000999999+01:30",
        "2026-11-23t10:00:00.0z",
        "2026-11-23T09:00:00-01:00",
    ],
)
def test_times_have_any_offset_and_any_number_of_decimals(text: str) -> None:
    found = structured(time=text, data=DATA | {"first_at": text})
    assert (found.time, found.event.first_at) == ("2026-11-23T10:00:00.000Z",) * 2


def test_what_is_optional_in_cloudevents_may_be_absent() -> None:
    found = structured(subject=None, time=None, data=DATA | {"ip": None})
    assert (found.subject, found.time, found.event.ip) == (examples.KEY, DATA["last_at"], None)


def test_data_may_be_base64() -> None:
    assert structured(data=None, data_base64=base64.b64encode(json.dumps(DATA).encode()).decode()) == USE


@pytest.mark.parametrize("sequence", ["1", 1, "000000000000000000001", ["00000000000000000001"]])
def test_a_sequence_of_another_form_is_an_attribute_we_do_not_know(sequence: Any) -> None:
    assert structured(sequence=sequence) == USE


def test_the_official_package_is_understood_in_both_modes() -> None:
    attributes = {name: PLAIN[name] for name in ("id", "source", "type", "dataschema", "subject")}
    event = CloudEvent(attributes=attributes | {"specversion": "1.0", "datacontenttype": "application/json"}, data=DATA)
    for message in (kafka.to_structured_event(event), kafka.to_binary_event(event)):
        found = read_usage(message.value, list(message.headers.items()))
        assert (found.id, found.source, found.event) == (USE.id, USE.source, USE.event)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"type": "KeyAbused"}, "type"),
        ({"id": None}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"source": ""}, "source"),
        ({"time": "yesterday"}, "RFC 3339"),
        ({"time": 17}, "expected string"),
        ({"datacontenttype": "text/plain"}, "datacontenttype"),
        ({"datacontenttype": 5}, "expected string"),
        ({"data": None}, "data"),
        ({"data": json.dumps(DATA)}, "data"),
        ({"data": None, "data_base64": "no base64"}, "base64"),
        ({"data": DATA | {"surprise": 1}}, "surprise"),
        ({"data": DATA | {"count": 0}}, "count"),
        ({"data": DATA | {"count": float("inf")}}, "float"),
        ({"data": DATA | {"key_id": "short"}}, "key_id"),
        ({"data": DATA | {"first_at": "2026-02-30T00:00:00Z"}}, "day"),
        ({"data": DATA | {"user_agent": "\ud800"}}, "surrogates"),
    ],
)
def test_a_broken_rule_is_found_and_named(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UndecodableEvent, match=why):
        structured(**changes)


def test_another_version_is_unknown() -> None:
    for dataschema in (None, "keyledger:KeyUsed:2"):
        with pytest.raises(UnknownEvent):
            structured(dataschema=dataschema)
        with pytest.raises(UnknownEvent):
            binary(ce_dataschema=dataschema)


@pytest.mark.parametrize(
    "value", [b"", b"5", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, '{"specversion":"1.0"}'.encode("utf-16")]
)
def test_other_bytes_are_no_event(value: bytes) -> None:
    for headers in ([], STRUCTURED, [("ce_specversion", b"1.0")], [("ce_id", b"\xff")]):
        with pytest.raises(UndecodableEvent):
            read_usage(value, headers)
