"""The events of Keyledger and the envelope around them, as frozen dataclasses.

Times are texts as in `schemas.times`; ids are opaque texts. Every event is described in DESIGN section 3;
the rules of each field are in `schemas.wire`.
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["member", "admin", "auditor"]
Kind = Literal["person", "service_account"]
AuthType = Literal["user", "service_account", "api_key", "operator"]
Reason = Literal["user_request", "admin", "operator", "key_compromise", "superseded", "owner_left", "unused", "other"]


@dataclass(frozen=True, slots=True)
class OrgRegistered:
    """The first event of a ledger."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerResumed:
    """A fork was looked at by an operator; the records at these offsets of the org's partition are set aside."""

    offsets: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class OrgKeysEnabled:
    """API keys are switched on for the organisation."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class OrgKeysDisabled:
    """API keys are switched off: none is valid, none is deleted."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class UserAdded:
    """A person or a service account joined; active from here on."""

    user_id: str
    kind: Kind
    role: Role


@dataclass(frozen=True, slots=True)
class UserRoleChanged:
    """A user's role is another one from here on."""

    user_id: str
    role: Role


@dataclass(frozen=True, slots=True)
class UserDisabled:
    """A user may no longer act; the user's keys are refused by derivation."""

    user_id: str


@dataclass(frozen=True, slots=True)
class UserEnabled:
    """A disabled user may act again."""

    user_id: str


@dataclass(frozen=True, slots=True)
class PersonErased:
    """The person behind a user id was erased: disabled for good."""

    user_id: str


@dataclass(frozen=True, slots=True)
class KeyCreated:
    """A key exists. `digest` is the SHA-256 (hex) of the whole key text; the secret is in no event."""

    key_id: str
    user_id: str
    name: str
    digest: str
    last4: str
    expires_at: str | None = None
    scopes: tuple[str, ...] | None = None
    cidrs: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class KeyRenamed:
    """A key has another name."""

    key_id: str
    name: str


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """A key is refused for good."""

    key_id: str
    reason: Reason
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class KeyUsed:
    """The uses of one key from one address with one outcome in one window; `outcome` is a validation code."""

    key_id: str
    org_id: str
    user_id: str
    outcome: str
    count: int
    first_at: str
    last_at: str
    ip: str | None = None
    user_agent: str | None = None


LedgerEvent = (
    OrgRegistered
    | LedgerResumed
    | OrgKeysEnabled
    | OrgKeysDisabled
    | UserAdded
    | UserRoleChanged
    | UserDisabled
    | UserEnabled
    | PersonErased
    | KeyCreated
    | KeyRenamed
    | KeyRevoked
)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A ledger event with its place in its organisation's chain and who caused it.

    `revision` counts from 1; `parent` is the SHA-256 (hex) of the value bytes of the event before, 64 zeros for
    the first; `authrevision` is the revision of the ledger `platform` at which an operator's right was read.
    """

    id: str
    source: str
    subject: str
    time: str
    org: str
    revision: int
    parent: str
    authid: str
    authtype: AuthType
    commandid: str
    commandhash: str
    event: LedgerEvent
    authkey: str | None = None
    authrevision: int | None = None


@dataclass(frozen=True, slots=True)
class UsageEnvelope:
    """A KeyUsed with its sender. `sequence` is dense per (source, partition); on the external topic it may be absent."""

    id: str
    source: str
    subject: str
    time: str
    event: KeyUsed
    sequence: int | None = None
