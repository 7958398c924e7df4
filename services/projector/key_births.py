"""When keys were created and for whom, remembered: neither ever changes."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from schemas.times import EARLIEST_MS, to_ms, to_text
from services.projector.database import Writer

_MOST: Final = 200_000
"""So many keys are remembered, some 50 MB of them."""
_BIRTHS: Final = """
    SELECT org_id, key_id, created_at, user_id FROM keys
    JOIN unnest(%s::text[], %s::text[]) AS wanted (org_id, key_id) USING (org_id, key_id)
"""
OrgKey = tuple[str, str]
"""The ids of an organisation and a key."""


class Birth(NamedTuple):
    """`earliest` is the first moment at which a use is possible, with the tolerance; `user_id` is the owner."""

    earliest: str
    user_id: str


class KeyBirths:
    """The births of the keys that have a row. `tolerance_ms` is by how much clocks may disagree."""

    def __init__(self, tolerance_ms: int) -> None:
        self._tolerance_ms = tolerance_ms
        self._known: dict[OrgKey, Birth] = {}

    def of(self, session: Writer, keys: Iterable[OrgKey]) -> dict[OrgKey, Birth]:
        """Those of these keys; of one without a row there is none. Raises psycopg.Error.

        What the transaction under way reads is remembered: after a rollback `forget` must follow.
        """
        if len(self._known) > _MOST:
            self._known.clear()
        wanted = set(keys)
        missing = sorted(wanted - self._known.keys())
        if missing:
            columns = [list(column) for column in zip(*missing, strict=True)]
            for org, key, created_at, user in session.execute(_BIRTHS, columns):
                self._known[org, key] = Birth(self.earliest(created_at), user)
        return self._known

    def earliest(self, created_at: str) -> str:
        """The first moment at which a key made then can have been used."""
        return to_text(max(to_ms(created_at) - self._tolerance_ms, EARLIEST_MS))

    def forget(self) -> None:
        """All of them."""
        self._known.clear()
