"""The numbers of a publisher's uses, kept in a file over restarts: dense from 1 for each partition of a source.

Readers drop copies by them, and see what was lost. The file must never be copied: two publishers with one source would
have their uses dropped as copies of each other's.
"""

import fcntl
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any, Final

from schemas.topics import PARTITIONS

_RANDOM: Final = re.compile("[0-9a-f]{32}")


class StateInUse(ValueError):
    """Another publisher has this file open: give each process a file of its own."""


class Numbers:
    """The last number taken of each partition. `save` before a record is sent; not thread-safe.

    `source` is unique to the file: the name of the service and a random text.
    """

    def __init__(self, path: Path, service: str) -> None:
        """Open the file, made when missing. Raises StateInUse; ValueError when it is another service's, or damaged."""
        self._path = path
        # Beside the file, since saving puts a new file in its place. The kernel lets go of it when the process ends.
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.source, self._taken = _read(path, service)
        except BlockingIOError as error:
            os.close(self._lock)
            raise StateInUse(f"{path} is in use by another publisher: give each process a file of its own") from error
        except ValueError:
            os.close(self._lock)
            raise
        self._saved: list[int] = []

    def next(self, partition: int) -> int:
        """The number that comes after the last one taken."""
        return self._taken[partition] + 1

    def take(self, partition: int) -> None:
        """The number that `next` gave is used."""
        self._taken[partition] += 1

    def taken(self) -> list[int]:
        """A copy of the last numbers taken, for `save`."""
        return list(self._taken)

    def save(self, taken: list[int]) -> None:
        """Make sure that after any kind of stop no number up to these is given again. Raises OSError.

        Written through to the disk: a number that was used for two records would let readers drop the second.
        """
        if taken == self._saved:
            return
        new = self._path.with_name(self._path.name + ".new")
        with new.open("w", encoding="ascii") as file:
            json.dump({"source": self.source, "taken": taken}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._saved = taken

    def close(self) -> None:
        """Let another publisher have the file."""
        os.close(self._lock)


def _read(path: Path, service: str) -> tuple[str, list[int]]:
    if not path.exists():
        return f"{service}/{secrets.token_hex(16)}", [0] * PARTITIONS
    try:
        document: Any = json.loads(path.read_bytes())
        source, taken = document["source"], document["taken"]
        owner, _, random = source.rpartition("/")
        intact = len(taken) == PARTITIONS and all(type(number) is int and number >= 0 for number in taken)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path) from error
    if not intact or not _RANDOM.fullmatch(random):
        raise _damaged(path)
    if owner != service:
        raise ValueError(f"{path} holds the numbers of {owner!r}, not of {service!r}")
    return source, taken


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path} is no state of a publisher; when it is removed, a new source begins")
