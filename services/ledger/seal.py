"""The seal of a record: two headers, `kid` and `mac` = HMAC-SHA-256(ledger key, value bytes) in hex.

Only who holds a ledger key writes history. The keys live in one JSON file, `{"current": kid, "keys": {kid: hex}}`;
readers accept all of them, writers use the current one, so a key is rotated by adding one, waiting, and switching.
"""

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.ledger.key_file import write_once
from services.ledger.records import Record

KEY_BYTES: Final = 32
Headers = tuple[tuple[str, bytes | None], ...]


class BadKeyFile(Exception):
    """The ledger-keys file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class LedgerKeys:
    """The ledger keys by `kid`, and the one that seals."""

    current: str
    keys: dict[str, bytes]

    def __repr__(self) -> str:
        """Name the kids only: a key must not reach a log."""
        return f"LedgerKeys(current={self.current!r}, kids={sorted(self.keys)})"

    def seal(self, value: bytes) -> Headers:
        """The two headers that make a value part of the ledger."""
        mac = hmac.digest(self.keys[self.current], value, hashlib.sha256).hex()
        return (("kid", self.current.encode()), ("mac", mac.encode()))

    def is_sealed(self, record: Record) -> bool:
        """Whether the record bears a mac made with one of our keys."""
        kid, mac = record.header("kid"), record.header("mac")
        if kid is None or mac is None or record.value is None:
            return False
        key = self.keys.get(kid.decode("ascii", "replace"))
        if key is None:
            return False
        return hmac.compare_digest(hmac.digest(key, record.value, hashlib.sha256).hex().encode(), mac)


def new_keys() -> LedgerKeys:
    """One fresh random key."""
    kid = secrets.token_hex(4)
    return LedgerKeys(current=kid, keys={kid: secrets.token_bytes(KEY_BYTES)})


def load_or_make(path: Path) -> LedgerKeys:
    """Read the file; make it with one fresh key, mode 0600, when there is none. Several processes may call it at once.

    Raises BadKeyFile.
    """
    if not path.exists():
        fresh = new_keys()
        keys_in_hex = {kid: key.hex() for kid, key in fresh.keys.items()}
        write_once(path, {"current": fresh.current, "keys": keys_in_hex})
    try:
        document = json.loads(path.read_text())
        keys = {str(kid): bytes.fromhex(text) for kid, text in document["keys"].items()}
        loaded = LedgerKeys(current=str(document["current"]), keys=keys)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadKeyFile(f"{path} is no ledger-keys file: {error}") from error
    if loaded.current not in keys or any(len(key) < KEY_BYTES for key in keys.values()):
        raise BadKeyFile(f"{path}: `current` must name a key, and every key needs {KEY_BYTES} bytes or more")
    return loaded
