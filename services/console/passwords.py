"""Passwords: Argon2id, and texts for people who have none yet. Key secrets have nothing to do with this."""

import re
import secrets
import unicodedata
from collections.abc import Sequence
from threading import BoundedSemaphore, Lock
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from zxcvbn import zxcvbn

SHORTEST: Final = 10
LONGEST: Final = 256
_AT_ONCE: Final = 4
_JUDGED: Final = 32  # Enough to be strong; judging takes up to 0.7 s for these, and seconds for twice as many.
_STRONG: Final = 3  # Of zxcvbn's scores 0 to 4: "safely unguessable", with a slow hash.
_WORDS: Final = re.compile(r"\w{3,}")
_judging = Lock()  # What zxcvbn is told about a person it keeps in a global while it judges.


class Passwords:
    """Hashes and verifies. Thread-safe; at most four at a time, because each takes 64 MiB."""

    def __init__(self, hasher: PasswordHasher) -> None:
        self._hasher = hasher
        self._gate = BoundedSemaphore(_AT_ONCE)
        self._nobodys = self._hasher.hash(secrets.token_urlsafe())

    def hash(self, password: str) -> str:
        """The Argon2id hash, with parameters and salt in its text."""
        with self._gate:
            return self._hasher.hash(_one_form(password))

    def verify(self, stored: str | None, password: str) -> bool:
        """Whether this is the password. Takes the same time for None, so that it does not tell who has an account."""
        with self._gate:
            try:
                self._hasher.verify(stored or self._nobodys, _one_form(password))
            except (VerifyMismatchError, InvalidHashError):
                return False
            return stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether this hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)


def weakness(password: str, about: Sequence[str]) -> str | None:
    """Why this password is easy to guess, in a sentence or two for people; None when it is not.

    `about` is what others know of its owner, such as name and e-mail address.
    """
    words = [word for text in about for word in (text, *text.split("@"), *_WORDS.findall(text))]
    with _judging:
        judged = zxcvbn(password[:_JUDGED], words)
    if judged["score"] >= _STRONG:
        return None
    feedback = judged["feedback"]
    said = [feedback["warning"], *feedback["suggestions"][:1]]
    return " ".join(text for text in said if text) or "It is easy to guess. Add another word or two."


def temporary() -> str:
    """A random password of 24 characters (144 bits)."""
    return secrets.token_urlsafe(18)


def _one_form(password: str) -> bytes:
    # Two keyboards may send the same accented letter as one code point or as two.
    return unicodedata.normalize("NFC", password).encode()
