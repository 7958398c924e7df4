"""An organisation of a test's own in a running system: its people, their tokens, and every revision it was answered."""

import os
from typing import Any

from tests.end_to_end.system import Answer, System
from tests.waiting import eventually

FULL = os.environ.get("KEYLEDGER_FULL") == "1"
"""The full form of a heavy test; otherwise the small one, which is part of every run."""


class Org:
    """Registered by the operator, with keys switched on and an admin named `admin`. Thread-safe after that."""

    def __init__(self, system: System, org_id: str) -> None:
        self.system, self.id = system, org_id
        self.path = f"/v1/orgs/{org_id}"
        self.answered: set[int] = set()
        self.users: dict[str, str] = {}
        self.made("operator", "POST", "/v1/orgs", {"org_id": org_id})
        self.add("admin", role="admin")
        self.made("admin", "PUT", f"{self.path}/keys-enabled", {"enabled": True})

    def add(self, who: str, kind: str = "person", role: str = "member") -> str:
        """Add a user and wait until it can sign in; gives its id."""
        body = {"name": who, "email": f"{who}@{self.id}.test", "kind": kind, "role": role}
        if kind == "service_account":
            added = self.made("operator", "POST", f"{self.path}/users", {"kind": kind, "role": role})
        else:
            body["password"] = self.password(who)
            answer = self.system.call("console", "POST", f"{self.path}/users", body, self.system.token("operator"))
            assert answer.status == 201, answer
            added = answer.json
            self.answered.add(added["revision"])
        self.users[who] = added["user_id"]
        if kind == "person":
            eventually(lambda: self.token(who), 15, f"{who} to be able to sign in")
        return self.users[who]

    def token(self, who: str) -> str:
        """A signed token of one of its people, or of the operator."""
        if who == "operator":
            return self.system.token(who)
        return self.system.signed_in(f"{who}@{self.id}.test", self.password(who))

    def call(self, who: str, method: str, path: str, body: Any = None, at: int = 0, **headers: str) -> Answer:
        """A call to a command API; remembers the revision that it answers."""
        answer = self.system.call("command", method, path, body, self.token(who), at, **headers)
        if answer.status in {200, 201}:
            self.answered.add(answer.json["revision"])
        return answer

    def made(self, who: str, method: str, path: str, body: Any = None, at: int = 0) -> Any:
        """The same, which must succeed; its JSON."""
        answer = self.call(who, method, path, body, at)
        assert answer.status in {200, 201}, answer
        return answer.json

    def create(self, who: str, name: str, at: int = 0) -> Any:
        """A new key of one of its people, with its text under `key`."""
        return self.made(who, "POST", f"{self.path}/keys", {"name": name}, at)

    def read(self, path: str = "", at: int = 0) -> Answer:
        """A call to the read API about this organisation, as the operator."""
        return self.system.call("read", "GET", self.path + path, token=self.system.token("operator"), at=at)

    def password(self, who: str) -> str:
        """What one of its people signs in with, beside `<who>@<org id>.test`."""
        return f"the password of {who} in {self.id}"
