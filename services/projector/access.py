"""Who may read what. Pure rules: absent and another organisation's look the same, 404."""

from dataclasses import dataclass

from schemas.problems import Problem
from schemas.validation import PLATFORM


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `key_id` and `scopes` are those of an API key, None for a person who signed in."""

    org_id: str
    user_id: str
    role: str
    kind: str
    key_id: str | None = None
    scopes: tuple[str, ...] | None = None

    @property
    def is_operator(self) -> bool:
        """Operators are the admins of the organisation `platform`."""
        return self.org_id == PLATFORM and self.role == "admin"

    def sees_all_of(self, org: str) -> bool:
        """Whether every user and key of the organisation may be read: admins and auditors of their own, operators."""
        return self.is_operator or (self.org_id == org and self.role in ("admin", "auditor"))


def must_be_operator(caller: Caller) -> None:
    """Raises Problem 403."""
    if not caller.is_operator:
        raise Problem(403, "forbidden", "only operators may read this")


def must_belong(caller: Caller, org: str) -> None:
    """For the organisation itself. Raises Problem 404 for another one's."""
    if caller.org_id != org and not caller.is_operator:
        raise not_found()


def must_see_all_of(caller: Caller, org: str) -> None:
    """For lists and histories of an organisation. Raises Problem 404 for another one's, 403 for a member."""
    must_belong(caller, org)
    if not caller.sees_all_of(org):
        raise Problem(403, "forbidden", "only admins and auditors of the organisation and operators may read this")


def must_see_user(caller: Caller, org: str, user_id: str) -> None:
    """For one user and what belongs to it. Raises Problem 404."""
    must_belong(caller, org)
    if not caller.sees_all_of(org) and caller.user_id != user_id:
        raise not_found()


def not_found() -> Problem:
    """What is absent and what may not be known to exist look the same."""
    return Problem(404, "not_found", "there is nothing at this address")
