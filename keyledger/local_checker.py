"""Ask whether a key is good without a network: from the index of the auth checker that runs on this machine.

checker = LocalChecker(Path("/var/lib/keyledger/auth_checker"))
answer = checker.validate(key, scopes=["invoices:read"], ip=address)
if not answer.valid: …

The same decision as over HTTP: the same code reads the same memory map and the same lease, so a key that is revoked
there is refused here. Uses go to the checker's spool, from which its publisher sends them. Needs `keyledger[server]`,
and a user who may read and write the checker's state.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from keyledger.checker import CheckerUnavailable, Validation
from schemas import key_text
from schemas.problems import Problem
from schemas.validation import Code
from services.auth_checker.bodies import Asked
from services.auth_checker.handler import Checker, Judgement
from services.auth_checker.index_reader import IndexReader
from services.auth_checker.spool import Spool
from services.auth_checker.status import machine_clocks, open_index
from services.auth_checker.uses import Uses
from services.ledger.fold import StoreFailure

_STOP_S: Final = 5.0
_FOREVER_MS: Final = 0


class LocalChecker:
    """Thread-safe; one in each process, made after forking. Use it in a `with`, or close it: that stores the last uses.

    A process that ends without closing loses the uses of its last 250 ms. When the checker's store was made anew while
    this was open (a new format, a machine that went down), every answer is STALE until this is made anew too.
    """

    def __init__(self, state_dir: Path, prefix: str = key_text.DEFAULT_PREFIX) -> None:
        """`state_dir` is the checker's KEYLEDGER_STATE_DIR. Raises CheckerUnavailable when no checker has run there."""
        if not (state_dir / "index" / "data.mdb").exists():
            raise CheckerUnavailable(f"no auth checker keeps its index in {state_dir}")
        try:
            self._index = open_index(state_dir, read_only=True)
            self._spool = Spool(state_dir / "spool")
        except StoreFailure as error:
            raise CheckerUnavailable(f"the checker's state cannot be read: {error}") from error
        self._uses = Uses(self._spool)
        self._checker = Checker(IndexReader(self._index, machine_clocks(), _FOREVER_MS), self._uses, prefix)
        self._uses.start()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self.close()

    def validate(
        self, key: str, scopes: Sequence[str] = (), ip: str | None = None, user_agent: str | None = None
    ) -> Validation:
        """Is this key good for all of `scopes`, used from `ip`? Raises CheckerUnavailable, never a doubtful answer."""
        try:
            judgement = self._checker.judge(Asked(key, list(scopes) or None, ip, user_agent))
        except Problem as problem:
            raise CheckerUnavailable(problem.detail) from problem
        return self._validation(judgement)

    def close(self) -> None:
        """Store the uses that wait, and let go of the files."""
        self._uses.stop(_STOP_S)
        self._spool.close()
        self._index.close()

    def _validation(self, judgement: Judgement) -> Validation:
        code, facts, current = judgement.code, judgement.facts, judgement.current
        if facts is None:
            return Validation(False, code)
        key, user = facts.key, facts.user
        return Validation(
            code is Code.VALID,
            code,
            facts.key_id,
            facts.org_id,
            facts.user_id,
            user.role,
            user.kind,
            key.name,
            key.scopes,
            key.expires_at,
            facts.head.revision,
            None if current is None else self._checker.as_of(current),
            None if current is None else current.lease.until_wall_ms - current.lease.begun_wall_ms,
        )
