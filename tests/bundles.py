"""Bundles made without a database: ledgers of random events, signed and laid out as `services.auditor.export` does."""

import json
import random
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.auditor import checkpoints
from services.auditor.checkpoints import Signed
from services.auditor.export import complete
from services.auditor.signing_key import SigningKey
from services.auditor.verify_bundle import ROOT, Head

AT = "2026-11-24T10:00:00.000Z"


def signing_key(origin: str = "keyledger/test") -> SigningKey:
    return SigningKey(origin, [Ed25519PrivateKey.generate()])


def ledger(org: str, length: int, dice: random.Random) -> list[bytes]:
    """The exact bytes of a chain of events."""
    values, parent = [], ROOT
    for revision in range(1, length + 1):
        event = {"data": {"name": f"ключ {dice.random()}"}, "org": org, "parent": parent, "revision": revision}
        values.append(json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
        parent = sha256(values[-1]).hexdigest()
    return values


def head(values: list[bytes]) -> Head:
    return Head(len(values), sha256(values[-1]).hexdigest() if values else ROOT)


@dataclass
class Forge:
    """The ledgers of an installation, and bundles of them; `write` lays out what it is given, true or not."""

    folder: Path
    dice: random.Random
    key: SigningKey = field(default_factory=signing_key)
    ledgers: dict[str, list[bytes]] = field(default_factory=dict)

    def grow(self, orgs: int, most_records: int) -> None:
        for number in range(orgs):
            org = f"org-{number}"
            self.ledgers[org] = ledger(org, self.dice.randint(1, most_records), self.dice)

    def sign(self, time: str = AT, **other: list[bytes]) -> Signed:
        """A checkpoint of the ledgers, some of them replaced."""
        found = {**self.ledgers, **{org.replace("_", "-"): values for org, values in other.items()}}
        return checkpoints.sign(self.key, {org: head(values) for org, values in found.items()}, time)

    def public_keys(self) -> Path:
        path = self.folder / "keys.pub"
        path.write_text(self.key.public_keys())
        return path

    def write(self, name: str, signed: Signed, ledgers: dict[str, list[bytes]], is_all: bool = True) -> Path:
        """A bundle whose manifest fits what is in it."""
        bundle = self.folder / name
        for part in ("records", "headers"):
            (bundle / part).mkdir(parents=True)
        for org, values in ledgers.items():
            (bundle / "records" / f"{org}.jsonl").write_bytes(b"".join(value + b"\n" for value in values))
            (bundle / "headers" / f"{org}.jsonl").write_bytes(b'[["kid","YQ=="]]\n' * len(values))
        complete(bundle, signed, ledgers, is_all, self.key.fingerprint)
        return bundle

    def honest(self, name: str = "bundle") -> Path:
        return self.write(name, self.sign(), self.ledgers)
