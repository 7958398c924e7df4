"""Seeding a new checker with the index of one that runs, so that it need not read the whole log."""

import shutil
import tempfile
from pathlib import Path
from typing import Final

from services.auth_checker import status
from services.ledger.fold import StoreFailure

_TOPIC_IDS: Final = "topic-ids.json"


def snapshot(state_dir: Path, target: Path) -> None:
    """Make `target`, a new folder, the state of a checker that goes on where the one in `state_dir` is now.

    That one goes on meanwhile; uses that it has not sent yet stay its own. Raises ValueError with one sentence when
    there is no index in `state_dir`, `target` exists or the copy cannot be made.
    """
    if not (state_dir / "index" / "data.mdb").exists():
        raise ValueError(f"{state_dir} is not the state of a checker: it holds no index")
    if target.exists():
        raise ValueError(f"{target} exists already: name a new folder")
    try:
        # Renamed when complete, so that a copy cut short is never taken for the state of a checker.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}-") as scratch:
            made = Path(scratch) / "state"
            _copy(state_dir, made)
            made.rename(target)
    except (StoreFailure, OSError) as error:
        raise ValueError(f"the index cannot be copied: {error}") from error


def _copy(state_dir: Path, made: Path) -> None:
    running = status.open_index(state_dir, read_only=True)
    try:
        running.snapshot(made / "index")
    finally:
        running.close()
    copied = status.open_index(made)
    try:
        # The lease of the running checker says nothing about a copy, which nobody tells of a revocation.
        status.forget(copied)
    finally:
        copied.close()
    if (state_dir / _TOPIC_IDS).exists():
        shutil.copy(state_dir / _TOPIC_IDS, made)
