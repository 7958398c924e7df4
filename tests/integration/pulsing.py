"""Checkers that are only their pulses: what they say on `checker-status` is up to the test."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex
from threading import Event, Thread

from schemas import checker_status
from schemas.checker_status import Floor, Pulse
from schemas.topics import CHECKER_STATUS, LIFECYCLE, PARTITIONS
from services.ledger.log import Log, Message
from services.ledger.records import TopicPartition
from services.ledger.seal import Headers, LedgerKeys
from tests.integration.command_log import records_of

_PARTITIONS = [TopicPartition(LIFECYCLE, partition) for partition in range(PARTITIONS)]


class PulsingChecker:
    """One incarnation of a checker."""

    def __init__(self, log: Log, keys: LedgerKeys, checker: str = "checker") -> None:
        self._log, self._keys = log, keys
        self.checker, self.incarnation, self.number = checker, token_hex(16), 0

    def pulse(self, positions: Mapping[int, int] | None = None) -> int:
        """Say that all before these positions is applied, when None all there is; the offset of the record."""
        self.number += 1
        reached = ends_of(self._log) if positions is None else positions
        pulse = Pulse(self.checker, self.incarnation, self.number, reached)
        value = checker_status.encode(pulse)
        return say(self._log, checker_status.message_key(pulse), value, self._keys.seal(value))


@contextmanager
def pulsing(log: Log, keys: LedgerKeys, every_s: float = 0.02) -> Iterator[PulsingChecker]:
    """A checker that has always applied all there is, and says so again and again, for the length of a `with`."""
    checker, stopping = PulsingChecker(log, keys), Event()

    def run() -> None:
        while not stopping.wait(every_s):
            checker.pulse()

    checker.pulse()
    thread = Thread(target=run)
    thread.start()
    try:
        yield checker
    finally:
        stopping.set()
        thread.join()


def say(log: Log, key: bytes, value: bytes, headers: Headers = ()) -> int:
    """Append any bytes to `checker-status`; the offset."""
    return log.append(Message(CHECKER_STATUS, checker_status.PARTITION, key, value, headers), 5)


def ends_of(log: Log) -> dict[int, int]:
    """The next offset of each partition of `key-lifecycle`."""
    return {at.partition: end for at, end in log.end_offsets(_PARTITIONS, 5).items()}


def floors_of(log: Log, keys: LedgerKeys) -> list[Floor]:
    """Every sealed floor of `checker-status`, in order."""
    records = records_of(log, CHECKER_STATUS, checker_status.PARTITION)
    said = [checker_status.decode(record.value) for record in records if keys.is_sealed(record)]
    return [floor for floor in said if isinstance(floor, Floor)]
