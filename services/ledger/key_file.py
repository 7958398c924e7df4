"""Files of keys: made once, whole, and readable by this user only, however many processes start at the same time."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_once(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file of mode 0600 unless there is one already. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(document))
    try:
        os.link(draft, path)  # Fails when another process was first: then its keys are the ones.
    except FileExistsError:
        return
    finally:
        draft.unlink()
