"""The notary's keys: Ed25519 seeds in a JSON file of mode 0600, `{"origin": name, "seeds": [hex, …]}`; the last one signs.

To rotate, append a seed and hand out the new list of public keys; notes that the old one signed verify on. Formats of
notes and public keys: C2SP signed-note.
"""

import base64
import hashlib
import json
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.auditor.verify_bundle import ED25519, key_hash
from services.ledger.key_file import write_once


class BadKeyFile(Exception):
    """The file of the notary's keys cannot be used; the message says why."""


class SigningKey:
    """Signs in the name of an installation: `origin` is what its checkpoints begin with."""

    def __init__(self, origin: str, keys: list[Ed25519PrivateKey]) -> None:
        self.origin = origin
        self._keys = keys

    def __repr__(self) -> str:
        """Without the keys."""
        return f"SigningKey({self.origin!r})"

    def sign(self, text: str) -> bytes:
        """A signed note of a text, which ends with a newline."""
        key = self._keys[-1]
        signature = key_hash(self.origin, key.public_key().public_bytes_raw()) + key.sign(text.encode())
        return f"{text}\n— {self.origin} {base64.b64encode(signature).decode()}\n".encode()

    def public_keys(self) -> str:
        """What others verify with: each key in a line, the old ones included."""
        publics = [key.public_key().public_bytes_raw() for key in self._keys]
        return "".join(
            f"{self.origin}+{key_hash(self.origin, public).hex()}+{base64.b64encode(ED25519 + public).decode()}\n"
            for public in publics
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the public key that signs."""
        return hashlib.sha256(self._keys[-1].public_key().public_bytes_raw()).hexdigest()


def open_signing_key(path: Path) -> SigningKey:
    """Read the file, made with a fresh key when there is none. Raises BadKeyFile, and OSError."""
    if not path.exists():
        seed = Ed25519PrivateKey.generate().private_bytes_raw().hex()
        write_once(path, {"origin": f"keyledger/{secrets.token_hex(8)}", "seeds": [seed]})
    if path.stat().st_mode & 0o077:
        raise BadKeyFile(f"{path} can be read by others: chmod 600 it, and rotate the key if anybody may have")
    try:
        document = json.loads(path.read_text())
        keys = [Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)) for seed in document["seeds"]]
        origin = str(document["origin"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadKeyFile(f"{path} is no file of signing keys: {type(error).__name__}") from error
    if not keys or not origin or any(character.isspace() or character == "+" for character in origin):
        raise BadKeyFile(f"{path} needs a seed, and an origin without spaces and plus signs")
    return SigningKey(origin, keys)
