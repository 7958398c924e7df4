"""Publish that a key was used, from any service that sees it: one KeyUsed on the topic `key-usage-external`.

    with Publisher("kafka:9092", "invoices") as publisher:
        publisher.publish(key_id=…, org_id=…, user_id=…, outcome="VALID", at_ms=…)

Needs marshmallow and kafka-python, none of the servers' packages.
"""

from types import TracebackType
from typing import Final, Self
from uuid import uuid4

from schemas import times
from schemas.codec import encode_usage
from schemas.events import KeyUsed, UsageEnvelope
from schemas.topics import EXTERNAL_USAGE, partition_of
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import Message

TIMEOUT_S: Final = 5.0


class Publisher:
    """Sends uses to the log of `bootstrap` (`host:port,…`). One per process, made after forking; thread-safe.

    `source` names the service that saw the use, 1-200 characters.
    """

    def __init__(self, bootstrap: str, source: str) -> None:
        self._source = source
        self._log = KafkaLog(bootstrap, "keyledger-publish")

    def publish(
        self,
        *,
        key_id: str,
        org_id: str,
        user_id: str,
        outcome: str,
        at_ms: int,
        ip: str | None = None,
        user_agent: str | None = None,
        count: int = 1,
        use_id: str | None = None,
    ) -> str:
        """Publish and wait until the log has it; gives the id of the record.

        `outcome` is a code of `schemas.validation.Code`, `at_ms` the time of the use in milliseconds since 1970,
        `count` how many uses of that moment are meant. A use is counted once for each `use_id` of a source: whoever
        passes one may repeat the call. Raises ValueError (a field breaks its rule, nothing was sent),
        services.ledger.log.OutcomeUnknown (repeat it with the same `use_id`) or its parent LogUnavailable.
        """
        use_id, at = use_id or str(uuid4()), times.to_text(at_ms)
        event = KeyUsed(key_id, org_id, user_id, outcome, count, first_at=at, last_at=at, ip=ip, user_agent=user_agent)
        self._log.append(message(UsageEnvelope(use_id, self._source, key_id, at, event)), TIMEOUT_S)
        return use_id

    def close(self) -> None:
        """Let go of the connection."""
        self._log.close()

    def __enter__(self) -> Self:
        """Publish in a `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def message(envelope: UsageEnvelope) -> Message:
    """The record of a use. Raises schemas.codec.InvalidEvent, a ValueError."""
    key_id = envelope.event.key_id
    headers = (("ce_type", b"KeyUsed"),)
    return Message(EXTERNAL_USAGE, partition_of(key_id), key_id.encode(), encode_usage(envelope), headers)
