"""Refusals. The docstring is the public message, `code` is public and stable, `status` the HTTP status."""

from typing import ClassVar

from services.ledger.append import Refusal


class Refused(Refusal):
    """The command was refused."""

    status: ClassVar[int] = 409
    code: ClassVar[str]
    pointer: ClassVar[str | None] = None

    @property
    def message(self) -> str:
        """What is told to the caller."""
        return (type(self).__doc__ or "").strip()


class NameTaken(Refused):
    """The owner has an active key of this name; choose another name."""

    code = "name_taken"


class OrgKeysAreDisabled(Refused):
    """API keys are not turned on for this organisation."""

    code = "org_keys_disabled"


class KeyLimit(Refused):
    """The owner has as many active keys as one may have; revoke one first."""

    code = "key_limit"


class OwnerDisabled(Refused):
    """The owner of the key is disabled."""

    code = "owner_disabled"


class LastAdmin(Refused):
    """An organisation that has an active admin keeps one; make somebody else an admin first."""

    code = "last_admin"


class KeyInactive(Refused):
    """The key is revoked or has expired."""

    code = "key_inactive"


class KeyIdTaken(Refused):
    """A key of this id exists."""

    code = "key_id_taken"


class OrgExists(Refused):
    """An organisation of this id exists."""

    code = "org_exists"


class PersonWasErased(Refused):
    """The person was erased; this cannot be undone."""

    code = "person_erased"


class NotHalted(Refused):
    """The organisation is not halted; there is nothing to resume."""

    code = "not_halted"


class ExpiryInPast(Refused):
    """expires_at must be in the future."""

    status, code, pointer = 400, "malformed", "/expires_at"


class CallerDisabled(Refused):
    """The caller is unknown or disabled."""

    status, code = 401, "caller_disabled"


class Forbidden(Refused):
    """The caller's role does not allow this."""

    status, code = 403, "forbidden"


class InsufficientScope(Refused):
    """The API key lacks the scope that this call needs."""

    status, code = 403, "insufficient_scope"


class ScopeExceedsCaller(Refused):
    """An API key cannot make a key with scopes it lacks."""

    status, code = 403, "scope_exceeds_caller"


class NetworkExceedsCaller(Refused):
    """An API key that is bound to networks cannot make a key for others."""

    status, code = 403, "network_exceeds_caller"


class NotFound(Refused):
    """There is no such thing here."""

    status, code = 404, "not_found"


class IdempotencyKeyReused(Refused):
    """This Idempotency-Key was used with another body."""

    status, code = 422, "idempotency_key_reused"


class OrgHalted(Refused):
    """This organisation is halted: a piece of its history is lost, forked or not understood. An operator was alarmed."""

    status, code = 503, "org_halted"
