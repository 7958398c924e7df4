"""Making ids and key texts: the only place of this service where randomness comes from."""

import random
import secrets
from dataclasses import dataclass
from uuid import UUID

from schemas import key_text
from schemas.times import wall_clock_ms


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A fresh key: `text` goes into one HTTP response and nowhere else; the rest into the event."""

    key_id: str
    text: str
    digest: str
    last4: str

    def __repr__(self) -> str:
        """Leave the text out: it must not reach a log or a trace."""
        return f"MintedKey({self.key_id})"


def uuid7(now_ms: int, random_bits: int) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7) from milliseconds since 1970 and 74 random bits."""
    high, low = random_bits >> 62 & 0xFFF, random_bits & (1 << 62) - 1
    return UUID(int=now_ms << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)


class Sources:
    """Time, ids and chance for the ledger's appender and for the handler."""

    def now_ms(self) -> int:
        """Wall time, milliseconds since 1970."""
        return wall_clock_ms()

    def new_id(self) -> str:
        """A fresh UUIDv7 as text."""
        return str(uuid7(self.now_ms(), secrets.randbits(74)))

    def short_id(self) -> str:
        """A fresh UUIDv7 in 22 base62 characters: a user, a key, an organisation."""
        return key_text.id_text(uuid7(self.now_ms(), secrets.randbits(74)))

    def jitter_s(self) -> float:
        """How long to step back after a lost race."""
        return random.uniform(0.001, 0.02)  # noqa: S311 -- spreads writers out, protects nothing

    def mint(self, prefix: str) -> MintedKey:
        """A fresh key."""
        key_id = self.short_id()
        text = key_text.compose(key_id, secrets.token_bytes(32), prefix)
        return MintedKey(key_id, text, key_text.digest(text), text[-4:])
