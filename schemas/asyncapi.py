"""The AsyncAPI 3 document of the topics, with a JSON Schema of every event, made from the marshmallow schemas.

`python -m schemas.asyncapi` prints it; docs/asyncapi.json is what it printed, as a test shows.
"""

import json
import sys
from typing import Any, Final

from marshmallow import Schema
from marshmallow import fields as marshmallow_fields
from marshmallow.validate import Length, OneOf, Range

from schemas import fields, wire
from schemas.events import KeyUsed
from schemas.topics import EXTERNAL_USAGE, LIFECYCLE, TOPICS, USAGE

_DIALECT: Final = "http://json-schema.org/draft-07/schema#"
_ABOUT: Final = {
    LIFECYCLE: "One ledger for each organisation: chained and sealed events. Written by command APIs only.",
    USAGE: "Uses of keys that checkers saw. Written by checkers only; each record has a `sequence`.",
    EXTERNAL_USAGE: (
        "Uses of keys that other services saw; how to publish them is in docs/publishing.md. The schema is the form that"
        " our own publishers write. Any CloudEvents 1.0 producer may write the same in structured or binary mode: then"
        " names stand in any order, extension attributes are ignored, and times have any offset and up to nine decimals."
    ),
}
_OPERATIONS: Final = {
    "decide": ("send", LIFECYCLE),
    "reportUse": ("send", USAGE),
    "publishUse": ("send", EXTERNAL_USAGE),
    "remember": ("receive", LIFECYCLE),
    "countUse": ("receive", USAGE),
    "countExternalUse": ("receive", EXTERNAL_USAGE),
}
_SAID_BY: Final[dict[Any, dict[str, Any]]] = {
    fields.real_time: {"format": "date-time"},
    fields.canonical_network: {"description": "an IPv4 or IPv6 network, such as 192.0.2.0/24"},
    fields.address_or_other: {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}, {"const": "other"}]},
}
"""What the checks say that are functions."""


def document() -> dict[str, Any]:
    """The AsyncAPI document."""
    ledger = {name: _event(name, wire.LedgerAttributes, schema) for name, (_, schema) in wire.LEDGER_SCHEMAS.items()}
    events = ledger | {wire.KEY_USED: _event(wire.KEY_USED, wire.UsageAttributes, wire.KeyUsed)}
    on_topic = {LIFECYCLE: list(ledger), USAGE: [wire.KEY_USED], EXTERNAL_USAGE: [wire.KEY_USED]}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Keyledger",
            "version": "1",
            "description": "API keys as a ledger of facts on Apache Kafka. Every value is a CloudEvent 1.0 in JSON.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": {topic: _channel(topic, names) for topic, names in on_topic.items()},
        "operations": {
            name: {"action": action, "channel": {"$ref": f"#/channels/{topic}"}}
            for name, (action, topic) in _OPERATIONS.items()
        },
        "components": {
            "messages": {_type(name): _message(name) for name in events},
            "schemas": {_type(name): schema for name, schema in events.items()},
        },
    }


def json_schema(dataschema: str) -> dict[str, Any]:
    """The JSON Schema of the values of an event, such as `keyledger:KeyUsed:1`. Raises KeyError for an unknown one."""
    if dataschema == wire.KEY_USED:
        return _event(dataschema, wire.UsageAttributes, wire.KeyUsed)
    return _event(dataschema, wire.LedgerAttributes, wire.LEDGER_SCHEMAS[dataschema][1])


def _channel(topic: str, names: list[str]) -> dict[str, Any]:
    (made,) = (one for one in TOPICS if one.name == topic)
    configuration = {name: made.config[name] for name in ("retention.ms", "max.message.bytes")}
    return {
        "address": topic,
        "description": _ABOUT[topic],
        "messages": {_type(name): {"$ref": f"#/components/messages/{_type(name)}"} for name in names},
        "bindings": {
            "kafka": {
                "partitions": made.partitions,
                "topicConfiguration": {
                    "cleanup.policy": [made.config["cleanup.policy"]],
                    **{name: int(value) for name, value in configuration.items()},
                },
            }
        },
    }


def _message(dataschema: str) -> dict[str, Any]:
    event = KeyUsed if dataschema == wire.KEY_USED else wire.LEDGER_SCHEMAS[dataschema][0]
    key = "the key id" if event is KeyUsed else "the organisation's id"
    return {
        "name": _type(dataschema),
        "summary": (event.__doc__ or "").strip(),
        "payload": {"$ref": f"#/components/schemas/{_type(dataschema)}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": key}}},
    }


def _event(dataschema: str, attributes: type[Schema], data: type[Schema]) -> dict[str, Any]:
    """The schema of a whole event: attributes, type and data."""
    schema = _object(attributes)
    schema["properties"] |= {
        "type": {"const": _type(dataschema)},
        "dataschema": {"const": dataschema},
        "data": _object(data),
    }
    schema["required"] += ["type", "dataschema", "data"]
    return {"$schema": _DIALECT, "$id": f"{dataschema}", "title": _type(dataschema), **schema}


def _object(schema: type[Schema]) -> dict[str, Any]:
    members = schema().fields
    return {
        "type": "object",
        "properties": {name: _member(field) for name, field in members.items()},
        "required": [name for name, field in members.items() if field.required],
        "additionalProperties": False,
    }


def _member(field: marshmallow_fields.Field[Any]) -> dict[str, Any]:
    if isinstance(field, marshmallow_fields.List):
        made: dict[str, Any] = {"type": "array", "items": _member(field.inner)}
        least, most = "minItems", "maxItems"
    else:
        made = {"type": "integer" if isinstance(field, marshmallow_fields.Integer) else "string"}
        least, most = "minLength", "maxLength"
    for validator in field.validators:
        match validator:
            case Length(min=low, max=high):
                made |= {least: low, most: high}
            case Range(min=low, max=high):
                made |= {"minimum": low, "maximum": high}
            case OneOf(choices=choices):
                made |= {"enum": list(choices)}
            case fields.Shape(whole=whole):
                made |= {"pattern": f"^(?:{whole.pattern})$"}
            case _:
                made |= _SAID_BY[validator]
    return made


def _type(dataschema: str) -> str:
    return dataschema.split(":")[1]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=1, sort_keys=True) + "\n")
