"""The checker's own state, folded from `key-lifecycle`: organisations, users and keys, in four LMDB tables.

`orgs` by org id; `users` by (org, user id); `keys` by (org, key id); `key_orgs` gives the organisations in which a
key id exists, so that one organisation can neither hide nor halt a key of another one.
"""

from typing import Final, assert_never

import msgspec

from schemas import events
from services.ledger.chain import Head
from services.ledger.fold import BrokenTransition
from services.ledger.lmdb_chain import LmdbChain
from services.ledger.store import Transaction

TABLES: Final = ("orgs", "users", "keys", "key_orgs")
ACTIVE: Final = "active"
DISABLED: Final = "disabled"
ERASED: Final = "erased"


class Org(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Whether API keys are switched on."""

    keys_enabled: bool = False


class User(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`status` is `active`, `disabled` or `erased`."""

    kind: str
    role: str
    status: str = ACTIVE


class Key(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`digest` is the raw SHA-256 of the key's whole text, `user_id` its owner."""

    digest: bytes
    user_id: str
    name: str
    scopes: tuple[str, ...] | None
    expires_at: str | None
    cidrs: tuple[str, ...] | None
    revoked: bool = False


_encode = msgspec.msgpack.encode
_org = msgspec.msgpack.Decoder(Org).decode
_user = msgspec.msgpack.Decoder(User).decode
_key = msgspec.msgpack.Decoder(Key).decode


class KeyIndex:
    """The tables inside one transaction: reads for `handler`, and the Fold that writes them."""

    def __init__(self, txn: Transaction) -> None:
        self._txn, self._chain = txn, LmdbChain(txn)

    def head(self, org: str) -> Head:
        """The organisation's head; Head() for one never seen."""
        return self._chain.head(org)

    def is_halted(self, org: str) -> bool:
        """Whether nothing that is said of this organisation may be believed."""
        return self._txn.get("halts", org.encode()) is not None

    def org(self, org: str) -> Org | None:
        """The organisation."""
        value = self._txn.get("orgs", org.encode())
        return None if value is None else _org(value)

    def user(self, org: str, user_id: str) -> User | None:
        """A user of the organisation."""
        value = self._txn.get("users", _place(org, user_id))
        return None if value is None else _user(value)

    def orgs_of(self, key_id: str) -> list[str]:
        """The organisations in which a key of this id was created; in good order there is at most one."""
        value = self._txn.get("key_orgs", key_id.encode())
        return [] if value is None else value.decode().split("\0")

    def key(self, org: str, key_id: str) -> Key | None:
        """A key of the organisation."""
        value = self._txn.get("keys", _place(org, key_id))
        return None if value is None else _key(value)

    def evolve(self, envelope: events.Envelope, offset: int) -> None:
        """See Fold. Raises BrokenTransition."""
        org, event = envelope.org, envelope.event
        if isinstance(event, events.OrgRegistered):
            self._register(org)
            return
        if self.org(org) is None:
            raise BrokenTransition(f"{type(event).__name__} before OrgRegistered")
        match event:
            case events.LedgerResumed():
                pass  # It speaks of records, not of what this index holds.
            case events.OrgKeysEnabled():
                self._put_org(org, Org(keys_enabled=True))
            case events.OrgKeysDisabled():
                self._put_org(org, Org(keys_enabled=False))
            case events.KeyCreated():
                self._create(org, event)
            case events.KeyRenamed(key_id=key_id, name=name):
                self._put_key(org, key_id, msgspec.structs.replace(self._existing(org, key_id), name=name))
            case events.KeyRevoked(key_id=key_id):
                self._revoke(org, key_id)
            case events.UserAdded():
                self._add(org, event)
            case _:
                self._change(org, event)

    def _register(self, org: str) -> None:
        if self.org(org) is not None:
            raise BrokenTransition("OrgRegistered twice")
        self._put_org(org, Org())

    def _create(self, org: str, event: events.KeyCreated) -> None:
        if self.key(org, event.key_id) is not None:
            raise BrokenTransition(f"key {event.key_id} created twice")
        self._user(org, event.user_id)
        digest = bytes.fromhex(event.digest)
        self._put_key(
            org, event.key_id, Key(digest, event.user_id, event.name, event.scopes, event.expires_at, event.cidrs)
        )
        orgs = [*self.orgs_of(event.key_id), org]
        self._txn.put("key_orgs", event.key_id.encode(), "\0".join(orgs).encode())

    def _revoke(self, org: str, key_id: str) -> None:
        key = self._existing(org, key_id)
        if key.revoked:
            raise BrokenTransition(f"key {key_id} revoked twice")
        self._put_key(org, key_id, msgspec.structs.replace(key, revoked=True))

    def _add(self, org: str, event: events.UserAdded) -> None:
        if self.user(org, event.user_id) is not None:
            raise BrokenTransition(f"user {event.user_id} added twice")
        self._put_user(org, event.user_id, User(event.kind, event.role))

    def _change(
        self,
        org: str,
        event: events.UserRoleChanged | events.UserDisabled | events.UserEnabled | events.PersonErased,
    ) -> None:
        user = self._user(org, event.user_id)
        if user.status == ERASED:
            raise BrokenTransition(f"{type(event).__name__} of erased user {event.user_id}")
        match event:
            case events.UserRoleChanged(role=role):
                user = msgspec.structs.replace(user, role=role)
            case events.UserDisabled():
                user = msgspec.structs.replace(user, status=DISABLED)
            case events.UserEnabled():
                user = msgspec.structs.replace(user, status=ACTIVE)
            case events.PersonErased():
                user = msgspec.structs.replace(user, status=ERASED)
            case _:
                assert_never(event)
        self._put_user(org, event.user_id, user)

    def _user(self, org: str, user_id: str) -> User:
        user = self.user(org, user_id)
        if user is None:
            raise BrokenTransition(f"user {user_id} does not exist")
        return user

    def _existing(self, org: str, key_id: str) -> Key:
        key = self.key(org, key_id)
        if key is None:
            raise BrokenTransition(f"key {key_id} does not exist")
        return key

    def _put_org(self, org: str, value: Org) -> None:
        self._txn.put("orgs", org.encode(), _encode(value))

    def _put_user(self, org: str, user_id: str, value: User) -> None:
        self._txn.put("users", _place(org, user_id), _encode(value))

    def _put_key(self, org: str, key_id: str, value: Key) -> None:
        self._txn.put("keys", _place(org, key_id), _encode(value))


def _place(org: str, own_id: str) -> bytes:
    # No id holds a zero byte, so two places are equal only when both parts are.
    return f"{org}\0{own_id}".encode()
