"""The tables `orgs`, `users` and `keys`: what the events of a ledger say, as rows."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, assert_never

import psycopg

from schemas import events
from schemas.events import Envelope
from services.ledger.fold import BrokenTransition, StoreFailure
from services.projector.database import Writer
from services.projector.read_models.rows import GUILTY, Rows


@dataclass(slots=True)
class OrgRow:
    """A row of `orgs`."""

    org_id: str
    name: str | None
    keys_enabled: bool
    registered_at: str


@dataclass(slots=True)
class UserRow:
    """A row of `users`. `revision` is that of the last event about the user."""

    org_id: str
    user_id: str
    kind: str
    role: str
    status: str
    created_at: str
    revision: int


@dataclass(slots=True)
class KeyRow:
    """A row of `keys`. `scopes` and `cidrs` are JSON arrays as text; `revision` is that of the last event about the key."""

    org_id: str
    key_id: str
    user_id: str
    name: str
    last4: str
    scopes: str | None
    cidrs: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    revision: int


_ORG_COLUMNS: Final = {"org_id": "text", "name": "text", "keys_enabled": "boolean", "registered_at": "text"}
_USER_COLUMNS: Final = dict.fromkeys(["org_id", "user_id", "kind", "role", "status", "created_at"], "text") | {
    "revision": "bigint"
}
_KEY_COLUMNS: Final = (
    dict.fromkeys(["org_id", "key_id", "user_id", "name", "last4"], "text")
    | {"scopes": "jsonb", "cidrs": "jsonb"}
    | dict.fromkeys(["created_at", "expires_at", "revoked_at"], "text")
    | {"revision": "bigint"}
)


class LifecycleFold:
    """A Fold whose rows are loaded once per batch and written by `write`. `created` are the keys that were made, if they
    were written: (org, key).
    """

    def __init__(self, connection: Writer) -> None:
        self._connection = connection
        self._orgs = Rows(connection, "orgs", OrgRow, _ORG_COLUMNS, key_size=1)
        self._users = Rows(connection, "users", UserRow, _USER_COLUMNS, key_size=2)
        self._keys = Rows(connection, "keys", KeyRow, _KEY_COLUMNS, key_size=2)
        self.created: set[tuple[str, str]] = set()
        self._all: tuple[Rows[OrgRow] | Rows[UserRow] | Rows[KeyRow], ...] = (self._orgs, self._users, self._keys)

    def load(self, orgs: Iterable[str], users: Iterable[tuple[str, str]], keys: Iterable[tuple[str, str]]) -> None:
        """Fetch what the events of a batch are about, one question per table. What is missed is fetched when needed."""
        self._orgs.load((org,) for org in orgs)
        self._users.load(users)
        self._keys.load(keys)

    def write(self) -> None:
        """Write the rows that changed."""
        for rows in self._all:
            rows.write()

    def forget(self) -> None:
        """Drop all rows, written or not."""
        for rows in self._all:
            rows.forget()

    def evolve(self, envelope: Envelope, offset: int) -> None:
        """See Fold. Raises BrokenTransition, StoreFailure."""
        event = envelope.event
        match event:
            case events.OrgRegistered():
                self._register(envelope, event)
            case events.OrgKeysEnabled() | events.OrgKeysDisabled():
                org = self._org(envelope)
                org.keys_enabled = isinstance(event, events.OrgKeysEnabled)
                self._orgs.put(org)
            case events.UserAdded() | events.UserRoleChanged():
                self._user_event(envelope, event)
            case events.UserDisabled() | events.UserEnabled() | events.PersonErased():
                self._set_status(envelope, event)
            case events.KeyCreated():
                self._create(envelope, event)
            case events.KeyRenamed() | events.KeyRevoked():
                self._change_key(envelope, event)
            case events.LedgerResumed():
                self._org(envelope)
            case _:
                assert_never(event)

    def _register(self, envelope: Envelope, event: events.OrgRegistered) -> None:
        if self._orgs.get(envelope.org) is not None:
            raise BrokenTransition("the organisation is registered twice")
        self._orgs.put(OrgRow(envelope.org, event.name, keys_enabled=False, registered_at=envelope.time))

    def _user_event(self, envelope: Envelope, event: events.UserAdded | events.UserRoleChanged) -> None:
        if isinstance(event, events.UserRoleChanged):
            user = self._user(envelope, event.user_id)
            user.role, user.revision = event.role, envelope.revision
        else:
            self._org(envelope)
            if self._users.get(envelope.org, event.user_id) is not None:
                raise BrokenTransition(f"user {event.user_id} is added twice")
            user = UserRow(
                *(envelope.org, event.user_id, event.kind, event.role, "active", envelope.time, envelope.revision)
            )
        self._users.put(user)

    def _set_status(
        self, envelope: Envelope, event: events.UserDisabled | events.UserEnabled | events.PersonErased
    ) -> None:
        user = self._user(envelope, event.user_id)
        match event:
            case events.UserDisabled():
                user.status = "disabled"
            case events.UserEnabled():
                user.status = "active"
            case events.PersonErased():
                user.status = "erased"
            case _:
                assert_never(event)
        user.revision = envelope.revision
        self._users.put(user)

    def _create(self, envelope: Envelope, event: events.KeyCreated) -> None:
        if self._users.get(envelope.org, event.user_id) is None:
            raise BrokenTransition(f"user {event.user_id} was never added")
        if self._keys.get(envelope.org, event.key_id) is not None:
            raise BrokenTransition(f"key {event.key_id} is created twice")
        self.created.add((envelope.org, event.key_id))
        self._keys.put(
            KeyRow(
                org_id=envelope.org,
                key_id=event.key_id,
                user_id=event.user_id,
                name=event.name,
                last4=event.last4,
                scopes=_json(event.scopes),
                cidrs=_json(event.cidrs),
                created_at=envelope.time,
                expires_at=event.expires_at,
                revoked_at=None,
                revision=envelope.revision,
            )
        )

    def _change_key(self, envelope: Envelope, event: events.KeyRenamed | events.KeyRevoked) -> None:
        key = self._keys.get(envelope.org, event.key_id)
        if key is None:
            raise BrokenTransition(f"key {event.key_id} was never created")
        if key.revoked_at is not None:
            raise BrokenTransition(f"key {event.key_id} is revoked")
        if isinstance(event, events.KeyRenamed):
            key.name = event.name
        else:
            key.revoked_at = envelope.time
        key.revision = envelope.revision
        self._keys.put(key)

    def _org(self, envelope: Envelope) -> OrgRow:
        org = self._orgs.get(envelope.org)
        if org is None:
            raise BrokenTransition("the organisation was never registered")
        return org

    def _user(self, envelope: Envelope, user_id: str) -> UserRow:
        user = self._users.get(envelope.org, user_id)
        if user is None:
            raise BrokenTransition(f"user {user_id} was never added")
        if user.status == "erased":
            raise BrokenTransition(f"user {user_id} was erased")
        return user


class CarefulFold(LifecycleFold):
    """Writes each event by itself, so that one that PostgreSQL refuses halts its organisation and no other."""

    def evolve(self, envelope: Envelope, offset: int) -> None:
        """See Fold. Raises what PostgreSQL says about a value, BrokenTransition and StoreFailure."""
        try:
            with self._connection.transaction():
                super().evolve(envelope, offset)
                self.write()
        except psycopg.Error as error:
            self.forget()
            if isinstance(error, GUILTY):
                raise
            raise StoreFailure(str(error)) from error


def _json(values: tuple[str, ...] | None) -> str | None:
    return None if values is None else json.dumps(values)
