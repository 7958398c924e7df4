"""The AsyncAPI document says what is really written."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft7Validator, ValidationError, meta

from keyledger.publish import Publisher
from schemas import asyncapi, examples, topics, wire
from schemas.codec import encode, encode_usage
from services.auth_checker import key_used
from services.auth_checker.windows import Window
from services.ledger.memory_log import MemoryLog
from tests.published import values_on

DOCUMENT: dict[str, Any] = asyncapi.document()
COMMITTED = Path(__file__).parents[2] / "docs/asyncapi.json"
EVENTS = [encode(examples.envelope(event)) for event in examples.LEDGER_EVENTS]
EVENTS += [encode_usage(examples.usage(number)) for number in (None, 1)]


def check(value: bytes) -> None:
    """Raises ValidationError unless the value is as the document says. It is checked as its `dataschema` wants."""
    event = json.loads(value)
    schema = DOCUMENT["components"]["schemas"][event["dataschema"].split(":")[1]]
    Draft7Validator(schema, validate_formats=True).validate(event)


def test_the_committed_document_is_what_the_schemas_make() -> None:
    assert json.loads(COMMITTED.read_text()) == DOCUMENT, (
        "make it anew: python -m schemas.asyncapi > docs/asyncapi.json"
    )


def test_every_event_is_described_and_every_reference_leads_somewhere() -> None:
    names = {name.split(":")[1] for name in (*wire.LEDGER_SCHEMAS, wire.KEY_USED)}
    assert set(DOCUMENT["components"]["schemas"]) == set(DOCUMENT["components"]["messages"]) == names
    assert set(DOCUMENT["channels"]) == {topics.LIFECYCLE, topics.USAGE, topics.EXTERNAL_USAGE}
    for reference in references(DOCUMENT):
        node = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    for name, schema in DOCUMENT["components"]["schemas"].items():
        meta.validate(schema)
        assert schema == asyncapi.json_schema(f"keyledger:{name}:1")


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


@pytest.mark.parametrize("value", EVENTS, ids=lambda value: json.loads(value)["type"])
def test_every_example_is_as_the_document_says(value: bytes) -> None:
    check(value)


def test_what_a_checker_writes_is_as_the_document_says() -> None:
    used = examples.KEY_USED
    for ip, agent in ((used.ip, used.user_agent), ("other", None), (None, "\N{SNOWMAN}" * 200)):
        window = Window(
            used.key_id, used.org_id, used.user_id, used.outcome, ip, agent, 1, 1_795_000_000_000, 1_795_000_000_900
        )
        check(key_used.encode(window, "keyledger/auth-checker/1", 1, 1_795_000_001_000, 2**127))


def test_what_a_publisher_writes_is_as_the_document_says(tmp_path: Path) -> None:
    for state in (None, tmp_path / "uses"):
        log = MemoryLog()
        with Publisher("", "invoices", state, log=log) as publisher:
            publisher.used(examples.KEY, org_id="o", user_id="u")
            publisher.used(
                examples.KEY, org_id="o", user_id="u", outcome="REVOKED", ip="2001:db8::1", user_agent="cron", count=9
            )
        values = values_on(log)
        assert len(values) == 2
        for value in values:
            check(value)


REFUSED: list[dict[str, Any]] = [
    {"specversion": "0.3"},
    {"type": "KeyCreated"},
    {"dataschema": "keyledger:KeyUsed:2"},
    {"surprise": 1},
    {"sequence": "1"},
    {"time": "2026-11-23T10:00:00Z"},
    {"id": ""},
    {"source": "a\nb"},
]
REFUSED_DATA: list[dict[str, Any]] = [
    {"count": 0},
    {"count": 1.5},
    {"count": "1"},
    {"count": 10**10},
    {"outcome": "FINE"},
    {"key_id": "short"},
    {"org_id": "a b"},
    {"ip": "localhost"},
    {"user_agent": "x" * 201},
    {"first_at": "2026-11-23T10:00:00+00:00"},
    {"surprise": 1},
]


@pytest.mark.parametrize("changes", REFUSED + [{"data": data} for data in REFUSED_DATA], ids=str)
def test_what_breaks_a_rule_is_refused_by_the_document_too(changes: dict[str, Any]) -> None:
    document = json.loads(encode_usage(examples.usage()))
    document |= changes | {"data": document["data"] | changes.get("data", {})}
    schema = DOCUMENT["components"]["schemas"]["KeyUsed"]
    with pytest.raises(ValidationError):
        Draft7Validator(schema, validate_formats=True).validate(document)


@pytest.mark.parametrize("missing", ["id", "source", "subject", "time", "type", "dataschema", "data", "specversion"])
def test_what_lacks_an_attribute_is_refused_by_the_document_too(missing: str) -> None:
    document = json.loads(encode_usage(examples.usage()))
    del document[missing]
    with pytest.raises(ValidationError):
        Draft7Validator(DOCUMENT["components"]["schemas"]["KeyUsed"]).validate(document)
