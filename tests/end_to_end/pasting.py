"""Runs what the docs tell people to paste."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def paste(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell in this folder, with our source at hand, makes of the text; it ends at the first error."""
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", text],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
