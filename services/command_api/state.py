"""What the command API remembers of each organisation: pure values, a read-only view, and their LMDB tables.

Values are keyed by (org, id). `*_revision` is the revision of the event that made it so.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, Protocol, TypeVar

import msgspec

from schemas.events import Kind, Role
from services.ledger.store import Transaction

_T = TypeVar("_T")
TABLES: Final = ("orgs", "users", "keys", "owned", "key_orgs")
_NEVER: Final = "~"
"""In the place of an expiry time, behind all of them."""


@dataclass(frozen=True, slots=True)
class Org:
    """An organisation that was registered."""

    name: str | None
    registered_revision: int
    keys_enabled: bool
    keys_revision: int
    active_admins: int


@dataclass(frozen=True, slots=True)
class User:
    """A person or a service account."""

    user_id: str
    kind: Kind
    role: Role
    active: bool
    erased: bool
    role_revision: int
    status_revision: int


@dataclass(frozen=True, slots=True)
class Key:
    """A key, whatever became of it."""

    key_id: str
    user_id: str
    name: str
    last4: str
    scopes: tuple[str, ...] | None
    cidrs: tuple[str, ...] | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    revision: int

    def is_active(self, now: str) -> bool:
        """Neither revoked nor expired at this time."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True)
class OwnedKey:
    """What tells whether a key of an owner takes a name and a slot."""

    key_id: str
    name: str
    expires_at: str | None

    def is_active(self, now: str) -> bool:
        """Not expired at this time; revoked keys are not among the owned ones."""
        return self.expires_at is None or self.expires_at > now


@dataclass(frozen=True, slots=True)
class Changes:
    """What an event changes: whole new values. `now` is the event's own time."""

    now: str
    org: Org | None = None
    user: User | None = None
    key: Key | None = None


class View(Protocol):
    """One organisation's state, read-only."""

    def org(self) -> Org | None:
        """The organisation, None before it is registered."""

    def user(self, user_id: str) -> User | None:
        """A user of this organisation."""

    def key(self, key_id: str) -> Key | None:
        """A key of this organisation."""

    def owned(self, user_id: str) -> Iterable[OwnedKey]:
        """The keys of a user that are not revoked; expired ones may be among them."""


class LmdbView:
    """The View of one organisation in one LMDB transaction, and the writing of changes."""

    def __init__(self, txn: Transaction, org_id: str) -> None:
        self._txn, self._org = txn, org_id.encode()

    def org(self) -> Org | None:
        """See View."""
        return _decode(self._txn.get("orgs", self._org), _ORG)

    def user(self, user_id: str) -> User | None:
        """See View."""
        return _decode(self._txn.get("users", self._id(user_id)), _USER)

    def key(self, key_id: str) -> Key | None:
        """See View."""
        return _decode(self._txn.get("keys", self._id(key_id)), _KEY)

    def owned(self, user_id: str) -> Iterator[OwnedKey]:
        """See View."""
        for _, value in self._txn.scan("owned", self._id(user_id) + b"\0"):
            yield _OWNED.decode(value)

    def write(self, changes: Changes) -> None:
        """Store the new values; only inside a writing transaction."""
        if changes.org is not None:
            self._txn.put("orgs", self._org, _ENCODER.encode(changes.org))
        if changes.user is not None:
            self._txn.put("users", self._id(changes.user.user_id), _ENCODER.encode(changes.user))
        if changes.key is not None:
            self._write_key(changes.key, changes.now)

    def _write_key(self, key: Key, now: str) -> None:
        self._txn.put("keys", self._id(key.key_id), _ENCODER.encode(key))
        self._txn.put("key_orgs", key.key_id.encode() + b"\0" + self._org, b"")
        owned = OwnedKey(key.key_id, key.name, key.expires_at)
        # The ledger's time never runs backwards, so a key that has expired once frees its place for good. Those that
        # expire first come first, so that an owner of many keys does not make all of them be looked at.
        for other in list(takewhile(lambda other: not other.is_active(now), self.owned(key.user_id))):
            self._txn.delete("owned", self._owned(key.user_id, other))
        if key.is_active(now):
            self._txn.put("owned", self._owned(key.user_id, owned), _ENCODER.encode(owned))
        else:
            self._txn.delete("owned", self._owned(key.user_id, owned))

    def _id(self, identifier: str) -> bytes:
        return self._org + b"\0" + identifier.encode()

    def _owned(self, user_id: str, key: OwnedKey) -> bytes:
        return self._id(user_id) + f"\0{key.expires_at or _NEVER}\0{key.key_id}".encode()


def orgs_of_key(txn: Transaction, key_id: str) -> list[str]:
    """The organisations that have a key of this id: one, since we make the ids."""
    return [at.split(b"\0", 1)[1].decode() for at, _ in txn.scan("key_orgs", key_id.encode() + b"\0")]


@dataclass(slots=True)
class DictView:
    """The View on plain dicts, for unit tests of the rules."""

    an_org: Org | None = None
    users: dict[str, User] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)

    def org(self) -> Org | None:
        """See View."""
        return self.an_org

    def user(self, user_id: str) -> User | None:
        """See View."""
        return self.users.get(user_id)

    def key(self, key_id: str) -> Key | None:
        """See View."""
        return self.keys.get(key_id)

    def owned(self, user_id: str) -> list[OwnedKey]:
        """See View."""
        kept = [key for key in self.keys.values() if key.user_id == user_id and key.revoked_at is None]
        return [OwnedKey(key.key_id, key.name, key.expires_at) for key in kept]

    def write(self, changes: Changes) -> None:
        """Store the new values."""
        self.an_org = changes.org or self.an_org
        if changes.user is not None:
            self.users[changes.user.user_id] = changes.user
        if changes.key is not None:
            self.keys[changes.key.key_id] = changes.key


_ENCODER: Final = msgspec.msgpack.Encoder()
_ORG: Final = msgspec.msgpack.Decoder(Org)
_USER: Final = msgspec.msgpack.Decoder(User)
_KEY: Final = msgspec.msgpack.Decoder(Key)
_OWNED: Final = msgspec.msgpack.Decoder(OwnedKey)


def _decode(value: bytes | None, decoder: "msgspec.msgpack.Decoder[_T]") -> "_T | None":
    return None if value is None else decoder.decode(value)
