"""What happened in an organisation, event by event, in plain words. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.console.key_story import why_revoked
from services.console.wording import ROLES, count

TYPES: Final = {
    "OrgRegistered": "Organisation registered",
    "OrgKeysEnabled": "API keys turned on",
    "OrgKeysDisabled": "API keys turned off",
    "UserAdded": "User added",
    "UserRoleChanged": "Role changed",
    "UserDisabled": "User disabled",
    "UserEnabled": "User enabled",
    "PersonErased": "User erased",
    "KeyCreated": "API key created",
    "KeyRenamed": "API key renamed",
    "KeyRevoked": "API key revoked",
    "LedgerResumed": "Resumed after a halt",
}
"""Every type of event, as people choose from them; one of a newer version stands for itself."""
_KINDS: Final = {"person": "Person", "service_account": "Service account"}


@dataclass(frozen=True, slots=True)
class Told:
    """An event: `what` happened, to the user `user_id` (said after `joint`), and `why`, where that is known.

    `key_name` is what the key was called from then on; None where the event does not say.
    """

    what: str
    user_id: str | None = None
    joint: str = ": "
    why: str = ""
    key_id: str | None = None
    key_name: str | None = None


def tell(event: Mapping[str, Any]) -> Told:
    """An event of the read API's history."""
    data, kind = event["data"] or {}, str(event["type"])
    what, user = TYPES.get(kind, kind), _text(data, "user_id")
    match kind:
        case "OrgRegistered":
            return Told(f"{what} as “{data['name']}”" if data.get("name") else what)
        case "OrgKeysEnabled" | "OrgKeysDisabled":
            return Told(what, why=_text(data, "reason") or "")
        case "LedgerResumed":
            aside = count(len(data.get("offsets") or ()), "record")
            return Told(f"{what}, with {aside} set aside", why=_text(data, "reason") or "")
        case "UserAdded":
            added = _KINDS.get(str(data.get("kind")), "User")
            return Told(f"{added} added as {_role(data)}", user)
        case "UserRoleChanged":
            return Told(f"Role changed to {_role(data)}", user)
        case "KeyCreated":
            # Whose key it is says who did it, unless somebody else created it.
            owner = None if user == (event["actor"] or {}).get("user_id") else user
            return Told(what, owner, " for ", "", _text(data, "key_id"), _text(data, "name"))
        case "KeyRenamed":
            name = _text(data, "name")
            return Told(f"API key renamed to “{name}”", key_id=_text(data, "key_id"), key_name=name)
        case "KeyRevoked":
            return Told(what, why=why_revoked(data), key_id=_text(data, "key_id"))
        case _:
            return Told(what, user, key_id=_text(data, "key_id"))


def _role(data: Mapping[str, Any]) -> str:
    role = str(data.get("role"))
    return ROLES.get(role, role)


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    return value if isinstance(value, str) else None
