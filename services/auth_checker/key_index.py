"""The checker's own state, folded from `key-lifecycle`: organisations, users and keys, in three LMDB tables.

`orgs` by org id; `users` by (org, user id); `keys` by key id, a list with one key for each organisation in which that
id was created: in good order one, but an organisation can neither hide nor halt a key of another one.
One row holds all that an answer says of a key, so that a validation decodes a row each of key, owner and organisation.
"""

from typing import Any, Final, assert_never

import msgspec

from schemas import events
from schemas.times import to_ms
from services.ledger.chain import Head
from services.ledger.fold import BrokenTransition
from services.ledger.lmdb_chain import head_of
from services.ledger.store import Transaction

TABLES: Final = ("orgs", "users", "keys")
ACTIVE: Final = "active"
DISABLED: Final = "disabled"
ERASED: Final = "erased"
NOWHERE: Final = " "
"""An org id that no organisation can have."""


class Org(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Whether API keys are switched on."""

    keys_enabled: bool = False


class User(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`status` is `active`, `disabled` or `erased`."""

    kind: str
    role: str
    status: str = ACTIVE


class Key(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`digest` is the raw SHA-256 of the key's whole text, `user_id` its owner; `expires_ms` is `expires_at` once more."""

    digest: bytes
    org_id: str
    user_id: str
    name: str
    scopes: tuple[str, ...] | None = None
    expires_at: str | None = None
    expires_ms: int | None = None
    cidrs: tuple[str, ...] | None = None
    revoked: bool = False


_encode = msgspec.msgpack.Encoder().encode
_org = msgspec.msgpack.Decoder(Org).decode
_user = msgspec.msgpack.Decoder(User).decode
_keys = msgspec.msgpack.Decoder(list[Key]).decode
_NOBODY: Final = _encode([Key(bytes(32), NOWHERE, "nobody, of 22 letters.", "a name")])


class KeyIndex:
    """The tables inside one transaction: reads for `check`, and the Fold that writes them."""

    __slots__ = ("_txn",)

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn

    def head(self, org: str) -> Head:
        """The organisation's head; Head() for one never seen."""
        return head_of(self._txn, org)

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

    def candidates(self, key_id: str) -> list[Key]:
        """The keys of this id, one in each organisation that has it; for an unknown id one whose org is NOWHERE.

        That one is decoded and compared as any other, so that unknown and wrong take the same path and the same time.
        """
        return _keys(self._txn.get("keys", key_id.encode()) or _NOBODY)

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
                self._replace(self._existing(org, key_id), key_id, name=name)
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
        others = self._stored(event.key_id)
        if any(key.org_id == org for key in others):
            raise BrokenTransition(f"key {event.key_id} created twice")
        self._user(org, event.user_id)
        made = Key(
            bytes.fromhex(event.digest),
            org,
            event.user_id,
            event.name,
            event.scopes,
            event.expires_at,
            None if event.expires_at is None else to_ms(event.expires_at),
            event.cidrs,
        )
        self._txn.put("keys", event.key_id.encode(), _encode([*others, made]))

    def _revoke(self, org: str, key_id: str) -> None:
        key = self._existing(org, key_id)
        if key.revoked:
            raise BrokenTransition(f"key {key_id} revoked twice")
        self._replace(key, key_id, revoked=True)

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

    def _stored(self, key_id: str) -> list[Key]:
        value = self._txn.get("keys", key_id.encode())
        return [] if value is None else _keys(value)

    def _existing(self, org: str, key_id: str) -> Key:
        for key in self._stored(key_id):
            if key.org_id == org:
                return key
        raise BrokenTransition(f"key {key_id} does not exist")

    def _replace(self, old: Key, key_id: str, **changed: Any) -> None:
        new = msgspec.structs.replace(old, **changed)
        rows = [new if key.org_id == old.org_id else key for key in self._stored(key_id)]
        self._txn.put("keys", key_id.encode(), _encode(rows))

    def _put_org(self, org: str, value: Org) -> None:
        self._txn.put("orgs", org.encode(), _encode(value))

    def _put_user(self, org: str, user_id: str, value: User) -> None:
        self._txn.put("users", _place(org, user_id), _encode(value))


def _place(org: str, own_id: str) -> bytes:
    # No id holds a zero byte, so two places are equal only when both parts are.
    return f"{org}\0{own_id}".encode()
