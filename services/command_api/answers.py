"""What the calls answer, as documents; `bodies` has their schemas."""

from typing import Any

from services.command_api.handler import Done
from services.command_api.state import Key, User


def revision_of(done: Done, so_already: int) -> int:
    """The position of the event that made it so, also when it was so already."""
    if done.appended is not None:
        return done.appended.revision
    return done.repeated.revision if done.repeated is not None else so_already


def of_user(org: str, user: User) -> dict[str, Any]:
    """A user."""
    return {
        "org_id": org,
        "user_id": user.user_id,
        "kind": user.kind,
        "role": user.role,
        "enabled": user.active,
        "erased": user.erased,
    }


def of_key(org: str, key: Key) -> dict[str, Any]:
    """A key, without its text."""
    return {
        "key_id": key.key_id,
        "org_id": org,
        "user_id": key.user_id,
        "name": key.name,
        "last4": key.last4,
        "scopes": key.scopes,
        "cidrs": key.cidrs,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
