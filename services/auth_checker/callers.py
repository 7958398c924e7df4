"""Who is behind a bearer token: an API key, judged as every key is, or the signed token of a signed-in person.

Roles and status are the ledger's, never the token's.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import urllib3

from schemas.problems import Problem
from schemas.tokens import BadToken, Claims, ExpiredToken, KeySet, looks_signed, verify
from schemas.validation import BOOTSTRAP, Code
from services.auth_checker.bodies import Asked, AskedCaller, CallerAnswer, place
from services.auth_checker.handler import Checker
from services.auth_checker.index_reader import IndexReader, Place, is_reached
from services.auth_checker.key_index import ACTIVE, User

_JWKS: Final = "/.well-known/jwks.json"
_FETCH_TIMEOUT_S: Final = 1.0


def fetch_from(console_url: str, http: urllib3.PoolManager) -> Callable[[], Mapping[str, Any]]:
    """Gives what fetches the console's JWKS and raises OSError when it cannot."""

    def fetch() -> Mapping[str, Any]:
        try:
            answer = http.request("GET", console_url + _JWKS, timeout=_FETCH_TIMEOUT_S, retries=False)
            document = msgspec.json.decode(answer.data)
        except (urllib3.exceptions.HTTPError, msgspec.DecodeError) as error:
            raise OSError(f"no JWKS from {console_url}: {error!r}") from error
        if answer.status != 200 or not isinstance(document, dict):
            raise OSError(f"no JWKS from {console_url}: status {answer.status}")
        return document

    return fetch


class Callers:
    """Answers about callers. Thread-safe; one in each worker process."""

    def __init__(self, reader: IndexReader, checker: Checker, people_keys: KeySet) -> None:
        self._reader, self._checker, self._people_keys = reader, checker, people_keys

    def caller(self, asked: AskedCaller) -> CallerAnswer:
        """Who is this? Waits for the revision of the token and for `min_revision`. Raises Problem 503."""
        if not looks_signed(asked.token):
            return self._key(asked)
        try:
            claims = verify(asked.token, self._people_keys.key_of, self._reader.clocks.wall_ms() / 1000)
        except ExpiredToken:
            return CallerAnswer(valid=False, code=Code.EXPIRED.value)
        except BadToken:
            return CallerAnswer(valid=False, code=Code.NOT_FOUND.value)
        except OSError as error:
            raise Problem(
                503, "console_unavailable", "the console's keys cannot be fetched", retry_after_s=1
            ) from error
        # The console's token for the very first start names no user of any organisation.
        if claims.sub == BOOTSTRAP:
            return CallerAnswer(valid=False, code=Code.NOT_FOUND.value)
        places = [(claims.org, claims.rev)]
        return self._person(claims, [*places, place(asked.min_revision)] if asked.min_revision is not None else places)

    def _key(self, asked: AskedCaller) -> CallerAnswer:
        answer = self._checker.validate(
            Asked(key=asked.token, ip=asked.ip, user_agent=asked.user_agent, min_revision=asked.min_revision)
        )
        return CallerAnswer(**{name: getattr(answer, name) for name in CallerAnswer.__struct_fields__})

    def _person(self, claims: Claims, places: list[Place]) -> CallerAnswer:
        self._reader.wait_for(places)
        with self._reader.read() as (index, current):
            user, head = index.user(claims.org, claims.sub), index.head(claims.org)
            believable = all(is_reached(index, at) for at in places) and not index.is_halted(claims.org)
        code = _code_of(user) if believable and self._reader.is_fresh(current) else Code.STALE
        if user is None:
            return CallerAnswer(valid=False, code=code.value)
        return CallerAnswer(
            valid=code is Code.VALID,
            code=code.value,
            org_id=claims.org,
            user_id=claims.sub,
            role=user.role,
            kind=user.kind,
            scopes=None,
            revision=head.revision,
        )


def _code_of(user: User | None) -> Code:
    if user is None:
        return Code.NOT_FOUND
    return Code.VALID if user.status == ACTIVE else Code.OWNER_DISABLED
