"""POST /v1/usage: key uses that other services saw, published on `key-usage-external`, all or nothing."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from marshmallow import ValidationError

from schemas import times
from schemas.codec import encode_usage
from schemas.events import KeyUsed, UsageEnvelope
from schemas.problems import Problem, malformed, pointers
from schemas.topics import EXTERNAL_USAGE, LIFECYCLE, partition_of
from schemas.validation import PLATFORM, USAGE_WRITE
from services.command_api.bodies import UseBody
from services.command_api.commands import Caller
from services.command_api.minting import Sources
from services.command_api.state import LmdbView, orgs_of_key
from services.ledger.follow import Follower
from services.ledger.log import Log, Message
from services.ledger.records import TopicPartition
from services.ledger.store import Store, Transaction

MOST_USES: Final = 1000
_FUTURE_MS: Final = 60_000
_WAIT_S: Final = 5.0
_SCHEMA: Final = UseBody(many=True)
Owner = tuple[str, str]


class UsageIntake:
    """Checks uses and publishes them. Thread-safe."""

    def __init__(self, log: Log, store: Store, follower: Follower, sources: Sources) -> None:
        self._log, self._store, self._follower, self._sources = log, store, follower, sources

    def take(self, caller: Caller, document: Any) -> int:
        """Publish a list of at most 1,000 uses; how many. Raises Problem, OutcomeUnknown and LogUnavailable.

        A repeat with the same ids is counted once, so that an unknown outcome may be repeated.
        """
        if caller.key_id is None or USAGE_WRITE not in (caller.scopes or ()):
            raise Problem(403, "insufficient_scope", f"this call needs an API key with the scope {USAGE_WRITE}")
        uses = _checked(document, self._sources.now_ms())
        owners = self._owners(caller, uses)
        now = times.to_text(self._sources.now_ms())
        messages = [_message(caller, use, owner, now) for use, owner in zip(uses, owners, strict=True)]
        self._log.append_all(messages, _WAIT_S)
        return len(messages)

    def _owners(self, caller: Caller, uses: Sequence[Mapping[str, Any]]) -> list[Owner]:
        found = self._look_up(caller, uses)
        if None in found:
            # A key that was created a moment ago: look again once this reader is at the end of the log.
            partitions = range(12) if caller.org == PLATFORM else [partition_of(caller.org)]
            for partition in partitions:
                self._follower.reach_end(TopicPartition(LIFECYCLE, partition), _WAIT_S)
            found = self._look_up(caller, uses)
        unknown = [
            (f"/{at}/key_id", "is no key of this organisation") for at, owner in enumerate(found) if owner is None
        ]
        if unknown:
            raise malformed("some uses are of unknown keys; nothing was taken", *unknown)
        return [owner for owner in found if owner is not None]

    def _look_up(self, caller: Caller, uses: Sequence[Mapping[str, Any]]) -> list[Owner | None]:
        with self._store.read() as txn:
            return [_owner(txn, caller, use["key_id"]) for use in uses]


def _owner(txn: Transaction, caller: Caller, key_id: str) -> Owner | None:
    for org in orgs_of_key(txn, key_id):
        key = LmdbView(txn, org).key(key_id)
        if key is not None and caller.org in (org, PLATFORM):
            return org, key.user_id
    return None


def _checked(document: Any, now_ms: int) -> list[Mapping[str, Any]]:
    if type(document) is not list or not 1 <= len(document) <= MOST_USES:
        raise malformed(f"the body must be an array of 1 to {MOST_USES} uses", ("", "must be such an array"))
    try:
        uses: list[Mapping[str, Any]] = _SCHEMA.load(document)
    except ValidationError as error:
        raise malformed("some uses are malformed; nothing was taken", *pointers(error.messages)) from error
    latest = times.to_text(now_ms + _FUTURE_MS)
    future = [(f"/{at}/at", "is in the future") for at, use in enumerate(uses) if use["at"] > latest]
    if future:
        raise malformed("some uses are in the future; nothing was taken", *future)
    return uses


def _message(caller: Caller, use: Mapping[str, Any], owner: Owner, now: str) -> Message:
    event = KeyUsed(
        key_id=use["key_id"],
        org_id=owner[0],
        user_id=owner[1],
        outcome=use["outcome"],
        count=use["count"],
        first_at=use["at"],
        last_at=use["at"],
        ip=use.get("ip"),
        user_agent=use.get("user_agent"),
    )
    envelope = UsageEnvelope(use["id"], f"keyledger/usage/{caller.org}", event.key_id, now, event)
    headers = (("ce_type", b"KeyUsed"),)
    return Message(EXTERNAL_USAGE, partition_of(event.key_id), event.key_id.encode(), encode_usage(envelope), headers)
