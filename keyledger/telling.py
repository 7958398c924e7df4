"""What the commands have in common: where things are, and how an outcome is told."""

import os
from pathlib import Path
from typing import Protocol


class Outcome(Protocol):
    """`text` is for a person; `is_good` is false where somebody must look."""

    @property
    def text(self) -> str:
        """In words."""

    @property
    def is_good(self) -> bool:
        """Whether all is well."""


def database_url() -> str:
    """DATABASE_URL. Raises ValueError."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        raise ValueError("DATABASE_URL must say where the projector's PostgreSQL is")
    return url


def ledger_keys() -> Path:
    """The file that KEYLEDGER_LEDGER_KEYS names. Raises ValueError."""
    path = os.environ.get("KEYLEDGER_LEDGER_KEYS")
    if not path:
        raise ValueError("KEYLEDGER_LEDGER_KEYS must name the services' ledger-keys file")
    return Path(path)


def tell(outcome: Outcome) -> int:
    """Print it; the exit code."""
    print(outcome.text)
    return 0 if outcome.is_good else 1
