"""Value bytes to envelopes, for readers: msgspec types compiled at import from the marshmallow schemas of `schemas.wire`.

Marshmallow takes about a hundred times as long for one event; a property test shows that both accept the same documents.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union

import msgspec
from marshmallow import Schema, ValidationError, fields, validate
from msgspec.structs import asdict

from schemas import events, wire
from schemas.fields import Shape

Check = Callable[[Any], Any]


class UndecodableEvent(ValueError):
    """The bytes are no event of a known type and version, or a field breaks its rule."""


class UnknownEvent(UndecodableEvent):
    """The type or version is not known to this version of the software."""


def decode(value: bytes) -> events.Envelope:
    """Decode a ledger event. Raises UnknownEvent for an unknown `dataschema`, UndecodableEvent for all else."""
    document = _decode(_LEDGER, value)
    event, checks = _EVENTS[document.__struct_config__.tag]
    _run(checks, document.data)
    return events.Envelope(**_attributes(document, _LEDGER_CHECKS), event=event(**asdict(document.data)))


def decode_usage(value: bytes) -> events.UsageEnvelope:
    """Decode a KeyUsed. Raises UnknownEvent for an unknown `dataschema`, UndecodableEvent for all else."""
    document = _decode(_USAGE, value)
    _run(_USED_CHECKS, document.data)
    _run(_USAGE_CHECKS, document)
    used = events.KeyUsed(**asdict(document.data))
    sequence = None if document.sequence is None else int(document.sequence)
    return events.UsageEnvelope(document.id, document.source, document.subject, document.time, used, sequence)


def _decode(decoder: msgspec.json.Decoder[Any], value: bytes) -> Any:
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # In msgspec's words: `… at `$.dataschema`` for another value, else the field is missing.
        if str(error).endswith(("`$.dataschema`", "required field `dataschema`")):
            raise UnknownEvent(str(error)) from error
        raise UndecodableEvent(str(error)) from error


def _attributes(document: Any, checks: list[tuple[str, Check]]) -> dict[str, Any]:
    _run(checks, document)
    attributes = asdict(document)
    for name in ("type", "specversion", "data"):
        del attributes[name]
    return attributes


def _run(checks: list[tuple[str, Check]], document: Any) -> None:
    for name, check in checks:
        value = getattr(document, name)
        for one in value if type(value) is tuple else () if value is None else (value,):
            try:
                check(one)
            except ValidationError as error:
                raise UndecodableEvent(f"{name}: {error}") from error


def _type_of(field: fields.Field[Any]) -> Any:
    """The msgspec type that accepts what the structural validators of a field accept."""
    limits: dict[str, Any] = {}
    for validator in field.validators:
        match validator:
            case validate.OneOf(choices=choices):
                return Literal[tuple(choices)]
            case validate.Length(min=least, max=most):
                limits |= {"min_length": least, "max_length": most}
            case validate.Range(min=least, max=most):
                limits |= {"ge": least, "le": most}
            case Shape(whole=whole):
                limits["pattern"] = rf"\A(?:{whole.pattern})\Z"
    if isinstance(field, fields.List):
        return Annotated[tuple[_type_of(field.inner), ...], msgspec.Meta(**limits)]  # type: ignore[misc]  # Made here.
    return Annotated[int if isinstance(field, fields.Integer) else str, msgspec.Meta(**limits)]


def _members(schema: type[Schema]) -> list[Any]:
    members: list[Any] = []
    for name, field in schema().fields.items():
        annotation = _type_of(field)
        members.append((name, annotation) if field.required else (name, annotation | msgspec.UnsetType, None))
    return members


def _checks(schema: type[Schema]) -> list[tuple[str, Check]]:
    structural = (validate.OneOf, validate.Length, validate.Range, Shape)
    found = []
    for name, field in schema().fields.items():
        inner = field.inner.validators if isinstance(field, fields.List) else []
        found += [(name, check) for check in (*field.validators, *inner) if not isinstance(check, structural)]
    return found


def _struct(dataschema: str, attributes: type[Schema], data: type[Schema]) -> Any:
    name = dataschema.split(":")[1]
    # Nothing here is ever in a cycle, so the garbage collector need not look at it: that makes a reader a good deal faster.
    strict = functools.partial(msgspec.defstruct, forbid_unknown_fields=True, frozen=True, kw_only=True, gc=False)
    inner = strict(name + "Data", _members(data))
    members = [*_members(attributes), ("type", Literal[name]), ("data", inner)]
    return strict(name, members, tag_field="dataschema", tag=dataschema)


_EVENTS = {name: (event, _checks(schema)) for name, (event, schema) in wire.LEDGER_SCHEMAS.items()}
_LEDGER_CHECKS, _USAGE_CHECKS = _checks(wire.LedgerAttributes), _checks(wire.UsageAttributes)
_USED_CHECKS = _checks(wire.KeyUsed)
_LEDGER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    type=Union[tuple(_struct(name, wire.LedgerAttributes, schema) for name, (_, schema) in wire.LEDGER_SCHEMAS.items())]  # noqa: UP007  # Their number is not known here.
)
_USAGE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    type=_struct(wire.KEY_USED, wire.UsageAttributes, wire.KeyUsed)
)
