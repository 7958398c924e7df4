"""What every door of the checker asks about a key, answered from one read transaction of the index."""

from collections.abc import Sequence

import msgspec
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


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """One answer before it is put into words; `facts` is None unless the key's whole text matched."""

    code: Code
    facts: Facts | None
    current: Status | None


class Checker:
    """Answers about keys, each counted. Thread-safe; one in each worker process."""

    def __init__(self, reader: IndexReader, uses: Uses, prefix: str = key_text.DEFAULT_PREFIX) -> None:
        self._reader, self._uses, self._prefix = reader, uses, prefix
        self._as_of = (0, "")

    def validate(self, asked: Asked) -> Answer:
        """Is this key good? Waits for its `min_revision`. Raises Problem 503."""
        return self._answer(self.judge(asked))

    def judge(self, asked: Asked) -> Judgement:
        """`validate`, not yet in words."""
        if asked.min_revision is not None:
            self._reader.wait_for([place(asked.min_revision)])
        with self._reader.read() as (index, current):
            return self._judge(index, current, asked)

    def validate_all(self, questions: Sequence[Asked]) -> list[Answer]:
        """The answers in order, all from one moment of the index. Raises Problem 503."""
        self._reader.wait_for([place(asked.min_revision) for asked in questions if asked.min_revision is not None])
        with self._reader.read() as (index, current):
            return [self._answer(self._judge(index, current, asked)) for asked in questions]

    def as_of(self, current: Status) -> str:
        """The time at which the index was as it was read."""
        # The row changes a few times a second, so its text is kept; the pair is swapped whole, so no lock is needed.
        kept = self._as_of
        if kept[0] != current.as_of_ms:
            kept = self._as_of = (current.as_of_ms, to_text(current.as_of_ms))
        return kept[1]

    def _judge(self, index: KeyIndex, current: Status | None, asked: Asked) -> Judgement:
        parts = key_text.split(asked.key, self._prefix)
        if parts is None:
            code, facts, now = Code.MALFORMED, None, self._reader.clocks.now()
        else:
            found = look_up(index, *parts)
            reached = asked.min_revision is None or is_reached(index, place(asked.min_revision))
            # The clocks are read after the look-up: however long a pause lies between the two, what was read is
            # judged by the time after it. `current` is of the same read transaction.
            now = self._reader.clocks.now()
            fresh = self._reader.is_fresh(current, now) and reached
            code, facts = decide(found, Use(asked.scopes, asked.ip, now.wall_ms), fresh=fresh), found.facts
        if not self._uses.record(code, facts, asked.ip, asked.user_agent, now.wall_ms):
            raise Problem(503, "uses_full", "too many uses wait for the broker to be recorded", retry_after_s=1)
        return Judgement(code, facts, current)

    def _answer(self, judgement: Judgement) -> Answer:
        code, facts = judgement.code, judgement.facts
        if facts is None:
            return Answer(valid=False, code=code)
        key, user = facts.key, facts.user
        return Answer(
            valid=code is Code.VALID,
            code=code,
            key_id=facts.key_id,
            org_id=facts.org_id,
            user_id=facts.user_id,
            role=user.role,
            kind=user.kind,
            name=key.name,
            scopes=key.scopes,
            expires_at=key.expires_at,
            revision=facts.head.revision,
            as_of=UNSET if judgement.current is None else self.as_of(judgement.current),
            max_staleness_ms=self._reader.max_staleness_ms,
        )
