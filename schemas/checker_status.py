"""What checkers and command APIs tell each other on the topic `checker-status` (DESIGN section 7): floors and pulses.

Both are sealed like ledger events (headers `kid` and `mac`) and stand in the topic's one partition, so that all who
read them agree on their order. Values are canonical JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, assert_never

import msgspec

from schemas.codec import canonical
from schemas.topics import PARTITIONS

PARTITION: Final = 0
_LEAST_MARGIN_MS: Final = 100
_MARGIN_PERCENT: Final = 3
Offsets = Mapping[int, int]
"""An offset for each partition of `key-lifecycle`."""


class BadStatus(ValueError):
    """The bytes are neither a floor nor a pulse."""


@dataclass(frozen=True, slots=True)
class Floor:
    """A command API says: nobody may vouch for keys who has not applied these.

    `offsets` are cumulative: for each partition the last event known to `api` that took rights away. `api` is a random
    id of one start of a command API, `number` counts its floors from 1.
    """

    api: str
    number: int
    offsets: Offsets


@dataclass(frozen=True, slots=True)
class Pulse:
    """A checker says how far it is: `positions` are the next offsets of all partitions, all before them is applied.

    `incarnation` is a random id of one start of the checker named `checker`, `number` counts its pulses from 1.
    `max_staleness_ms` is its M, for how long it may believe its tables; 0 where it does not say.
    """

    checker: str
    incarnation: str
    number: int
    positions: Offsets
    max_staleness_ms: int = 0


Said = Floor | Pulse


def margin_ms(max_staleness_ms: int) -> int:
    """What is waited beyond M because clocks differ: 3 % of M, 100 ms at least."""
    return max(_LEAST_MARGIN_MS, max_staleness_ms * _MARGIN_PERCENT // 100)


def message_key(said: Said) -> bytes:
    """The message key: who speaks."""
    match said:
        case Floor(api=api):
            return api.encode()
        case Pulse(checker=checker, incarnation=incarnation):
            return f"{checker}/{incarnation}".encode()
        case _:
            assert_never(said)


def encode(said: Said) -> bytes:
    """The value bytes."""
    match said:
        case Floor(api=api, number=number, offsets=offsets):
            document: dict[str, Any] = {"type": "Floor", "api": api, "number": number, "offsets": _by_text(offsets)}
        case Pulse(checker=checker, incarnation=incarnation, number=number, positions=positions):
            document = {"type": "Pulse", "checker": checker, "incarnation": incarnation, "number": number}
            document["positions"] = _by_text(positions)
            if said.max_staleness_ms:
                document["max_staleness_ms"] = said.max_staleness_ms
        case _:
            assert_never(said)
    return canonical(document)


def decode(value: bytes | None) -> Said:
    """A floor or a pulse. Raises BadStatus."""
    try:
        read = _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadStatus(str(error)) from error
    if isinstance(read, _Floor):
        return Floor(read.api, read.number, _by_number(read.offsets))
    return Pulse(read.checker, read.incarnation, read.number, _by_number(read.positions), read.max_staleness_ms)


def _by_text(offsets: Offsets) -> dict[str, int]:
    return {str(partition): offset for partition, offset in sorted(offsets.items())}


def _by_number(offsets: Mapping[str, int]) -> dict[int, int]:
    found = {_PARTITION_NAMES.get(name): offset for name, offset in offsets.items()}
    if None in found:
        raise BadStatus("names a partition that key-lifecycle does not have")
    return {partition: offset for partition, offset in found.items() if partition is not None}


_PARTITION_NAMES: Final = {str(partition): partition for partition in range(PARTITIONS)}
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[A-Za-z0-9_.:-]+\Z")]
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class _Floor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="Floor"):
    api: _Id
    number: _Number
    offsets: dict[str, _Number]


class _Pulse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="Pulse"):
    checker: _Id
    incarnation: _Id
    number: _Number
    positions: dict[str, _Number]
    max_staleness_ms: _Number = 0


_decode = msgspec.json.Decoder(_Floor | _Pulse).decode
