"""Which keys an organisation had at a moment, and whether they were good: a fold of its events up to then."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, assert_never

from schemas import events
from schemas.events import Envelope
from schemas.validation import Code

_UserEvent = events.UserAdded | events.UserRoleChanged | events.UserDisabled | events.UserEnabled | events.PersonErased
_KeyEvent = events.KeyCreated | events.KeyRenamed | events.KeyRevoked
_STATUS: Final[dict[type[_UserEvent], str]] = {
    events.UserDisabled: "disabled",
    events.UserEnabled: "active",
    events.PersonErased: "erased",
}


@dataclass(frozen=True, slots=True)
class KeyThen:
    """A key at a moment. `code` is what a validation without address and scopes would have said (with `cidrs`: from one
    of them); times are RFC 3339.
    """

    key_id: str
    user_id: str
    kind: str
    role: str
    name: str
    last4: str
    scopes: tuple[str, ...] | None
    cidrs: tuple[str, ...] | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    code: str

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def keys_as_of(ledger: Iterable[Envelope], at: str) -> list[KeyThen]:
    """All keys that had been created by then, oldest first; `at` is RFC 3339 in UTC with milliseconds, as in events."""
    then = _Then()
    for envelope in ledger:
        if envelope.time > at:  # A ledger's times never run backwards.
            break
        then.evolve(envelope)
    return then.keys_at(at)


@dataclass(frozen=True, slots=True)
class _User:
    added: events.UserAdded
    role: events.Role
    status: str = "active"


@dataclass(frozen=True, slots=True)
class _Key:
    created: events.KeyCreated
    created_at: str
    name: str
    revoked_at: str | None = None


class _Then:
    def __init__(self) -> None:
        self._enabled = False
        self._users: dict[str, _User] = {}
        self._keys: dict[str, _Key] = {}

    def evolve(self, envelope: Envelope) -> None:
        event = envelope.event
        match event:
            case events.OrgRegistered() | events.LedgerResumed():
                pass
            case events.OrgKeysEnabled() | events.OrgKeysDisabled():
                self._enabled = isinstance(event, events.OrgKeysEnabled)
            case events.KeyCreated() | events.KeyRenamed() | events.KeyRevoked():
                self._keys[event.key_id] = self._key_after(event, envelope.time)
            case _:
                self._users[event.user_id] = self._user_after(event)

    def _user_after(self, event: _UserEvent) -> _User:
        if isinstance(event, events.UserAdded):
            return _User(event, event.role)
        if isinstance(event, events.UserRoleChanged):
            return replace(self._users[event.user_id], role=event.role)
        return replace(self._users[event.user_id], status=_STATUS[type(event)])

    def _key_after(self, event: _KeyEvent, time: str) -> _Key:
        match event:
            case events.KeyCreated():
                return _Key(event, time, event.name)
            case events.KeyRenamed(key_id, name):
                return replace(self._keys[key_id], name=name)
            case events.KeyRevoked(key_id):
                return replace(self._keys[key_id], revoked_at=time)
            case _:
                assert_never(event)

    def keys_at(self, at: str) -> list[KeyThen]:
        return [self._key_at(key, self._users[key.created.user_id], at) for key in self._keys.values()]

    def _key_at(self, key: _Key, owner: _User, at: str) -> KeyThen:
        made, user = key.created, owner.added
        facts = (key.name, made.last4, made.scopes, made.cidrs, key.created_at, made.expires_at, key.revoked_at)
        return KeyThen(made.key_id, user.user_id, user.kind, owner.role, *facts, self._code(key, owner, at).value)

    def _code(self, key: _Key, owner: _User, at: str) -> Code:
        """The first that holds, in the order of the auth checker."""
        if key.revoked_at is not None:
            return Code.REVOKED
        if key.created.expires_at is not None and key.created.expires_at <= at:
            return Code.EXPIRED
        if not self._enabled:
            return Code.ORG_KEYS_DISABLED
        return Code.VALID if owner.status == "active" else Code.OWNER_DISABLED
