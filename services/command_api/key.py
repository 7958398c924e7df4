"""The rules of keys: who may, what follows, what the events change. Pure.

Active means neither revoked nor expired at the command's time; expired keys free their name and their slot.
"""

from dataclasses import replace
from ipaddress import ip_network
from typing import assert_never

from schemas.events import Envelope, KeyCreated, KeyRenamed, KeyRevoked, LedgerEvent, Reason
from services.command_api.commands import Caller, CreateKey, KeyCommand, RenameKey, RevokeKey
from services.command_api.errors import (
    CallerDisabled,
    ExpiryInPast,
    Forbidden,
    KeyIdTaken,
    KeyInactive,
    KeyLimit,
    NameTaken,
    NetworkExceedsCaller,
    NotFound,
    OrgKeysAreDisabled,
    OwnerDisabled,
    ScopeExceedsCaller,
)
from services.command_api.organisation import acting, existing
from services.command_api.state import Changes, Key, Org, User, View
from services.ledger.fold import BrokenTransition


def decide(
    view: View, org_id: str, caller: Caller, command: KeyCommand, *, now: str, most_keys: int
) -> LedgerEvent | None:
    """The event that a command about a key makes, or None when it is so already. Raises Refused."""
    actor = acting(view, org_id, caller)
    org = existing(view)
    match command:
        case CreateKey():
            return _create(view, org, caller, actor, command, now, most_keys)
        case RenameKey():
            return _rename(view, actor, command, now)
        case RevokeKey():
            return _revoke(view, caller, actor, command)
        case _:
            assert_never(command)


def _create(
    view: View, org: Org, caller: Caller, actor: User | None, command: CreateKey, now: str, most_keys: int
) -> KeyCreated:
    owner = _owner(view, actor, command)
    if caller.key_id is not None:
        _stay_within(view.key(caller.key_id), caller, command)
    if command.expires_at is not None and command.expires_at <= now:
        raise ExpiryInPast
    if not org.keys_enabled:
        raise OrgKeysAreDisabled
    if not owner.active:
        raise OwnerDisabled
    if view.key(command.key_id) is not None:
        raise KeyIdTaken
    active = [key for key in view.owned(owner.user_id) if key.is_active(now)]
    if any(key.name == command.name for key in active):
        raise NameTaken
    if len(active) >= most_keys:
        raise KeyLimit
    return KeyCreated(
        key_id=command.key_id,
        user_id=owner.user_id,
        name=command.name,
        digest=command.digest,
        last4=command.last4,
        expires_at=command.expires_at,
        scopes=command.scopes,
        cidrs=command.cidrs,
    )


def _stay_within(own: Key | None, caller: Caller, command: CreateKey) -> None:
    """A key makes no key with scopes or networks that it lacks, and none once it is revoked."""
    # Unknown here means that this state is behind; the event will then not extend the head, and we decide again.
    if own is not None and own.revoked_at is not None:
        raise CallerDisabled
    if command.scopes is None or not set(command.scopes) <= set(caller.scopes or ()):
        raise ScopeExceedsCaller
    if (
        own is not None
        and own.cidrs is not None
        and (command.cidrs is None or not all(_is_inside(one, own.cidrs) for one in command.cidrs))
    ):
        raise NetworkExceedsCaller


def _is_inside(network: str, allowed: tuple[str, ...]) -> bool:
    wanted = ip_network(network)
    return any(
        wanted.subnet_of(outer)  # type: ignore[arg-type]  # Of one version: compared just before.
        for outer in map(ip_network, allowed)
        if outer.version == wanted.version
    )


def _owner(view: View, actor: User | None, command: CreateKey) -> User:
    """Users make keys for themselves, admins also for service accounts; an auditor only reads."""
    if actor is None or actor.role == "auditor":
        raise Forbidden
    if command.user_id is None or command.user_id == actor.user_id:
        return actor
    if actor.role != "admin":
        raise Forbidden
    owner = view.user(command.user_id)
    if owner is None:
        raise NotFound
    if owner.kind != "service_account":
        raise Forbidden
    return owner


def _rename(view: View, actor: User | None, command: RenameKey, now: str) -> KeyRenamed | None:
    key = _key(view, command.key_id)
    if actor is None or (actor.role != "admin" and actor.user_id != key.user_id):
        raise Forbidden
    if not key.is_active(now):
        raise KeyInactive
    if key.name == command.name:
        return None
    if any(other.name == command.name and other.is_active(now) for other in view.owned(key.user_id)):
        raise NameTaken
    return KeyRenamed(key.key_id, command.name)


def _revoke(view: View, caller: Caller, actor: User | None, command: RevokeKey) -> KeyRevoked | None:
    key = _key(view, command.key_id)
    # An operator acts from outside; the bootstrap, which may nothing here, was turned away before a key existed.
    if caller.bootstrap or (actor is not None and actor.role != "admin" and actor.user_id != key.user_id):
        raise Forbidden
    if key.revoked_at is not None:
        return None  # A second revocation is the first one again: same answer, no new fact.
    return KeyRevoked(key.key_id, command.reason or _reason(actor, key), command.comment)


def _reason(actor: User | None, key: Key) -> Reason:
    if actor is None:
        return "operator"
    return "user_request" if actor.user_id == key.user_id else "admin"


def _key(view: View, key_id: str) -> Key:
    key = view.key(key_id)
    if key is None:
        raise NotFound
    return key


def evolve(view: View, envelope: Envelope, event: KeyCreated | KeyRenamed | KeyRevoked) -> Changes:
    """What the event changes. Raises BrokenTransition when the state forbids it."""
    now, revision = envelope.time, envelope.revision
    key = view.key(event.key_id)
    if isinstance(event, KeyCreated):
        if key is not None or view.user(event.user_id) is None:
            raise BrokenTransition(f"key {event.key_id} exists already, or its owner does not")
        return Changes(now, key=_created(event, now, revision))
    if key is None or key.revoked_at is not None:
        raise BrokenTransition(f"key {event.key_id} does not exist, or is revoked")
    match event:
        case KeyRenamed(name=name):
            return Changes(now, key=replace(key, name=name, revision=revision))
        case KeyRevoked():
            return Changes(now, key=replace(key, revoked_at=now, revision=revision))
        case _:
            assert_never(event)


def _created(event: KeyCreated, now: str, revision: int) -> Key:
    return Key(
        key_id=event.key_id,
        user_id=event.user_id,
        name=event.name,
        last4=event.last4,
        scopes=event.scopes,
        cidrs=event.cidrs,
        created_at=now,
        expires_at=event.expires_at,
        revoked_at=None,
        revision=revision,
    )
