"""Forms as bodies of the public APIs. What is wrong in them, the APIs say; here only texts become their shapes."""

import re
from collections.abc import Mapping
from typing import Any, Final

_GAPS: Final = re.compile(r"[\s,;]+")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def key_body(form: Mapping[str, str]) -> dict[str, Any]:
    """The body that creates a key. Fields: name, expires_at (a day), scopes and cidrs (separated by space or comma).

    A key expires at the end of its last day, UTC. Without a scope named it is unrestricted.
    """
    body: dict[str, Any] = {"name": form.get("name", "")}
    day = form.get("expires_at", "").strip()
    if day:
        body["expires_at"] = f"{day}T23:59:59Z" if _DAY.fullmatch(day) else day
    for field in ("scopes", "cidrs"):
        items = list(dict.fromkeys(part for part in _GAPS.split(form.get(field, "")) if part))
        if items:
            body[field] = items
    return body
