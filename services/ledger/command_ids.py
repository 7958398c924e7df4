"""The command ids of the last 24 hours, so that a repeated command finds its first event instead of making another."""

from typing import Final

import msgspec

from schemas import times
from schemas.events import Envelope
from services.ledger.store import Transaction

TABLES: Final = ("commands", "command_times")
KEPT_MS: Final = 24 * 3600 * 1000
_FORGET_AT_ONCE: Final = 8


class Remembered(msgspec.Struct, frozen=True):
    """What a command did: the revision and subject of its event, and the hash of its body."""

    revision: int
    subject: str
    commandhash: str
    time: str


class CommandIds:
    """The command ids of one organisation, in one transaction of a store with TABLES."""

    def __init__(self, txn: Transaction, org: str) -> None:
        self._txn, self._org = txn, org.encode()

    def find(self, commandid: str) -> Remembered | None:
        """The event that this command made, if it was at most 24 hours before the organisation's newest event."""
        value = self._txn.get("commands", self._org + b"\0" + commandid.encode())
        return None if value is None else msgspec.msgpack.decode(value, type=Remembered)

    def remember(self, envelope: Envelope) -> None:
        """Keep an applied event's command id, and forget some that are over 24 hours older than it."""
        made = Remembered(envelope.revision, envelope.subject, envelope.commandhash, envelope.time)
        at = self._org + b"\0" + envelope.commandid.encode()
        self._txn.put("commands", at, msgspec.msgpack.encode(made))
        self._txn.put("command_times", self._time(envelope.time) + envelope.commandid.encode(), b"")
        self._forget(self._time(times.to_text(max(times.EARLIEST_MS, times.to_ms(envelope.time) - KEPT_MS))))

    def _forget(self, before: bytes) -> None:
        old: list[bytes] = []
        for at, _ in self._txn.scan("command_times", self._org + b"\0"):
            if at >= before or len(old) == _FORGET_AT_ONCE:
                break
            old.append(at)
        for at in old:
            self._txn.delete("command_times", at)
            self._txn.delete("commands", self._org + b"\0" + at.rsplit(b"\0", 1)[1])

    def _time(self, time: str) -> bytes:
        return self._org + b"\0" + time.encode() + b"\0"
