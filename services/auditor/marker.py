"""The sealed record that keeps an organisation closed while its ledger is behind what a reader has seen of it.

It follows the furthest known head: whoever folds the shorter ledger finds a gap, or a fork, and halts the organisation.
It applies once the missing events are in the log, and then says nothing; or an operator sets it aside.
"""

from hashlib import sha256
from typing import Final
from uuid import UUID

from schemas.codec import encode
from schemas.events import Envelope, LedgerResumed
from schemas.times import to_text
from schemas.topics import LIFECYCLE, partition_of
from services.auditor.known_heads import Known
from services.ledger.log import Message
from services.ledger.seal import LedgerKeys

WRITER: Final = "keyledger-restore"


def marker(known: Known, revision: int, keys: LedgerKeys, now_ms: int) -> Message:
    """The marker after a known head; `revision` is the one after it, or another one that halts."""
    # Made from the head, so that two restores at once write one command.
    identity = sha256(f"{known.org} {known.revision} {known.hash}".encode())
    value = encode(
        Envelope(
            id=str(UUID(bytes=identity.digest()[:16], version=5)),
            source="keyledger/restore",
            subject=known.org,
            time=to_text(now_ms),
            org=known.org,
            revision=revision,
            parent=known.hash,
            authid=WRITER,
            authtype="operator",
            commandid=identity.hexdigest(),
            commandhash=sha256(b"restore").hexdigest(),
            event=LedgerResumed((), f"revision {known.revision} was known to a reader and was not in the restored log"),
        )
    )
    headers = (("ce_type", LedgerResumed.__name__.encode()), *keys.seal(value))
    return Message(LIFECYCLE, partition_of(known.org), known.org.encode(), value, headers)
