"""Envelopes to canonical bytes, checked by the marshmallow schemas of `schemas.wire`.

Canonical JSON: UTF-8, names sorted, no spaces, no floats, integers below 2^53, nothing escaped that need not be.
These bytes are hashed, sealed, sent and archived; they are never made twice for one event.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from marshmallow import Schema, ValidationError

from schemas import events, fields, wire
from schemas.topics import MAX_VALUE_BYTES

SEQUENCE_DIGITS = 20
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_KINDS: dict[type, type] = {fields.Text: str, fields.Whole: int}
_SCHEMA_OF = {event: (name, schema) for name, (event, schema) in wire.LEDGER_SCHEMAS.items()}


class InvalidEvent(ValueError):
    """The event breaks a rule of its schema; nothing was encoded."""


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one byte form of a JSON object made of objects, arrays, texts, whole numbers, true, false and null."""
    return _ENCODER.encode(document).encode()


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
        for of, checked in ((attributes, document), (schema, data)):
            if not _is_surely_right(of, checked):
                _instance(of).load(checked)
    except ValidationError as error:
        raise InvalidEvent(f"{dataschema}: {error.messages}") from error
    value = canonical({**document, "type": dataschema.split(":")[1], "dataschema": dataschema, "data": data})
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidEvent(f"{dataschema}: {len(value)} bytes, at most {MAX_VALUE_BYTES} are allowed")
    return value


def _is_surely_right(schema: type[Schema], document: Mapping[str, Any]) -> bool:
    """Whether these ASCII texts and whole numbers keep the rules; where this says no, marshmallow decides and says why.

    The validators are the schema's own; what is left out is all that marshmallow does around them, most of its time.
    """
    required, rules = _rules(schema)
    if not required <= document.keys():
        return False
    try:
        for name, value in document.items():
            kind, validators = rules.get(name, (None, ()))
            if type(value) is not kind or (type(value) is str and not value.isascii()):
                return False
            for validator in validators:
                validator(value)
    except ValidationError:
        return False
    return True


@cache
def _rules(schema: type[Schema]) -> tuple[set[str], dict[str, tuple[type, list[Callable[[Any], Any]]]]]:
    """The names of the required fields, and of each text and whole number its type and validators."""
    named = _instance(schema).fields
    kinds = {name: _KINDS.get(type(field)) for name, field in named.items()}
    rules = {name: (kind, named[name].validators) for name, kind in kinds.items() if kind is not None}
    return {name for name, field in named.items() if field.required}, rules


@cache
def _instance(schema: type[Schema]) -> Schema:
    return schema()


def _present(instance: Any, leave_out: str = "") -> dict[str, Any]:
    """The fields of a dataclass that are not None, as JSON values."""
    document = {}
    for name in instance.__match_args__:
        value = getattr(instance, name)
        if value is not None and name != leave_out:
            document[name] = list(value) if isinstance(value, tuple) else value
    return document
