"""Envelopes to canonical bytes, through marshmallow.

Canonical JSON: UTF-8, names sorted, no spaces, no floats, integers below 2^53, nothing escaped that need not be.
These bytes are hashed, sealed, sent and archived; they are never made twice for one event.
"""

import json
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from functools import cache
from typing import Any

from marshmallow import Schema, ValidationError

from schemas import events, wire
from schemas.topics import MAX_VALUE_BYTES

SEQUENCE_DIGITS = 20
_SCHEMA_OF = {event: (name, schema) for name, (event, schema) in wire.LEDGER_SCHEMAS.items()}


class InvalidEvent(ValueError):
    """The event breaks a rule of its schema; nothing was encoded."""


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one byte form of a JSON object made of objects, arrays, texts, whole numbers, true, false and null."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def encode(envelope: events.Envelope) -> bytes:
    """Encode a ledger event. Raises InvalidEvent when a field breaks its rule or the value is over 32 KiB."""
    dataschema, schema = _SCHEMA_OF[type(envelope.event)]
    document = _present(envelope, leave_out="event")
    return _checked(wire.LedgerAttributes, document, dataschema, schema, _present(envelope.event))


def encode_usage(envelope: events.UsageEnvelope) -> bytes:
    """Encode a KeyUsed. Raises InvalidEvent when a field breaks its rule."""
    document = _present(envelope, leave_out="event")
    if envelope.sequence is not None:
        document["sequence"] = f"{envelope.sequence:0{SEQUENCE_DIGITS}d}"
    return _checked(wire.UsageAttributes, document, wire.KEY_USED, wire.KeyUsed, _present(envelope.event))


def _checked(
    attributes: type[Schema], document: dict[str, Any], dataschema: str, schema: type[Schema], data: dict[str, Any]
) -> bytes:
    document["specversion"] = "1.0"
    try:
        _instance(attributes).load(document)
        _instance(schema).load(data)
    except ValidationError as error:
        raise InvalidEvent(f"{dataschema}: {error.messages}") from error
    value = canonical({**document, "type": dataschema.split(":")[1], "dataschema": dataschema, "data": data})
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidEvent(f"{dataschema}: {len(value)} bytes, at most {MAX_VALUE_BYTES} are allowed")
    return value


@cache
def _instance(schema: type[Schema]) -> Schema:
    return schema()


def _present(instance: Any, leave_out: str = "") -> dict[str, Any]:
    """The fields of a dataclass that are not None, as JSON values."""
    document = {}
    for field in dataclass_fields(instance):
        value = getattr(instance, field.name)
        if value is not None and field.name != leave_out:
            document[field.name] = list(value) if isinstance(value, tuple) else value
    return document
