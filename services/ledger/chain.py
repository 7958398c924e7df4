"""The chain rule: what each record of `key-lifecycle` is (DESIGN section 1). Pure: no log, no store.

An event belongs to its organisation's ledger if and only if it extends the head:
`revision == head.revision + 1` and `parent == head.hash`. That depends only on the frozen envelope, never on the
event's type or data, so that old and new software agree on it for ever.
"""

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from schemas.topics import MAX_VALUE_BYTES, partition_of
from services.ledger.records import Record
from services.ledger.seal import LedgerKeys

ROOT: Final = "0" * 64
"""The parent of a ledger's first event."""
REMEMBERED: Final = 1000
"""The hashes of this many applied revisions are kept, to tell a lost race from a fork."""
_ORG: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_LARGEST: Final = 2**53 - 1
_partition_of: Final = lru_cache(8192)(partition_of)


class Head(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last applied event of an organisation: its revision, its hash (hex) and its time (RFC 3339 text)."""

    revision: int = 0
    hash: str = ROOT
    time: str = ""


class Link(msgspec.Struct, frozen=True, gc=False):
    """The frozen envelope of a sealed record. `time` is only repeated from the document, never judged here."""

    org: str
    revision: int
    parent: str
    hash: str
    time: str


class Applied(msgspec.Struct, frozen=True, gc=False):
    """It extends the head: the head moves."""

    link: Link


class Void(msgspec.Struct, frozen=True, gc=False):
    """A lost race or a copy: kept, counted, shown to auditors, without effect."""

    link: Link


class Foreign(msgspec.Struct, frozen=True, gc=False):
    """Not an envelope of ours: counted and alarmed, nothing else. `why` is a short stable word."""

    why: str


class Broken(msgspec.Struct, frozen=True, gc=False):
    """Sealed, but neither applied nor void: proof of a loss (`gap`) or a `fork`. The organisation halts."""

    link: Link
    why: str


Sorted = Applied | Void | Foreign | Broken
HashAt = Callable[[str, int], str | None]
"""(org, revision) -> the hash of our applied event of that revision; None when it is not remembered any more."""


def read_link(record: Record, keys: LedgerKeys) -> Link | Foreign:  # One for each reason.
    """Judge a record by itself: is it a sealed envelope in its own place?"""
    value = record.value
    if value is None or len(value) > MAX_VALUE_BYTES:
        return Foreign("size")
    if not keys.is_sealed(record):
        return Foreign("seal")
    document = _strict_document(value)
    if document is None:
        return Foreign("envelope")
    org, revision, parent = document.get("org"), document.get("revision"), document.get("parent")
    if not (type(org) is str and _ORG.fullmatch(org) and type(revision) is int and revision >= 1):
        return Foreign("envelope")
    if not (type(parent) is str and _HASH.fullmatch(parent)):
        return Foreign("envelope")
    if record.key != org.encode() or record.partition != _partition_of(org):
        return Foreign("place")
    return Link(org, revision, parent, hashlib.sha256(value).hexdigest(), str(document.get("time", "")))


def sort(link: Link, head: Head, hash_at: HashAt) -> Applied | Void | Broken:
    """Judge a sealed envelope against its organisation's head."""
    if link.revision == head.revision + 1:
        return Applied(link) if link.parent == head.hash else Broken(link, "fork")
    if link.revision > head.revision:
        return Broken(link, "gap")
    before = ROOT if link.revision == 1 else hash_at(link.org, link.revision - 1)
    # A parent so old that it is not remembered cannot be told from a copy, and a copy harms nobody.
    return Void(link) if before is None or before == link.parent else Broken(link, "fork")


def _strict_document(value: bytes) -> dict[str, Any] | None:
    """The JSON object these bytes are, if they are its canonical form; else None."""
    try:
        document = _DECODER.decode(value)
        same = msgspec.json.encode(document, order="sorted") == value
    except (msgspec.DecodeError, UnicodeError, ValueError, RecursionError):
        return None
    return document if same and type(document) is dict and _all_in_range(document) else None


def _no_floats(literal: str) -> Any:
    raise ValueError(literal)


_DECODER: Final = msgspec.json.Decoder(float_hook=_no_floats)


def _all_in_range(document: dict[str, Any]) -> bool:
    """Whether all whole numbers in it are below 2^53. No recursion: how deep it may go must be the same everywhere."""
    nodes: list[Any] = [document]
    while nodes:
        node = nodes.pop()
        for value in node.values() if type(node) is dict else node:
            kind = type(value)
            if kind is str:  # As almost all are.
                continue
            if kind is dict or kind is list:
                nodes.append(value)
            elif kind is int and not -_LARGEST <= value <= _LARGEST:
                return False
    return True
