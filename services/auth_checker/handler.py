"""What every door of the checker asks about a key, answered from one read transaction of the index."""

from collections.abc import Sequence

from msgspec import UNSET

from schemas import key_text
from schemas.problems import Problem
from schemas.times import to_text
from schemas.validation import Code
from services.auth_checker.bodies import Answer, Asked, place
from services.auth_checker.check import Facts, Use, decide, look_up
from services.auth_checker.index_reader import IndexReader, is_reached
from services.auth_checker.key_index import KeyIndex
from services.auth_checker.status import Status
from services.auth_checker.uses import Uses


class Checker:
    """Answers about keys, each counted. Thread-safe; one in each worker process."""

    def __init__(self, reader: IndexReader, uses: Uses, prefix: str = key_text.DEFAULT_PREFIX) -> None:
        self._reader, self._uses, self._prefix = reader, uses, prefix
        self._as_of = (0, "")

    def validate(self, asked: Asked) -> Answer:
        """Is this key good? Waits for its `min_revision`. Raises Problem 503."""
        if asked.min_revision is not None:
            self._reader.wait_for([place(asked.min_revision)])
        with self._reader.read() as (index, current):
            return self._answer(index, current, asked)

    def validate_all(self, questions: Sequence[Asked]) -> list[Answer]:
        """The answers in order, all from one moment of the index. Raises Problem 503."""
        self._reader.wait_for([place(asked.min_revision) for asked in questions if asked.min_revision is not None])
        with self._reader.read() as (index, current):
            return [self._answer(index, current, asked) for asked in questions]

    def _answer(self, index: KeyIndex, current: Status | None, asked: Asked) -> Answer:
        now_ms = self._reader.clocks.wall_ms()
        parsed = key_text.parse(asked.key, self._prefix)
        if parsed is None:
            code, facts = Code.MALFORMED, None
        else:
            found = look_up(index, parsed.key_id, bytes.fromhex(parsed.digest))
            reached = asked.min_revision is None or is_reached(index, place(asked.min_revision))
            fresh = reached and self._reader.is_fresh(current)
            code, facts = decide(found, Use(asked.scopes, asked.ip, now_ms), fresh=fresh), found.facts
        if not self._uses.record(code, facts, asked.ip, asked.user_agent, now_ms):
            raise Problem(503, "uses_full", "too many uses wait for the broker to be recorded", retry_after_s=1)
        return Answer(valid=False, code=code.value) if facts is None else self._full(code, facts, current)

    def _full(self, code: Code, facts: Facts, current: Status | None) -> Answer:
        key, user = facts.key, facts.user
        return Answer(
            valid=code is Code.VALID,
            code=code.value,
            key_id=facts.key_id,
            org_id=facts.org_id,
            user_id=key.user_id,
            role=user.role,
            kind=user.kind,
            name=key.name,
            scopes=key.scopes,
            expires_at=key.expires_at,
            revision=facts.head.revision,
            as_of=UNSET if current is None else self._as_of_text(current.as_of_ms),
            max_staleness_ms=self._reader.max_staleness_ms,
        )

    def _as_of_text(self, as_of_ms: int) -> str:
        # The row changes a few times a second, so its text is kept; the pair is swapped whole, so no lock is needed.
        kept = self._as_of
        if kept[0] != as_of_ms:
            kept = self._as_of = (as_of_ms, to_text(as_of_ms))
        return kept[1]
