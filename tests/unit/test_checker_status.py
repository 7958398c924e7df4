"""Floors and pulses and their bytes: checkers and command APIs of different versions read one topic."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.checker_status import BadStatus, Floor, Pulse, Said, decode, encode, message_key
from schemas.topics import PARTITIONS

GOLDEN: Final = Path(__file__).parent / "golden" / "checker-status"
FLOOR: Final = Floor("0f1e2d3c4b5a69788796a5b4c3d2e1f0", 7, {0: 12, 3: 0, 10: 4711})
PULSE: Final = Pulse("checker-1", "c0ffee00c0ffee00c0ffee00c0ffee00", 250, dict.fromkeys(range(PARTITIONS), 9))
PULSE_WITH_M: Final = Pulse("checker-1", "c0ffee", 250, {0: 9}, 15_000)
_OFFSETS: Final = st.dictionaries(st.integers(0, PARTITIONS - 1), st.integers(0, 2**53 - 1))
_IDS: Final = st.from_regex(r"\A[A-Za-z0-9_.:-]{1,64}\Z")
_NUMBERS: Final = st.integers(0, 2**53 - 1)


@pytest.mark.parametrize(("name", "said"), [("Floor", FLOOR), ("Pulse", PULSE), ("Pulse-2", PULSE_WITH_M)])
def test_the_bytes_of_floors_and_pulses_never_change(name: str, said: Said) -> None:
    value = (GOLDEN / f"{name}.json").read_bytes()
    assert encode(said) == value
    assert decode(value) == said


@given(
    st.one_of(st.builds(Floor, _IDS, _NUMBERS, _OFFSETS), st.builds(Pulse, _IDS, _IDS, _NUMBERS, _OFFSETS, _NUMBERS))
)
def test_what_was_encoded_is_decoded_as_it_was(said: Said) -> None:
    assert decode(encode(said)) == said


def test_the_message_key_tells_who_speaks() -> None:
    assert message_key(FLOOR) == b"0f1e2d3c4b5a69788796a5b4c3d2e1f0"
    assert message_key(PULSE) == b"checker-1/c0ffee00c0ffee00c0ffee00c0ffee00"


def changed(said: Said, **fields: Any) -> bytes:
    return json.dumps(json.loads(encode(said)) | fields).encode()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{}",
        b"[]",
        b"\xff",
        encode(FLOOR)[:-1],
        encode(FLOOR) * 2,
        b"[" * 100_000,
        changed(FLOOR, type="Ceiling"),
        changed(FLOOR, type=None),
        changed(FLOOR, more=1),
        changed(FLOOR, api=""),
        changed(FLOOR, api="a" * 65),
        changed(FLOOR, api="a\n"),
        changed(FLOOR, number=-1),
        changed(FLOOR, number=2**53),
        changed(FLOOR, number=1.5),
        changed(FLOOR, number="1"),
        changed(FLOOR, offsets={str(PARTITIONS): 1}),
        changed(FLOOR, offsets={"01": 1}),
        changed(FLOOR, offsets={"-1": 1}),
        changed(FLOOR, offsets={"0": -1}),
        changed(FLOOR, offsets={"0": None}),
        changed(FLOOR, offsets=[1]),
        changed(PULSE, type="Floor"),
        changed(PULSE, incarnation="a/b"),
        changed(PULSE, positions={"x": 1}),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_whatever_is_neither_floor_nor_pulse_is_refused(value: bytes | None) -> None:
    with pytest.raises(BadStatus):
        decode(value)
