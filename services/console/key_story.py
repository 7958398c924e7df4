"""What happened to a key, in plain words: its events, and between them how often it was used. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.validation import Code
from services.console.wording import count

REASONS: Final = {
    "user_request": "its owner asked for it",
    "admin": "an admin decided so",
    "operator": "an operator decided so",
    "key_compromise": "it may have leaked",
    "superseded": "another key replaces it",
    "owner_left": "its owner has left",
    "unused": "it is not used any more",
    "other": "another reason",
}
"""Why a key was revoked; a reason of a newer version stands for itself."""
# The command API knows these by who asks.
_BY_WHO_ASKS: Final = frozenset({"user_request", "admin", "operator"})
CHOICES: Final = (
    ("", "No reason given"),
    *((code, words[:1].upper() + words[1:]) for code, words in REASONS.items() if code not in _BY_WHO_ASKS),
)
"""What people choose from when they revoke a key."""
# Where on its day something stands: a key is used after it was created and before it was revoked, but for refusals.
_ON_ITS_DAY: Final = {"KeyCreated": 0, "KeyRenamed": 1, "KeyRevoked": 3}
_USED, _STILL_TRIED = 2, 4


@dataclass(frozen=True, slots=True)
class Entry:
    """An event, `by` whom and `why` where that is known, with its place in the ledger; or uses, which have none."""

    what: str
    time: str | None = None
    by: str = ""
    why: str = ""
    revision: int | None = None
    hash: str = ""
    parent: str = ""


@dataclass(slots=True)
class _Uses:
    accepted: int = 0
    refused: int = 0


def story(
    events: Iterable[Mapping[str, Any]],
    counts: Iterable[Mapping[str, Any]],
    name_of: Callable[[Mapping[str, Any]], str],
) -> list[Entry]:
    """The events of a key's history and its uses by day and outcome, oldest first; `name_of` names an actor."""
    placed: list[tuple[str, int, Any]] = [
        (one["time"][:10], _ON_ITS_DAY.get(one["type"], _USED), _event(one, name_of)) for one in events
    ]
    placed += [(one["start"][:10], _STILL_TRIED if one["outcome"] == Code.REVOKED else _USED, one) for one in counts]
    told: list[Entry] = []
    uses = _Uses()
    for _, _, one in sorted(placed, key=lambda place: place[:2]):
        if isinstance(one, Entry):
            told += [*_used(uses), one]
            uses = _Uses()
        elif one["outcome"] == Code.VALID:
            uses.accepted += one["count"]
        else:
            uses.refused += one["count"]
    return [*told, *_used(uses)]


def why_revoked(data: Mapping[str, Any]) -> str:
    """`it may have leaked: seen in a chat`, from the data of a KeyRevoked."""
    reason = str(data.get("reason"))
    return ": ".join(text for text in (REASONS.get(reason, reason), data.get("comment")) if text)


def _event(event: Mapping[str, Any], name_of: Callable[[Mapping[str, Any]], str]) -> Entry:
    data, why = event["data"] or {}, ""
    match event["type"]:
        case "KeyCreated":
            what = f"Created as “{data.get('name')}”"
        case "KeyRenamed":
            what = f"Renamed to “{data.get('name')}”"
        case "KeyRevoked":
            what, why = "Revoked", why_revoked(data)
        case other:
            what = str(other)
    by = name_of(event["actor"]) if event["actor"] else ""
    return Entry(what, event["time"], by, why, event["revision"], event["hash"], event["parent"])


def _used(uses: _Uses) -> list[Entry]:
    """`Used 1,000 times`, `Refused 3 times`, or both."""
    parts = [
        f"{word} {count(number, 'time')}"
        for word, number in (("used", uses.accepted), ("refused", uses.refused))
        if number
    ]
    return [Entry(", ".join(parts).capitalize())] if parts else []
