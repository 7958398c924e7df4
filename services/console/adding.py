"""Adding and erasing people: two stores that cannot share a transaction, in an order that a crash cannot spoil.

Adding: a pending row, then the command, then the row is active. Erasing: the row goes first, then the command, so
that whatever happens in between, the personal data is gone and a repeat finishes it.
"""

from collections.abc import Callable
from typing import Any

import structlog

from schemas.problems import Problem
from services.console.api_clients import CommandApi
from services.console.people import NewPerson, People, Person

_log = structlog.get_logger()


class Adding:
    """Keeps the people table and the ledger together. `fresh_key` makes Idempotency-Keys."""

    def __init__(self, people: People, command_api: CommandApi, fresh_key: Callable[[], str]) -> None:
        self._people, self._command_api, self._fresh_key = people, command_api, fresh_key

    def add(self, new: NewPerson, token: str, key: str | None = None) -> Person:
        """Add a user with the rights of this token. Raises Problem: `email_taken`, `busy`, or the command API's own.

        When the outcome is not known the row stays pending for a day: the same person asked for again by the same
        caller is the same command, found again by its Idempotency-Key.
        """
        reserved, is_new = self._people.reserve(new, key or self._fresh_key())
        try:
            user_id, revision = self._command_api.add_user(token, new.org_id, new.kind, new.role, reserved)
        except Problem as problem:
            # A refused repeat proves nothing about the first try, whose caller may have been another one.
            if is_new and problem.status < 500:
                self._people.forget(reserved)
            else:
                self._people.release(reserved)
                _log.warning("a person stays pending", org=new.org_id, why=problem.code)
            raise
        self._people.activate(reserved, user_id, revision)
        fields = {name: getattr(new, name) for name in NewPerson.__slots__}
        return Person(**fields, user_id=user_id, added_revision=revision)

    def erase(self, org_id: str, user_id: str, token: str) -> dict[str, Any]:
        """Erase a user with the rights of this token; gives the command API's answer. Raises Problem."""
        removed = self._people.remove(org_id, user_id)
        try:
            return self._command_api.erase_user(token, org_id, user_id)
        except Problem as problem:
            if removed is not None and problem.status < 500:
                self._people.put_back(removed, self._fresh_key())
            raise
