"""The Ed25519 keys that sign tokens: a file of the console's own, published as a JWKS (RFC 7517)."""

import json
import secrets
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas import tokens
from schemas.tokens import Claims
from services.ledger.key_file import write_once


class BadKeyFile(Exception):
    """The file of signing keys cannot be read; the message is one clear sentence."""


class SigningKeys:
    """The last key of the file signs, all are published: to rotate, append one, and drop the old one five minutes later."""

    def __init__(self, keys: dict[str, Ed25519PrivateKey]) -> None:
        self._keys = keys
        self._kid = list(keys)[-1]

    def sign(self, claims: Claims) -> str:
        """Make a token. Raises ValueError when it would live longer than five minutes."""
        return tokens.sign(claims, self._keys[self._kid], self._kid)

    def jwks(self) -> dict[str, Any]:
        """What the others check tokens with."""
        return {"keys": [tokens.jwk_of(key.public_key(), kid) for kid, key in self._keys.items()]}


def open_signing_keys(state_dir: Path) -> SigningKeys:
    """Read `signing-keys.json` (mode 0600) in this folder, made at the first start. Raises BadKeyFile."""
    path = state_dir / "signing-keys.json"
    if not path.exists():
        seed = Ed25519PrivateKey.generate().private_bytes_raw().hex()
        write_once(path, {"keys": [{"kid": secrets.token_hex(8), "seed": seed}]})
    try:
        entries = json.loads(path.read_text())["keys"]
        keys = {str(one["kid"]): Ed25519PrivateKey.from_private_bytes(bytes.fromhex(one["seed"])) for one in entries}
    except (ValueError, KeyError, TypeError) as error:
        raise BadKeyFile(f"The signing keys in {path} cannot be read: {type(error).__name__}.") from error
    if not keys:
        raise BadKeyFile(f"There is no signing key in {path}.")
    return SigningKeys(keys)
