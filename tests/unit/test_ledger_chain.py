"""The chain rule: what every record is, whatever anybody writes to the topic."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import canonical
from schemas.topics import MAX_VALUE_BYTES, partition_of
from services.ledger.chain import ROOT, Applied, Broken, Foreign, Head, Link, Void, read_link, sort
from services.ledger.records import Record
from services.ledger.seal import LedgerKeys
from tests.ledger_story import KEYS, chain, hash_of, record, value_of
from tests.ledger_story import named as event_named

ORG = "org_example"
FIRST, SECOND, THIRD = chain(ORG, ["one", "two", "three"])
GOOD = record(ORG, FIRST)


def _changed(**changes: Any) -> bytes:
    return canonical({**json.loads(FIRST), **changes})


def _without(name: str) -> bytes:
    return canonical({key: value for key, value in json.loads(FIRST).items() if key != name})


def _padded(size: int) -> bytes:
    return _changed(pad="x" * (size - len(_changed(pad=""))))


def _other_mac(mac: bytes | None) -> Record:
    return record(ORG, FIRST, headers=(("kid", b"k1"), ("mac", mac)))


FOREIGN: dict[str, tuple[str, Record]] = {
    "no value": ("size", GOOD._replace(value=None)),
    "a byte more than 32 KiB": ("size", record(ORG, _padded(MAX_VALUE_BYTES + 1))),
    "no headers": ("seal", GOOD._replace(headers=())),
    "no mac": ("seal", GOOD._replace(headers=(("kid", b"k1"),))),
    "no kid": ("seal", GOOD._replace(headers=GOOD.headers[1:])),
    "an empty mac": ("seal", _other_mac(b"")),
    "a null mac": ("seal", _other_mac(None)),
    "the mac of other bytes": ("seal", record(ORG, FIRST, headers=KEYS.seal(SECOND))),
    "a mac of bytes that are no text": ("seal", _other_mac(b"\xff" * 64)),
    "a mac of another key": ("seal", record(ORG, FIRST, headers=LedgerKeys("k1", {"k1": b"9" * 32}).seal(FIRST))),
    "an unknown kid": ("seal", record(ORG, FIRST, headers=LedgerKeys("k9", {"k9": b"1" * 32}).seal(FIRST))),
    "a kid that is no text": ("seal", GOOD._replace(headers=(("kid", b"\xff"), GOOD.headers[1]))),
    "a second, wrong mac": ("seal", GOOD._replace(headers=(*GOOD.headers, ("mac", b"0" * 64)))),
    "an empty value": ("envelope", record(ORG, b"")),
    "no JSON": ("envelope", record(ORG, b"garbage")),
    "no object": ("envelope", record(ORG, b"[1]")),
    "names not sorted": (
        "envelope",
        record(ORG, json.dumps({"type": 1, **json.loads(FIRST)}, separators=(",", ":")).encode()),
    ),
    "a space": ("envelope", record(ORG, FIRST.replace(b":", b": ", 1))),
    "a line end": ("envelope", record(ORG, FIRST + b"\n")),
    "a byte order mark": ("envelope", record(ORG, b"\xef\xbb\xbf" + FIRST)),
    "an escape that need not be": ("envelope", record(ORG, FIRST.replace(b"keyledger", b"\\u006beyledger", 1))),
    "a name twice": ("envelope", record(ORG, FIRST.replace(b'{"authid"', b'{"authid":"x","authid"', 1))),
    "a float": ("envelope", record(ORG, _changed(pad=1.5))),
    "a whole float": ("envelope", record(ORG, _changed(pad=1.0))),
    "an exponent": ("envelope", record(ORG, FIRST.replace(b'"revision":1', b'"revision":1e0', 1))),
    "2^53": ("envelope", record(ORG, _changed(pad=2**53))),
    "-2^53": ("envelope", record(ORG, _changed(pad=[{"deep": -(2**53)}]))),
    "a number of 4,000 digits": (
        "envelope",
        record(ORG, FIRST.replace(b'"revision":1', b'"revision":' + b"1" * 4000, 1)),
    ),
    "minus zero": ("envelope", record(ORG, _changed(pad=0).replace(b'"pad":0', b'"pad":-0', 1))),
    "20,000 brackets": ("envelope", record(ORG, b"[" * 20_000)),
    "20,000 brackets, closed": ("envelope", record(ORG, b"[" * 15_000 + b"]" * 15_000)),
    "a lone surrogate": ("envelope", record(ORG, FIRST.replace(b'"one"', b'"\\ud800"', 1))),
    "a raw surrogate": ("envelope", record(ORG, FIRST.replace(b'"one"', b'"\xed\xa0\x80"', 1))),
    "bytes that are no UTF-8": ("envelope", record(ORG, FIRST.replace(b'"one"', b'"\xff"', 1))),
    "an org of another shape": ("envelope", record("a b", _changed(org="a b"))),
    "an org that is no text": ("envelope", record(ORG, _changed(org=7))),
    "an org with a line end": ("envelope", record(ORG + "\n", _changed(org=ORG + "\n"))),
    "an org of 65 characters": ("envelope", record("a" * 65, _changed(org="a" * 65))),
    "no org": ("envelope", record(ORG, _without("org"))),
    "no revision": ("envelope", record(ORG, _without("revision"))),
    "no parent": ("envelope", record(ORG, _without("parent"))),
    "revision 0": ("envelope", record(ORG, _changed(revision=0))),
    "revision -1": ("envelope", record(ORG, _changed(revision=-1))),
    "revision true": ("envelope", record(ORG, _changed(revision=True))),
    "revision as text": ("envelope", record(ORG, _changed(revision="1"))),
    "a parent in capitals": ("envelope", record(ORG, _changed(parent="A" * 64))),
    "a short parent": ("envelope", record(ORG, _changed(parent="0" * 63))),
    "a null parent": ("envelope", record(ORG, _changed(parent=None))),
    "another key": ("place", GOOD._replace(key=b"other")),
    "no key": ("place", GOOD._replace(key=None)),
    "another partition": ("place", GOOD._replace(partition=(partition_of(ORG) + 1) % 12)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_record_that_is_no_envelope_of_ours_is_foreign(name: str) -> None:
    why, foreign = FOREIGN[name]
    assert read_link(foreign, KEYS) == Foreign(why)


def test_a_sealed_envelope_in_its_place_gives_its_link() -> None:
    assert read_link(GOOD, KEYS) == Link(ORG, 1, ROOT, hash_of(FIRST), "2026-11-23T10:00:00.000Z")


@pytest.mark.parametrize(
    "value",
    [
        _changed(
            type="KeyBlessed", dataschema="keyledger:KeyBlessed:9", data={"deep": [1, None, {"\u00e9": "\U0001f511"}]}
        ),
        _changed(data=None),
        _without("data"),
        _without("time"),
        _changed(pad=2**53 - 1),
        _changed(pad="[1111111111111111"),
        _padded(MAX_VALUE_BYTES),
    ],
    ids=lambda value: repr(value[-40:]),
)
def test_what_the_event_says_is_never_judged(value: bytes) -> None:
    assert isinstance(read_link(record(ORG, value), KEYS), Link)


def test_a_record_sealed_with_an_older_key_is_still_ours() -> None:
    older = LedgerKeys("k0", KEYS.keys)
    assert isinstance(read_link(record(ORG, FIRST, headers=older.seal(FIRST)), KEYS), Link)


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=70), st.integers(0, 11))
def test_any_sealed_bytes_are_sorted_without_an_error(value: bytes, key: bytes, partition: int) -> None:
    sealed = Record("key-lifecycle", partition, 0, key, value, KEYS.seal(value))
    assert isinstance(read_link(sealed, KEYS), Foreign)


# What was applied: revisions 1 to 3; the hash of revision 1 is not remembered any more.
HEAD = Head(3, hash_of(THIRD), "")
REMEMBERED = {2: hash_of(SECOND), 3: hash_of(THIRD)}


def _link(revision: int, parent: str) -> Link:
    return Link(ORG, revision, parent, "f" * 64, "")


OTHER = "e" * 64
SORTED: dict[str, tuple[Link, Callable[[Link], object]]] = {
    "it extends the head": (_link(4, HEAD.hash), Applied),
    "it extends another head": (_link(4, OTHER), lambda link: Broken(link, "fork")),
    "one is missing": (_link(5, OTHER), lambda link: Broken(link, "gap")),
    "many are missing": (_link(2**53 - 1, HEAD.hash), lambda link: Broken(link, "gap")),
    "it lost the race for the head": (_link(3, REMEMBERED[2]), Void),
    "it has the head's revision and another parent": (_link(3, OTHER), lambda link: Broken(link, "fork")),
    "so old that its parent is forgotten": (_link(2, OTHER), Void),
    "a first event, again": (_link(1, ROOT), Void),
    "a first event with a parent": (_link(1, OTHER), lambda link: Broken(link, "fork")),
}


@pytest.mark.parametrize("name", SORTED)
def test_a_sealed_envelope_is_sorted_by_the_head_alone(name: str) -> None:
    link, expected = SORTED[name]
    assert sort(link, HEAD, lambda org, revision: REMEMBERED.get(revision)) == expected(link)


def test_the_first_event_extends_the_empty_ledger() -> None:
    link = _link(1, ROOT)
    assert sort(link, Head(), lambda org, revision: None) == Applied(link)


def test_a_copy_of_an_applied_event_is_void() -> None:
    link = read_link(record(ORG, THIRD), KEYS)
    assert isinstance(link, Link)
    assert sort(link, HEAD, lambda org, revision: REMEMBERED.get(revision)) == Void(link)


def test_a_value_made_by_the_codec_is_an_envelope_for_every_organisation() -> None:
    for org in ("a", "A-_9" * 16, "platform"):
        value = value_of(org, 7, "d" * 64, event_named("x"))
        assert read_link(record(org, value), KEYS) == Link(org, 7, "d" * 64, hash_of(value), "2026-11-23T10:00:00.000Z")
