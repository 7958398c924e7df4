"""Commands, imperative, and who gives them."""

from dataclasses import dataclass

from schemas.events import Kind, Reason, Role


@dataclass(frozen=True, slots=True)
class Caller:
    """Who gives a command.

    `org` and `user_id` are the caller's own; `key_id` and `scopes` are set when an API key was the credential;
    `operator_revision` is the revision of the ledger `platform` at which the checker said that this is an operator,
    for commands in other organisations; `bootstrap` is the console setting up an installation.
    """

    org: str
    user_id: str
    key_id: str | None = None
    scopes: tuple[str, ...] | None = None
    operator_revision: int | None = None
    bootstrap: bool = False


@dataclass(frozen=True, slots=True)
class RegisterOrg:
    """Begin an organisation's ledger."""

    name: str | None


@dataclass(frozen=True, slots=True)
class SwitchKeys:
    """Switch the organisation's API keys on or off."""

    enabled: bool
    reason: str | None


@dataclass(frozen=True, slots=True)
class ResumeLedger:
    """End a halt that a fork caused, setting the records at these offsets aside."""

    offsets: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class AddUser:
    """Add a person or a service account."""

    user_id: str
    kind: Kind
    role: Role


@dataclass(frozen=True, slots=True)
class ChangeRole:
    """Give a user another role."""

    user_id: str
    role: Role


@dataclass(frozen=True, slots=True)
class SwitchUser:
    """Disable a user, or enable one again."""

    user_id: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class ErasePerson:
    """Disable a user for good; the person's name and e-mail are erased elsewhere."""

    user_id: str


@dataclass(frozen=True, slots=True)
class CreateKey:
    """Make a key. `user_id` None: for the caller. Times are UTC texts."""

    key_id: str
    user_id: str | None
    name: str
    digest: str
    last4: str
    expires_at: str | None
    scopes: tuple[str, ...] | None
    cidrs: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class RenameKey:
    """Give a key another name."""

    key_id: str
    name: str


@dataclass(frozen=True, slots=True)
class RevokeKey:
    """Refuse a key for good. `reason` None: by who asks."""

    key_id: str
    reason: Reason | None
    comment: str | None


OrgCommand = RegisterOrg | SwitchKeys | ResumeLedger
UserCommand = AddUser | ChangeRole | SwitchUser | ErasePerson
KeyCommand = CreateKey | RenameKey | RevokeKey
Command = OrgCommand | UserCommand | KeyCommand
