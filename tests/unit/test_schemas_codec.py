"""Events and their bytes: what was once written is read for ever, and both sides of the contract agree on what an event is."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError

from schemas import codec, events, examples, wire
from schemas.codec import InvalidEvent, canonical, encode, encode_usage
from schemas.decoder import UndecodableEvent, UnknownEvent, decode, decode_usage
from schemas.topics import MAX_VALUE_BYTES

GOLDEN = Path(__file__).parent / "golden"
Document = dict[str, Any]
# On a busy machine one slow example is no finding.
LITERALS = ("dataschema", "type", "specversion")
patient = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])


def _examples() -> Iterator[tuple[str, bytes]]:
    """File name and bytes of every example: `<type>-<version>-<number>.json`."""
    values = [encode(examples.envelope(event)) for event in examples.LEDGER_EVENTS]
    values += [encode_usage(examples.usage()), encode_usage(examples.usage(sequence=None))]
    seen: dict[str, int] = {}
    for value in values:
        _, name, version = json.loads(value)["dataschema"].split(":")
        seen[name] = seen.get(name, 0) + 1
        yield f"{name}-{version}-{seen[name]}.json", value


EXAMPLES = dict(_examples())
DOCUMENTS: list[Document] = [json.loads(value) for value in EXAMPLES.values()]


def _schemas_of(document: Document) -> tuple[type[Schema], type[Schema]] | None:
    name = document.get("dataschema")
    if name == wire.KEY_USED:
        return wire.UsageAttributes, wire.KeyUsed
    if isinstance(name, str) and name in wire.LEDGER_SCHEMAS:
        return wire.LedgerAttributes, wire.LEDGER_SCHEMAS[name][1]
    return None


def _marshmallow_accepts(document: Document) -> bool:
    schemas = _schemas_of(document)
    if schemas is None or document.get("type") != document["dataschema"].split(":")[1] or "data" not in document:
        return False
    attributes = {name: value for name, value in document.items() if name not in ("type", "dataschema", "data")}
    try:
        schemas[0]().load(attributes)
        schemas[1]().load(document["data"])
    except ValidationError:
        return False
    return True


def _decoder_accepts(document: Document) -> bool:
    value = json.dumps(document).encode()
    try:
        (decode_usage if document.get("dataschema") == wire.KEY_USED else decode)(value)
    except UndecodableEvent:
        return False
    return True


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_bytes_of_an_event_never_change(name: str) -> None:
    assert EXAMPLES[name] == (GOLDEN / name).read_bytes()


def test_every_type_and_version_has_a_golden_file() -> None:
    stored = {tuple(path.stem.split("-")[:2]) for path in GOLDEN.glob("*.json")}
    assert stored == {tuple(name.split(":")[1:]) for name in (*wire.LEDGER_SCHEMAS, wire.KEY_USED)}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_once_written_is_still_read_and_written_the_same(path: Path) -> None:
    value = path.read_bytes()
    if path.stem.startswith("KeyUsed"):
        assert encode_usage(decode_usage(value)) == value
    else:
        assert encode(decode(value)) == value


@pytest.mark.parametrize("event", examples.LEDGER_EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_read_as_it_was_written(event: events.LedgerEvent) -> None:
    assert decode(encode(examples.envelope(event))) == examples.envelope(event)


@pytest.mark.parametrize("sequence", [None, 1, 10**20 - 1])
def test_a_use_is_read_as_it_was_written(sequence: int | None) -> None:
    assert decode_usage(encode_usage(examples.usage(sequence))) == examples.usage(sequence)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from(
        [2**53 - 1, 2**53, 2**63, 2**64, 10**30, 1.0, 1.5, 1e300, [], {}, [[]], [1], ["a"], [None], {"a": 1}]
    ),
    st.sampled_from(["", "1", "true", "1.0", "other", "VALID", "valid", "admin", "1.1", "fe80::1%1", "192.0.2.1/24"]),
    st.sampled_from(["2026-11-23", "2026-02-30T00:00:00.000Z", "2026-11-23T24:00:00.000Z", "1999-01-01T00:00:00.000Z"]),
    st.sampled_from(["2026-01-01T00:00:00.000+00:00", "2026-01-01T00:00:00.00\u0660Z", "10000-01-01T00:00:00.000Z"]),
    st.sampled_from(
        ["10.0.0.0/08", "::/0", "0:0::/16", "10.0.0.0", " 10.0.0.0/8", "\u0661", "a\u202eb", "a\u2028", "\ud800"]
    ),
    st.text(max_size=3),
).map(copy.deepcopy)  # A later change may be made inside a list or object that was put in: not in the one above.
CHANGES = ("drop", "replace", "newline", "longer", "foreign digit", "repeat", "add")


def _changed(value: Any, change: str, other: Any) -> Any:
    if isinstance(value, str) and change == "newline":
        return value + "\n"
    if isinstance(value, str) and change == "longer":
        return value + "a" * 250 * (1 if other is None else 4)
    if isinstance(value, str) and change == "foreign digit":
        return value[:-1] + "\u0663"
    if isinstance(value, list) and change == "repeat":
        return value * 60
    if isinstance(value, int) and change == "longer":
        return float(value)
    return other


@st.composite
def mutated(draw: st.DrawFn) -> Document:
    """A valid document with one to three changes, in the attributes or in the data."""
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 3))):
        data = document.get("data")
        part = data if isinstance(data, dict) and draw(st.booleans()) else document
        known = [
            *part,
            "name",
            "reason",
            "scopes",
            "cidrs",
            "expires_at",
            "comment",
            "authkey",
            "authrevision",
            "sequence",
            "ip",
        ]
        name = draw(st.sampled_from(known))
        change = draw(st.sampled_from(CHANGES))
        if change == "drop":
            part.pop(name, None)
        elif change == "add":
            part[draw(st.sampled_from(["extra", "event", "dataschema2", "Name", ""]))] = draw(VALUES)
        else:
            part[name] = _changed(part.get(name), change, draw(VALUES))
    return document


@patient
@given(mutated())
def test_marshmallow_and_the_compiled_decoder_accept_the_same_documents(document: Document) -> None:
    assert _marshmallow_accepts(document) == _decoder_accepts(document)


@patient
@given(mutated())
def test_what_is_encoded_without_asking_marshmallow_is_what_marshmallow_accepts(document: Document) -> None:
    attributes, data = _schemas_of(document) or (wire.UsageAttributes, wire.KeyUsed)
    plain = {name: value for name, value in document.items() if name not in ("type", "dataschema", "data")}
    for schema, part in ((attributes, plain), (data, document.get("data"))):
        if isinstance(part, dict) and codec._is_surely_right(schema, part):
            assert schema().validate(part) == {}


def test_the_usual_use_is_encoded_without_asking_marshmallow() -> None:
    document = json.loads(encode_usage(examples.usage()))
    data = document.pop("data")
    del document["type"], document["dataschema"]
    assert codec._is_surely_right(wire.UsageAttributes, document)
    assert codec._is_surely_right(wire.KeyUsed, data)


def test_a_use_names_its_version() -> None:
    document = json.loads(encode_usage(examples.usage()))
    del document["dataschema"]
    with pytest.raises(UnknownEvent):
        decode_usage(canonical(document))


def test_the_mutations_make_documents_of_both_kinds() -> None:
    accepted = set()

    @patient
    @given(mutated())
    def look(document: Document) -> None:
        accepted.add(_marshmallow_accepts(document))

    look()
    assert accepted == {True, False}


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=20,
)


@patient
@given(st.dictionaries(st.text(), JSON_VALUES, max_size=6))
def test_canonical_bytes_are_the_sorted_encoding_that_readers_compare_with(document: Document) -> None:
    value = canonical(document)
    assert value == msgspec.json.encode(document, order="sorted")
    assert json.loads(value) == document


def test_canonical_json_has_one_form_for_every_control_character() -> None:
    document = {"a": "".join(map(chr, range(0x3000)))}
    assert canonical(document) == msgspec.json.encode(document, order="sorted")


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("dataschema", "keyledger:KeyCreated:2"),
        ("dataschema", "keyledger:KeyBlessed:1"),
        ("dataschema", 7),
        ("dataschema", None),
    ],
)
def test_an_unknown_type_or_version_is_told_from_a_broken_event(change: str, value: Any) -> None:
    document = json.loads(encode(examples.envelope(examples.LEDGER_EVENTS[0])))
    with pytest.raises(UnknownEvent):
        decode(canonical({**document, change: value}))
    del document[change]
    with pytest.raises(UnknownEvent):
        decode(canonical(document))


@pytest.mark.parametrize("extra", ["dataschemas", "my dataschema", "extra"])
def test_an_unknown_field_is_no_unknown_type(extra: str) -> None:
    document = json.loads(encode(examples.envelope(examples.LEDGER_EVENTS[0])))
    with pytest.raises(UndecodableEvent) as caught:
        decode(canonical({**document, extra: "x"}))
    assert not isinstance(caught.value, UnknownEvent)


def test_a_line_feed_in_any_text_is_refused_and_the_field_is_named() -> None:
    for document in DOCUMENTS:
        for part in (document, document["data"]):
            for name in [name for name, value in part.items() if type(value) is str and name not in LITERALS]:
                for text in (part[name] + "\n", "\n" + part[name], "\n"):
                    changed = copy.deepcopy(document)
                    (changed if part is document else changed["data"])[name] = text
                    assert not _decoder_accepts(changed), (name, text)
    changed = DOCUMENTS[0] | {"org": "no org"}
    with pytest.raises(UndecodableEvent, match=r"^org: has the wrong shape"):
        decode(canonical(changed))


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"\xff", b"[" * 20_000, b'{"dataschema":"\xff"}', b"null"])
def test_bytes_that_are_no_event_are_undecodable(value: bytes) -> None:
    for decoder in (decode, decode_usage):
        with pytest.raises(UndecodableEvent):
            decoder(value)


@pytest.mark.parametrize(
    "event",
    [
        events.KeyRenamed(examples.KEY, ""),
        events.KeyRenamed(examples.KEY, "a" * 101),
        events.KeyRenamed(examples.KEY, "tab\there"),
        events.KeyRenamed(examples.KEY, "half a pair \ud800"),
        events.KeyRenamed(examples.KEY, "right to left \u202e"),
        events.KeyRenamed("short", "name"),
        events.KeyRevoked(examples.KEY, "because"),  # type: ignore[arg-type]
        events.UserDisabled("a b"),
        events.LedgerResumed((-1,), "reason"),
    ],
    ids=str,
)
def test_an_event_that_breaks_a_rule_of_its_fields_is_not_encoded(event: events.LedgerEvent) -> None:
    with pytest.raises(InvalidEvent):
        encode(examples.envelope(event))


def test_the_largest_events_that_the_fields_allow_fit_into_a_record() -> None:
    scopes = tuple(f"{number:064d}" for number in range(50))
    cidrs = tuple(f"2001:db8:{number + 1:x}::/48" for number in range(50))
    created = events.KeyCreated(examples.KEY, "u" * 64, "\U0001f511" * 100, "5f" * 32, "Zz09", None, scopes, cidrs)
    resumed = events.LedgerResumed(tuple(range(2**53 - 1000, 2**53)), "\U0001f511" * 500)
    assert max(len(encode(examples.envelope(event))) for event in (created, resumed)) <= MAX_VALUE_BYTES


def test_a_value_over_the_limit_is_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.codec.MAX_VALUE_BYTES", 100)
    with pytest.raises(InvalidEvent, match="at most 100"):
        encode(examples.envelope(examples.LEDGER_EVENTS[0]))


@pytest.mark.parametrize(
    "name", ["id", "time", "sequence", "first_at", "last_at", "ip", "user_agent", "source", "key_id"]
)
def test_a_use_like_one_that_was_good_is_refused_where_a_field_is_not(name: str) -> None:
    good = json.loads(encode_usage(examples.usage(1)))
    decode_usage(canonical(good))
    for bad in ("", "\n", "2026-02-30T10:00:00.000Z\n", "2026-02-30T25:00:00.000Z", "\u2028"):
        document = copy.deepcopy(good)
        (document if name in document else document["data"])[name] = bad
        accepted = _marshmallow_accepts(document)
        assert _decoder_accepts(document) == accepted, (bad, accepted)
