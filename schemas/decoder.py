"""Value bytes to envelopes, for readers: msgspec types compiled at import from the marshmallow schemas of `schemas.wire`.

Marshmallow takes about a hundred times as long for one event; a property test shows that both accept the same documents.
"""

import functools
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, Union

import msgspec
from marshmallow import Schema, ValidationError, fields, validate
from msgspec.structs import asdict

from schemas import events, wire
from schemas.fields import Shape

Check = Callable[[Any], Any]


class Rules(NamedTuple):
    """What is checked after msgspec took a document.

    `shapes` are the patterns of the required texts, and `all_shapes` is one pattern for all of them, each on a line of
    its own: no shape allows a line feed, so a line is one text. Checked one by one they take a fifth of a reader's time.
    """

    shapes: dict[str, re.Pattern[str]]
    all_shapes: re.Pattern[str]
    checks: list[tuple[str, Check]]


class UndecodableEvent(ValueError):
    """The bytes are no event of a known type and version, or a field breaks its rule."""


class UnknownEvent(UndecodableEvent):
    """The type or version is not known to this version of the software."""


def decode(value: bytes) -> events.Envelope:
    """Decode a ledger event. Raises UnknownEvent for an unknown `dataschema`, UndecodableEvent for all else."""
    document = _decode(_LEDGER, value)
    event, rules = _EVENTS[document.__struct_config__.tag]
    _check(rules, document.data)
    _check(_LEDGER_RULES, document)
    attributes = {name: getattr(document, name) for name in _LEDGER_ATTRIBUTES}
    return events.Envelope(**attributes, event=event(**asdict(document.data)))


def decode_usage(value: bytes) -> events.UsageEnvelope:
    """Decode a KeyUsed. Raises UnknownEvent for an unknown `dataschema`, UndecodableEvent for all else."""
    document = _decode(_USAGE, value)
    _check(_USED_RULES, document.data)
    _check(_USAGE_RULES, document)
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


def _check(rules: Rules, document: Any) -> None:
    if not rules.all_shapes.fullmatch("\n".join([getattr(document, name) for name in rules.shapes])):
        wrong = [name for name, shape in rules.shapes.items() if not shape.fullmatch(getattr(document, name))]
        raise UndecodableEvent(f"{', '.join(wrong)}: has the wrong shape")
    for name, check in rules.checks:
        value = getattr(document, name)
        for one in value if type(value) is tuple else () if value is None else (value,):
            try:
                check(one)
            except ValidationError as error:
                raise UndecodableEvent(f"{name}: {error}") from error


def _type_of(field: fields.Field[Any], *, with_shape: bool = True) -> Any:
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
            case Shape(whole=whole) if with_shape:
                limits["pattern"] = rf"\A(?:{whole.pattern})\Z"
    if isinstance(field, fields.List):
        return Annotated[tuple[_type_of(field.inner), ...], msgspec.Meta(**limits)]  # type: ignore[misc]  # Made here.
    return Annotated[int if isinstance(field, fields.Integer) else str, msgspec.Meta(**limits)]


def _members(schema: type[Schema]) -> list[Any]:
    members: list[Any] = []
    for name, field in schema().fields.items():
        annotation = _type_of(field, with_shape=not field.required)
        members.append((name, annotation) if field.required else (name, annotation | msgspec.UnsetType, None))
    return members


def _rules(schema: type[Schema]) -> Rules:
    structural = (validate.OneOf, validate.Length, validate.Range, Shape)
    shapes: dict[str, re.Pattern[str]] = {}
    checks: list[tuple[str, Check]] = []
    for name, field in schema().fields.items():
        inner = field.inner.validators if isinstance(field, fields.List) else []
        checks += [(name, check) for check in (*field.validators, *inner) if not isinstance(check, structural)]
        if field.required:
            shapes.update((name, check.whole) for check in field.validators if isinstance(check, Shape))
    return Rules(shapes, re.compile("\n".join(f"(?:{shape.pattern})" for shape in shapes.values())), checks)


def _struct(dataschema: str, attributes: type[Schema], data: type[Schema]) -> Any:
    name = dataschema.split(":")[1]
    # Nothing here is ever in a cycle, so the garbage collector need not look at it: that makes a reader a good deal faster.
    strict = functools.partial(msgspec.defstruct, forbid_unknown_fields=True, frozen=True, kw_only=True, gc=False)
    inner = strict(name + "Data", _members(data))
    members = [*_members(attributes), ("type", Literal[name]), ("data", inner)]
    return strict(name, members, tag_field="dataschema", tag=dataschema)


_EVENTS = {name: (event, _rules(schema)) for name, (event, schema) in wire.LEDGER_SCHEMAS.items()}
_LEDGER_RULES, _USAGE_RULES, _USED_RULES = map(_rules, (wire.LedgerAttributes, wire.UsageAttributes, wire.KeyUsed))
_LEDGER_ATTRIBUTES = [name for name in events.Envelope.__match_args__ if name != "event"]
_LEDGER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    type=Union[tuple(_struct(name, wire.LedgerAttributes, schema) for name, (_, schema) in wire.LEDGER_SCHEMAS.items())]  # noqa: UP007  # Their number is not known here.
)
_USAGE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    type=_struct(wire.KEY_USED, wire.UsageAttributes, wire.KeyUsed)
)
