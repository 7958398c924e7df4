"""A KafkaProducer that is replaced after any error.

Not idempotent on purpose: kafka-python's idempotent producer dies for good on one bad record and can wedge without an
error, and the ledger rule makes copies harmless. `max_in_flight=1` keeps the order.
"""

import time
from threading import Lock, Thread
from typing import Any, Final

import kafka.producer.kafka as producer_module
import kafka.record.util
import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError

from services.ledger.kafka_clients import connected
from services.ledger.log import LogUnavailable, Message, OutcomeUnknown

_AGAIN_AFTER_S: Final = 0.5
_BOOTSTRAP_MS: Final = 2000
_log = structlog.get_logger("keyledger.ledger")
_module_log: Final = producer_module.log


class SupervisedProducer:
    """Sends and waits. Thread-safe; at most one producer is alive at a time."""

    def __init__(self, bootstrap: str, name: str, linger_ms: int) -> None:
        if kafka.record.util.crc32c_c is None:
            raise RuntimeError("the crc32c package is missing; without it reading Kafka is several times slower")
        self._bootstrap, self._name, self._linger_ms = bootstrap, name, linger_ms
        self._lock = Lock()
        self._producer: Any = None
        self._failed_at = float("-inf")
        self.closed = False
        self.replaced = 0

    def warm(self, topic: str) -> None:
        """Connect and fetch the topic's metadata now: a first send costs tens of milliseconds. Raises LogUnavailable."""
        producer = self._get()
        try:
            producer.partitions_for(topic)
        except KafkaError as error:
            self._discard(producer)
            raise LogUnavailable(repr(error)) from error

    def send(self, messages: list[Message], timeout_s: float) -> list[int]:
        """Send all and wait for every offset. Raises LogUnavailable when nothing was sent, else OutcomeUnknown."""
        producer = self._get()
        deadline = time.monotonic() + timeout_s
        try:
            futures = [
                producer.send(m.topic, value=m.value, key=m.key, headers=list(m.headers), partition=m.partition)
                for m in messages
            ]
            return [future.get(timeout=max(0.0, deadline - time.monotonic())).offset for future in futures]
        except (KafkaError, AssertionError) as error:
            self._discard(producer)
            raise OutcomeUnknown(repr(error)) from error

    def close(self) -> None:
        """Close the producer; what was not acknowledged fails."""
        with self._lock:
            self.closed, producer, self._producer = True, self._producer, None
        if producer is not None:
            _force_close(producer)

    def _get(self) -> Any:
        with self._lock:
            if self.closed:
                raise LogUnavailable("closed")
            if self._producer is None:
                if time.monotonic() - self._failed_at < _AGAIN_AFTER_S:
                    raise LogUnavailable("the broker was away a moment ago")
                self._producer = self._make()
            return self._producer

    def _make(self) -> Any:
        try:
            return connected(
                KafkaProducer,
                bootstrap_servers=self._bootstrap,
                client_id=self._name,
                acks="all",
                enable_idempotence=False,
                max_in_flight_requests_per_connection=1,
                linger_ms=self._linger_ms,
                delivery_timeout_ms=10_000,
                request_timeout_ms=5_000,
                max_block_ms=3_000,
                bootstrap_timeout_ms=_BOOTSTRAP_MS,
                reconnect_backoff_max_ms=1000,
                metrics_enabled=False,  # Nobody reads them, and they cost a tenth of its time.
            )
        except LogUnavailable:
            self._failed_at = time.monotonic()
            raise

    def _discard(self, producer: Any) -> None:
        with self._lock:
            if self._producer is not producer:
                return
            self._producer = None
            self.replaced += 1
        _log.warning("producer_replaced", name=self._name)
        Thread(target=_force_close, args=(producer,), name="close-producer", daemon=True).start()


def _force_close(producer: Any) -> None:
    # KafkaProducer.close(0) raises and leaves its thread running when batches are pending; this fails them first.
    try:
        producer._sender.force_close()  # noqa: SLF001  # There is no public way.
        producer._sender.join(5)  # noqa: SLF001
        producer.close(timeout=0)
    except KafkaError as error:
        _log.warning("producer_not_closed", error=repr(error))
    # A producer that is collected replaces its module's logger for the whole process; put it back.
    producer_module.log = _module_log
