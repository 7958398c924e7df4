"""The read API around a real database, with a stand-in for the checker that knows some callers by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3
from flask import Flask

from schemas.times import to_ms
from schemas.validation import PLATFORM
from services.projector.app import create_app
from services.projector.callers import Callers
from services.projector.database import Pool
from services.projector.reads import Reads
from services.projector.routes import Parts
from services.projector.status import StatusFile
from tests.integration.projector_story import ADMIN, AUDITOR, MEMBER, ORG, OTHER, ROBOT

NOW_MS = to_ms("2026-11-23T16:00:00.000Z")


def _person(org: str, user: str, role: str) -> dict[str, Any]:
    return {
        "valid": True,
        "code": "VALID",
        "org_id": org,
        "user_id": user,
        "role": role,
        "kind": "person",
        "revision": 1,
    }


def _key(org: str, user: str, role: str, *scopes: str) -> dict[str, Any]:
    return _person(org, user, role) | {"kind": "service_account", "key_id": "k" * 22, "scopes": list(scopes)}


CALLERS: dict[str, dict[str, Any]] = {
    "operator": _person(PLATFORM, "user_operator", "admin"),
    "admin": _person(ORG, ADMIN, "admin"),
    "auditor": _person(ORG, AUDITOR, "auditor"),
    "member": _person(ORG, MEMBER, "member"),
    "robot": _key(ORG, ROBOT, "member", "keys:read"),
    "robot_admin": _key(ORG, ROBOT, "admin", "keys:read", "keys:write"),
    "robot_without_scope": _key(ORG, ROBOT, "admin", "keys:write"),
    "robot_unrestricted": _key(ORG, ROBOT, "admin") | {"scopes": None},
    "stranger": _person(OTHER, "user_other", "admin"),
    "platform_member": _person(PLATFORM, "user_operator", "member"),
    "late": _person("org_not_here_yet", "user_late", "admin"),
    "revoked": {"valid": False, "code": "REVOKED"},
    "elsewhere": {"valid": False, "code": "IP_NOT_ALLOWED"},
    "stale": {"valid": False, "code": "STALE"},
    "away": {},
}


class NamedCallers(Callers):
    """The token is the caller's name here."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "", urllib3.PoolManager())

    def _ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        return CALLERS.get(question["token"], {"valid": False, "code": "NOT_FOUND"})


def app_on(pool: Pool, folder: Path) -> Flask:
    return create_app(Parts(Reads(pool), NamedCallers(), StatusFile(folder / "status.json"), lambda: NOW_MS))


class Client:
    """Asks as one of the callers."""

    def __init__(self, app: Flask) -> None:
        self._client = app.test_client()

    def get(self, path: str, caller: str | None = "admin") -> Any:
        return self._client.get(path, headers={} if caller is None else {"Authorization": f"Bearer {caller}"})

    def items(self, path: str, caller: str = "admin") -> list[dict[str, Any]]:
        """All items of a list, page after page."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            answer = self.get(path + cursor, caller)
            assert answer.status_code == 200, answer.text
            found += answer.json["items"]
            if answer.json["next_cursor"] is None:
                return found
            cursor = ("&" if "?" in path else "?") + "cursor=" + answer.json["next_cursor"]
