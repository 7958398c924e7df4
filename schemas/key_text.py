"""The text of a key: 75 characters with the default prefix, safe to double-click and to grep for.

`kl_<22>_<43><6>`: the key id is a UUIDv7 in base62, the secret 256 random bits in base62, the checksum the CRC-32
(zlib's) of all the ASCII before it in base62; every part is zero-padded on the left. A scanner can tell a real key
from a look-alike without asking anybody.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import Final
from uuid import UUID

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH, SECRET_LENGTH, CHECKSUM_LENGTH = 22, 43, 6
DEFAULT_PREFIX: Final = "kl"
_PAIRS: Final = [first + second for first in ALPHABET for second in ALPHABET]
_PREFIX = re.compile(r"[A-Za-z0-9]{1,16}")
_TEXT = re.compile(r"([A-Za-z0-9]{1,16})_([0-9A-Za-z]{22})_([0-9A-Za-z]{49})")


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A well-formed key text: its public id, and the SHA-256 (hex) of the whole text."""

    key_id: str
    digest: str


def base62(number: int, length: int) -> str:
    """Write a number in base62, zero-padded to `length`. Raises ValueError when it does not fit."""
    digits = []
    while number:
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    if len(digits) > length:
        raise ValueError(f"the number needs more than {length} base62 digits")
    return "".join(reversed(digits)).rjust(length, ALPHABET[0])


def id_text(uuid: UUID) -> str:
    """The 22 characters under which a UUID is known everywhere."""
    return base62(uuid.int, ID_LENGTH)


def compose(key_id: str, secret: bytes, prefix: str = DEFAULT_PREFIX) -> str:
    """Make the full text of a key from its id and 32 random bytes. Raises ValueError for other lengths."""
    if len(secret) != 32 or len(key_id) != ID_LENGTH or not _PREFIX.fullmatch(prefix):
        raise ValueError("a key is made of a prefix of letters and digits, an id of 22 characters and 32 random bytes")
    body = f"{prefix}_{key_id}_{base62(int.from_bytes(secret), SECRET_LENGTH)}"
    return body + _checksum(body)


def parse(text: str, prefix: str = DEFAULT_PREFIX) -> ParsedKey | None:
    """Read a key text; None when its shape, prefix or checksum is wrong. Costs no look-up."""
    found = split(text, prefix)
    return None if found is None else ParsedKey(key_id=found[0], digest=found[1].hex())


def split(text: str, prefix: str = DEFAULT_PREFIX) -> tuple[str, bytes] | None:
    """`parse` for the hot path: the key id and the raw digest."""
    match = _TEXT.fullmatch(text)
    if match is None or match[1] != prefix or _checksum(text[:-CHECKSUM_LENGTH]) != text[-CHECKSUM_LENGTH:]:
        return None
    return match[2], hashlib.sha256(text.encode()).digest()


def digest(text: str) -> str:
    """SHA-256 (hex) of the whole text. Fast on purpose: 256 random bits cannot be guessed, a slow hash only serves an attacker."""
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(body: str) -> str:
    # The same as base62(…, CHECKSUM_LENGTH), two digits at a time: it is worked out for every key that is asked about.
    rest, low = divmod(zlib.crc32(body.encode("ascii")), len(_PAIRS))
    return _PAIRS[rest // len(_PAIRS)] + _PAIRS[rest % len(_PAIRS)] + _PAIRS[low]
