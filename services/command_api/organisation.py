"""The rules of an organisation and its users: who may, what follows, what the events change. Pure."""

from dataclasses import replace
from typing import assert_never

from schemas.events import (
    Envelope,
    LedgerEvent,
    LedgerResumed,
    OrgKeysDisabled,
    OrgKeysEnabled,
    OrgRegistered,
    PersonErased,
    UserAdded,
    UserDisabled,
    UserEnabled,
    UserRoleChanged,
)
from schemas.validation import KEYS_WRITE, PLATFORM
from services.command_api.commands import (
    AddUser,
    Caller,
    ChangeRole,
    ErasePerson,
    OrgCommand,
    RegisterOrg,
    ResumeLedger,
    SwitchKeys,
    SwitchUser,
    UserCommand,
)
from services.command_api.errors import (
    CallerDisabled,
    Forbidden,
    InsufficientScope,
    LastAdmin,
    NotFound,
    NotHalted,
    OrgExists,
    PersonWasErased,
)
from services.command_api.state import Changes, Org, User, View
from services.ledger.fold import BrokenTransition

OrgOrUserEvent = (
    OrgRegistered
    | OrgKeysEnabled
    | OrgKeysDisabled
    | UserAdded
    | UserRoleChanged
    | UserDisabled
    | UserEnabled
    | PersonErased
)


def admit(org_id: str, caller: Caller, *, registering: bool) -> None:
    """Turn away who has no business here, whatever the ledger holds.

    Raises NotFound for a stranger, Forbidden for who may not register, and InsufficientScope for an API key without
    `keys:write`.
    """
    operator = caller.operator_revision is not None
    if registering and not operator and not (caller.bootstrap and org_id == PLATFORM):
        raise Forbidden
    if not registering and not operator and caller.org != org_id:
        raise NotFound
    if caller.key_id is not None and KEYS_WRITE not in (caller.scopes or ()):
        raise InsufficientScope


def acting(view: View, org_id: str, caller: Caller) -> User | None:
    """The caller as a user of this organisation, or None for an operator and the bootstrap.

    Raises what `admit` raises, and CallerDisabled.
    """
    admit(org_id, caller, registering=False)
    if caller.operator_revision is not None or caller.bootstrap:
        return None
    user = view.user(caller.user_id)
    if user is None or not user.active:
        raise CallerDisabled
    return user


def may_ask(view: View, org_id: str, caller: Caller) -> None:
    """Whoever may give a command in an organisation may ask what became of it. Raises Refused."""
    actor = acting(view, org_id, caller)
    existing(view)
    if caller.bootstrap or (actor is not None and actor.role == "auditor"):
        raise Forbidden


def existing(view: View) -> Org:
    """The organisation. Raises NotFound before it is registered."""
    org = view.org()
    if org is None:
        raise NotFound
    return org


def decide(
    view: View, org_id: str, caller: Caller, command: OrgCommand | UserCommand, *, halted: bool
) -> LedgerEvent | None:
    """The event that a command about an organisation or a user makes, or None when it is so already. Raises Refused."""
    if isinstance(command, RegisterOrg):
        return _register(view, org_id, caller, command)
    actor = acting(view, org_id, caller)
    org = existing(view)
    _allow(org_id, org, caller, actor, command)
    match command:
        case SwitchKeys(enabled=enabled, reason=reason):
            if org.keys_enabled == enabled:
                return None
            return OrgKeysEnabled(reason) if enabled else OrgKeysDisabled(reason)
        case ResumeLedger(offsets=offsets, reason=reason):
            if not halted:
                raise NotHalted
            return LedgerResumed(offsets, reason)
        case AddUser(user_id=user_id, kind=kind, role=role):
            return UserAdded(user_id, kind, role)
        case ChangeRole() | SwitchUser() | ErasePerson():
            return _about_user(view, org, command)
        case _:
            assert_never(command)


def _register(view: View, org_id: str, caller: Caller, command: RegisterOrg) -> OrgRegistered:
    admit(org_id, caller, registering=True)
    if view.org() is not None:
        raise OrgExists
    return OrgRegistered(command.name)


def _allow(org_id: str, org: Org, caller: Caller, actor: User | None, command: OrgCommand | UserCommand) -> None:
    if caller.bootstrap:
        # Only while `platform` has no admin: judged here, so that the chain guards it against a race.
        first_admin = isinstance(command, AddUser) and command.kind == "person" and command.role == "admin"
        if not first_admin or org.active_admins:
            raise Forbidden
    elif actor is not None:
        operator_only = isinstance(command, ResumeLedger)
        if actor.role != "admin" or (operator_only and org_id != PLATFORM):
            raise Forbidden
    if caller.key_id is not None and isinstance(command, AddUser | ChangeRole) and command.role == "admin":
        # An admin made by a key would outlive the key's revocation, its expiry and its networks.
        raise Forbidden


def _about_user(view: View, org: Org, command: ChangeRole | SwitchUser | ErasePerson) -> LedgerEvent | None:
    user = view.user(command.user_id)
    if user is None:
        raise NotFound
    if user.erased:
        if isinstance(command, ErasePerson):
            return None
        raise PersonWasErased
    match command:
        case ChangeRole(role=role):
            if user.role == role:
                return None
            _keep_an_admin(org, user)
            return UserRoleChanged(user.user_id, role)
        case SwitchUser(enabled=enabled):
            if user.active == enabled:
                return None
            if enabled:
                return UserEnabled(user.user_id)
            _keep_an_admin(org, user)
            return UserDisabled(user.user_id)
        case ErasePerson():
            _keep_an_admin(org, user)
            return PersonErased(user.user_id)
        case _:
            assert_never(command)


def _keep_an_admin(org: Org, user: User) -> None:
    if _counts(user) and org.active_admins == 1:
        raise LastAdmin


def _counts(user: User) -> int:
    return int(user.active and user.role == "admin")


def evolve(view: View, envelope: Envelope, event: OrgOrUserEvent) -> Changes:
    """What the event changes. Raises BrokenTransition when the state forbids it."""
    org, revision, now = view.org(), envelope.revision, envelope.time
    if isinstance(event, OrgRegistered):
        if org is not None:
            raise BrokenTransition("the organisation is registered already")
        return Changes(now, org=Org(event.name, revision, False, revision, 0))
    if org is None:
        raise BrokenTransition("the organisation was never registered")
    match event:
        case OrgKeysEnabled() | OrgKeysDisabled():
            return Changes(
                now, org=replace(org, keys_enabled=isinstance(event, OrgKeysEnabled), keys_revision=revision)
            )
        case UserAdded(user_id=user_id, kind=kind, role=role):
            if view.user(user_id) is not None:
                raise BrokenTransition(f"user {user_id} exists already")
            return _with_user(org, None, User(user_id, kind, role, True, False, revision, revision), now)
        case UserRoleChanged() | UserDisabled() | UserEnabled() | PersonErased():
            return _user_changed(view, org, envelope, event)
        case _:
            assert_never(event)


def _user_changed(
    view: View, org: Org, envelope: Envelope, event: UserRoleChanged | UserDisabled | UserEnabled | PersonErased
) -> Changes:
    user, revision = view.user(event.user_id), envelope.revision
    if user is None or user.erased:
        raise BrokenTransition(f"user {event.user_id} does not exist, or was erased")
    match event:
        case UserRoleChanged(role=role):
            after = replace(user, role=role, role_revision=revision)
        case UserDisabled() | UserEnabled():
            after = replace(user, active=isinstance(event, UserEnabled), status_revision=revision)
        case PersonErased():
            after = replace(user, active=False, erased=True, status_revision=revision)
        case _:
            assert_never(event)
    return _with_user(org, user, after, envelope.time)


def _with_user(org: Org, before: User | None, after: User, now: str) -> Changes:
    difference = _counts(after) - (_counts(before) if before is not None else 0)
    return Changes(now, org=replace(org, active_admins=org.active_admins + difference), user=after)
