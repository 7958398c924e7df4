"""The log on Apache Kafka, through kafka-python 3.0.12 with the settings that were found to be safe with it."""

import time
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Final

import structlog
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from schemas.topics import LIFECYCLE
from services.ledger.kafka_batches import Unreadable, read_patiently
from services.ledger.kafka_clients import connected
from services.ledger.kafka_producer import SupervisedProducer
from services.ledger.log import LogUnavailable, Message, OffsetGone
from services.ledger.records import Record, TopicPartition

_BOOTSTRAP_MS: Final = 5000
_log = structlog.get_logger("keyledger.ledger")


class KafkaLog:
    """See Log. One instance per process; make it after forking or spawning, never before."""

    def __init__(self, bootstrap: str, name: str, most_records: int = 5000) -> None:
        """`bootstrap` is `host:port,…`; `name` stands in the broker's logs; a poll gives at most `most_records`.

        Connects when first used.
        """
        self._bootstrap, self._name, self._most_records = bootstrap, name, most_records
        self._single = SupervisedProducer(bootstrap, f"{name}-append", linger_ms=0)
        self._many = SupervisedProducer(bootstrap, f"{name}-append-all", linger_ms=5)
        self._asking = Lock()
        self._asker: Any = None

    def warm(self) -> None:
        """Connect the producer of single appends. Raises LogUnavailable."""
        self._single.warm(LIFECYCLE)

    def warm_patiently(self) -> None:
        """`warm`, again and again while the broker is away; for a thread of its own."""
        while not self._single.closed:
            try:
                self.warm()
                return
            except LogUnavailable as error:
                _log.warning("not_warm_yet", error=str(error))
                time.sleep(1.0)

    @property
    def producers_replaced(self) -> int:
        """How many producers were given up after an error."""
        return self._single.replaced + self._many.replaced

    def append(self, message: Message, timeout_s: float) -> int:
        """See Log."""
        return self._single.send([message], timeout_s)[0]

    def append_all(self, messages: Sequence[Message], timeout_s: float) -> list[int]:
        """See Log."""
        return self._many.send(list(messages), timeout_s)

    def reader(self, offsets: Mapping[TopicPartition, int]) -> "KafkaReader":
        """See Log."""
        return KafkaReader(_consumer(self._bootstrap, f"{self._name}-reader", self._most_records), offsets)

    def first_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        """See Log."""
        return self._ask("beginning_offsets", partitions, timeout_s)

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        """See Log."""
        return self._ask("end_offsets", partitions, timeout_s)

    def _ask(self, what: str, partitions: Sequence[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        # A consumer is not thread-safe, and one that failed once may fail for ever: one at a time, made anew on error.
        with self._asking:
            try:
                if self._asker is None:
                    self._asker = _consumer(self._bootstrap, f"{self._name}-asker", self._most_records)
                wanted = {KafkaPartition(at.topic, at.partition): at for at in partitions}
                answer = getattr(self._asker, what)(list(wanted), timeout_ms=int(timeout_s * 1000))
                return {wanted[at]: offset for at, offset in answer.items()}
            except (KafkaError, KeyError) as error:  # KeyError: a leader was unknown for a moment.
                asker, self._asker = self._asker, None
                _close(asker)
                raise LogUnavailable(repr(error)) from error

    def close(self) -> None:
        """See Log."""
        self._single.close()
        self._many.close()
        with self._asking:
            _close(self._asker)
            self._asker = None


class KafkaReader:
    """See Reader."""

    def __init__(self, consumer: Any, offsets: Mapping[TopicPartition, int]) -> None:
        self._consumer = consumer
        self._partitions = {at: KafkaPartition(at.topic, at.partition) for at in offsets}
        self._positions = dict(offsets)
        consumer.assign(list(self._partitions.values()))
        for at, offset in offsets.items():
            consumer.seek(self._partitions[at], offset)

    def poll(self, timeout_ms: int) -> list[Record]:
        """See Reader."""
        try:
            polled = self._consumer.poll(timeout_ms=timeout_ms)
        except OffsetOutOfRangeError as error:
            raise OffsetGone(repr(error)) from error
        except KafkaError as error:
            raise LogUnavailable(repr(error)) from error
        for at, records in polled.items():
            if records:
                self._positions[TopicPartition(at.topic, at.partition)] = records[-1].offset + 1
        return [_record(record) for records in polled.values() for record in records]

    def positions(self) -> Mapping[TopicPartition, int]:
        """See Reader."""
        try:
            for at, partition in self._partitions.items():
                # To ask for a position costs a look at all partitions, and only a marker makes it another than we know.
                if (self._consumer.highwater(partition) or 0) > self._positions[at]:
                    self._positions[at] = self._consumer.position(partition, timeout_ms=0)
        except KafkaError as error:
            raise LogUnavailable(repr(error)) from error
        return dict(self._positions)

    def close(self) -> None:
        """See Reader."""
        _close(self._consumer)


def _consumer(bootstrap: str, name: str, most_records: int) -> Any:
    read_patiently()
    return connected(
        KafkaConsumer,
        bootstrap_servers=bootstrap,
        client_id=name,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_poll_records=most_records,
        # With Kafka's 1 MiB a reader that is behind gets few records of many partitions at a time, and so of many keys.
        max_partition_fetch_bytes=4 * 1024 * 1024,
        fetch_max_wait_ms=50,
        bootstrap_timeout_ms=_BOOTSTRAP_MS,
        reconnect_backoff_max_ms=1000,
        metrics_enabled=False,  # Nobody reads them, and they cost a tenth of its time.
    )


def _record(record: Any) -> Record:
    if isinstance(record.headers, Unreadable):
        why, at = record.headers.why[:200], {"topic": record.topic, "partition": record.partition}
        _log.warning("foreign", why="unreadable", error=why, **at, offset=record.offset)
    return Record(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        headers=tuple(record.headers),
        time_ms=record.timestamp,
        leader_epoch=-1 if record.leader_epoch is None else record.leader_epoch,
    )


def _close(consumer: Any) -> None:
    if consumer is None:
        return
    try:
        consumer.close(autocommit=False, timeout_ms=1000)
    except KafkaError as error:
        _log.warning("consumer_not_closed", error=repr(error))
