"""The topics: names, partitions, configuration, and the message key and partition of a record."""

from dataclasses import dataclass
from typing import Final

from schemas.times import DAY_MS

PARTITIONS: Final = 12
"""A constant of the ledger, never read from metadata: another number would scatter an organisation's history."""

MAX_VALUE_BYTES: Final = 32 * 1024


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as `services.ledger.preflight` creates and checks it; `config` holds Kafka's own names."""

    name: str
    partitions: int
    config: dict[str, str]


LIFECYCLE: Final = "key-lifecycle"
USAGE: Final = "key-usage"
EXTERNAL_USAGE: Final = "key-usage-external"
CHECKER_SOURCE: Final = "keyledger/auth-checker/"
"""How the source of a checker's uses begins; nobody else may use such a name."""
CHECKER_STATUS: Final = "checker-status"
CHECKPOINTS: Final = "ledger-checkpoints"

_FOR_EVER = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "max.message.bytes": "65536",
    # The limit above counts what is stored: compressed, 64 KiB could become gigabytes in every reader.
    "compression.type": "uncompressed",
}
_FINITE = _FOR_EVER | {"retention.ms": str(400 * DAY_MS)}
# The broker says when it got a use, so that no sender can: a time in the future is judged against that.
_USAGE = _FINITE | {"message.timestamp.type": "LogAppendTime"}
TOPICS: Final = (
    Topic(LIFECYCLE, PARTITIONS, _FOR_EVER),
    Topic(USAGE, PARTITIONS, _USAGE),
    Topic(EXTERNAL_USAGE, PARTITIONS, _USAGE),
    Topic(CHECKER_STATUS, 1, _FINITE | {"retention.ms": "3600000", "segment.ms": "600000"}),
    Topic(CHECKPOINTS, 1, _FOR_EVER),
)


def murmur2(data: bytes) -> int:
    """Kafka's partitioning hash (32 bits, seed 0x9747b28c), as in Austin Appleby's MurmurHash2."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    value = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        block = int.from_bytes(data[at : at + 4], "little") * multiplier & mask
        block = (block ^ block >> 24) * multiplier & mask
        value = value * multiplier & mask ^ block
    if tail := data[whole:]:
        value = (value ^ int.from_bytes(tail, "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return value ^ value >> 15


def partition_of(message_key: str) -> int:
    """The partition of an org id (lifecycle) or a key id (usage): murmur2 of its UTF-8 bytes, modulo 12."""
    return (murmur2(message_key.encode()) & 0x7FFFFFFF) % PARTITIONS
