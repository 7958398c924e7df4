"""Who is calling, and what that allows. Pure rules; who it is was asked of the auth checker."""

from dataclasses import dataclass, field

from schemas.problems import Problem
from schemas.validation import PLATFORM


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a bearer token. `key_id` is None for a signed-in person; `revision` is that of its org."""

    org_id: str
    user_id: str
    role: str
    revision: int
    key_id: str | None
    scopes: tuple[str, ...]
    token: str = field(repr=False)

    @property
    def is_operator(self) -> bool:
        """Operators are the admins of the org `platform`."""
        return self.org_id == PLATFORM and self.role == "admin"


def must_administer(caller: Caller, org_id: str) -> None:
    """An admin of this org or an operator. Raises Problem 404 for another's org, 403 for another role."""
    if caller.is_operator:
        return
    if caller.org_id != org_id:
        raise not_found()
    if caller.role != "admin":
        raise Problem(403, "forbidden", "only admins of the organisation and operators may do this")


def must_be_person(caller: Caller) -> None:
    """Names and passwords are changed by people who signed in. Raises Problem 403 for an API key."""
    if caller.key_id is not None:
        raise Problem(403, "forbidden", "an API key cannot do this, sign in with a password")


def must_have_scope(caller: Caller, scope: str) -> None:
    """An API key must name this scope. Raises Problem 403."""
    if caller.key_id is not None and scope not in caller.scopes:
        raise Problem(403, "insufficient_scope", f"the API key needs the scope {scope}")


def not_found() -> Problem:
    """What is absent and what belongs to another organisation look the same."""
    return Problem(404, "not_found", "there is nothing at this address")
