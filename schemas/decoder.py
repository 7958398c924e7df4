"""Value bytes to envelopes, for readers: msgspec types compiled at import from the marshmallow schemas of `schemas.wire`.

Marshmallow takes about a hundred times as long for one event; a property test shows that both accept the same documents.
"""

import functools
import re
from collections.abc import Callable
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Union

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
    `texts` gives those texts of a document.
    """

    shapes: dict[str, re.Pattern[str]]
    texts: Callable[[Any], tuple[str, ...]]
    all_shapes: re.Pattern[str]
    checks: list[tuple[str, Check]]


class UsageDocument(Protocol):
    """What `decode_usage` makes an envelope of. `sequence` is text; `data` has the fields of a KeyUsed and is none."""

    id: str
    source: str
    sequence: str | None
    data: events.KeyUsed


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
    first, last = _FIRST_ATTRIBUTES(document), _LAST_ATTRIBUTES(document)
    return events.Envelope(*first, event(**asdict(document.data)), *last)  # type: ignore[call-arg]  # Their number is known.


def decode_usage(value: bytes) -> events.UsageEnvelope:
    """Decode a KeyUsed. Raises UnknownEvent for an unknown `dataschema`, UndecodableEvent for all else."""
    document: Any = usage_document(value)
    used = events.KeyUsed(**asdict(document.data))
    sequence = None if document.sequence is None else int(document.sequence)
    return events.UsageEnvelope(document.id, document.source, document.subject, document.time, used, sequence)


def usage_document(value: bytes) -> UsageDocument:
    """The same, as it was read: for who reads tens of thousands in a second. Raises as `decode_usage` does."""
    document = _decode(_USAGE, value)
    data = document.data
    repeated = (
        *(document.source, document.subject),
        *(data.key_id, data.org_id, data.user_id, data.ip, data.user_agent),
    )
    if repeated not in _GOOD or not _keeps_shapes(document):
        _check(_USED_RULES, data)
        _check(_USAGE_RULES, document)
        if len(_GOOD) >= _MOST_GOOD:
            _GOOD.clear()
        _GOOD.add(repeated)
    return document  # type: ignore[no-any-return]  # Its type is made here, at import.


def _keeps_shapes(document: Any) -> bool:
    """Whether the fields that change keep their rules; where this says no, `_check` says why."""
    sequence = _NO_SEQUENCE if document.sequence is None else document.sequence
    time, first_at, last_at = document.time, document.data.first_at, document.data.last_at
    if not _CHANGING_SHAPE.fullmatch(f"{sequence}\n{document.id}\n{time}\n{first_at}\n{last_at}"):
        return False
    try:
        for one in {time, first_at, last_at}:
            datetime.fromisoformat(one)
    except ValueError:
        return False
    return True


def _decode(decoder: msgspec.json.Decoder[Any], value: bytes) -> Any:
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # In msgspec's words: `… at `$.dataschema`` for another value, else the field is missing.
        if str(error).endswith(("`$.dataschema`", "required field `dataschema`")):
            raise UnknownEvent(str(error)) from error
        raise UndecodableEvent(str(error)) from error


def _check(rules: Rules, document: Any) -> None:
    if rules.shapes and not rules.all_shapes.fullmatch("\n".join(rules.texts(document))):
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
        annotation = _type_of(field, with_shape=False)
        members.append((name, annotation) if field.required else (name, annotation | msgspec.UnsetType, None))
    return members


def _rules(schema: type[Schema]) -> Rules:
    structural = (validate.OneOf, validate.Length, validate.Range, Shape)
    shapes: dict[str, re.Pattern[str]] = {}
    checks: list[tuple[str, Check]] = []
    for name, field in schema().fields.items():
        inner = field.inner.validators if isinstance(field, fields.List) else []
        checks += [(name, check) for check in (*field.validators, *inner) if not isinstance(check, structural)]
        found = [check for check in field.validators if isinstance(check, Shape)]
        if field.required:
            shapes.update((name, check.whole) for check in found)
        else:
            checks += [(name, check) for check in found]
    all_shapes = re.compile("\n".join(f"(?:{shape.pattern})" for shape in shapes.values()))
    return Rules(shapes, _getter(tuple(shapes)), all_shapes, checks)


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives these members of an object; a tuple, however many they are."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda document: tuple(getattr(document, name) for name in names)


def _struct(dataschema: str, attributes: type[Schema], data: type[Schema], *, is_alone: bool = False) -> Any:
    name = dataschema.split(":")[1]
    # Nothing here is ever in a cycle, so the garbage collector need not look at it: that makes a reader a good deal faster.
    strict = functools.partial(msgspec.defstruct, forbid_unknown_fields=True, frozen=True, kw_only=True, gc=False)
    inner = strict(name + "Data", _members(data))
    members = [*_members(attributes), ("type", Literal[name]), ("data", inner)]
    if is_alone:  # A tag may be missing where there is no other type to tell it from.
        return strict(name, [*members, ("dataschema", Literal[dataschema])])
    return strict(name, members, tag_field="dataschema", tag=dataschema)


_EVENTS = {name: (event, _rules(schema)) for name, (event, schema) in wire.LEDGER_SCHEMAS.items()}
_LEDGER_RULES, _USAGE_RULES, _USED_RULES = map(_rules, (wire.LedgerAttributes, wire.UsageAttributes, wire.KeyUsed))
_CHANGING_SHAPE = re.compile(
    "\n".join(
        f"(?:{check.whole.pattern})"
        for schema, name in (
            *((wire.UsageAttributes, name) for name in ("sequence", "id", "time")),
            *((wire.KeyUsed, name) for name in ("first_at", "last_at")),
        )
        for check in schema().fields[name].validators
        if isinstance(check, Shape)
    )
)
_NO_SEQUENCE = "0" * 20
# Of a KeyUsed the fields that are the same in many are checked once and then known to be good.
_GOOD: set[tuple[str | None, ...]] = set()
_MOST_GOOD = 100_000
_BEFORE = events.Envelope.__match_args__.index("event")
_FIRST_ATTRIBUTES = _getter(events.Envelope.__match_args__[:_BEFORE])
_LAST_ATTRIBUTES = _getter(events.Envelope.__match_args__[_BEFORE + 1 :])
_LEDGER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    type=Union[tuple(_struct(name, wire.LedgerAttributes, schema) for name, (_, schema) in wire.LEDGER_SCHEMAS.items())]  # noqa: UP007  # Their number is not known here.
)
_USAGE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    type=_struct(wire.KEY_USED, wire.UsageAttributes, wire.KeyUsed, is_alone=True)
)
