"""Other people's servers, from runnable examples that stand beside this repository or where KEYLEDGER_PEERS says.

They install what they need into `var/peers`, once; their keys are made anew in each run.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg

from benchmarks.measure import NotMeasured
from benchmarks.processes import System
from services.embedded.ports import free_ports

INSTALLED: Final = Path("var/peers")


def script(peer: str) -> Path:
    """What starts a peer. Raises NotMeasured when it is not there."""
    path = Path(os.environ.get("KEYLEDGER_PEERS") or "../shared/peers") / peer / "run.sh"
    if not path.exists():
        raise NotMeasured(f"{path} is not there; KEYLEDGER_PEERS names the folder of the peers")
    return path.absolute()


class Peer:
    """A server of API keys on PostgreSQL; `keys` are the texts of its 100,000 keys once it ran."""

    def __init__(self, system: System, name: str, *options: str) -> None:
        self._system, self._name, self._options = system, name, options
        self._folder = (INSTALLED / name).absolute()
        self._database_url = ""

    @property
    def keys(self) -> list[str]:
        """Their texts."""
        return (self._folder / "keys.txt").read_text().split()

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Serve while the block runs, installed and filled before; gives the port."""
        self._database_url = self._database_url or self._new_database()
        port = free_ports()[0]
        command = ["bash", str(script(self._name)), str(self._folder), str(port), self._database_url, *self._options]
        with self._system.serving(self._name, command, port, {}):
            yield port

    def _new_database(self) -> str:
        """An empty one; and without this file the peer does not take its keys for stored."""
        (self._folder / "keys.txt").unlink(missing_ok=True)
        with psycopg.connect(self._system.database_url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{self._name}"')
        return self._system.database_url.rpartition("/")[0] + f"/{self._name}"
