"""Stands for the command API and the auth checker in tests of the console: one small ledger in memory behind HTTP."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from schemas.problems import Problem
from schemas.tokens import BadToken, KeySet, looks_signed, verify

CHECKER_TOKEN = "the checker's callers"


@dataclass
class User:
    role: str
    kind: str
    active: bool = True


@dataclass
class Key:
    org: str
    owner: str
    name: str
    revoked: bool = False


@dataclass
class Ledger:
    """`refused` maps API keys to the checker's code. `trouble` is asked about every command, with `before` and `after` it is done; it may raise Problem or Cut. `uses` has key name, address and code of each validation. `answers`, by method and path, come before everything but who is calling; `asked` has what came for them: method, path, query, body."""

    jwks: Callable[[], Mapping[str, Any]]
    orgs: dict[str, dict[str, User]] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    keys_enabled: set[str] = field(default_factory=set)
    keys: dict[str, Key] = field(default_factory=dict)
    uses: list[tuple[str, str, str]] = field(default_factory=list)
    api_keys: dict[str, tuple[str, str, list[str]]] = field(default_factory=dict)
    answered: dict[tuple[str, ...], tuple[int, dict[str, Any]]] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    callers: list[dict[str, Any]] = field(default_factory=list)
    trouble: Callable[[str, str], None] = lambda _when, _what: None
    stale: bool = False
    not_caught_up: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    answers: dict[tuple[str, str], tuple[int, dict[str, Any] | bytes, dict[str, str]]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.key_set = KeySet(self.published_keys, retry_s=0)

    def published_keys(self) -> Mapping[str, Any]:
        return self.jwks()

    def seed(self, org: str, user: str, role: str, kind: str = "person") -> int:
        """A user that is in the ledger already."""
        self.orgs.setdefault(org, {})[user] = User(role, kind)
        return self.move(org)

    def move(self, org: str) -> int:
        self.revisions[org] = self.revisions.get(org, 0) + 1
        return self.revisions[org]

    def told(
        self, method: str, address: str, body: dict[str, Any]
    ) -> tuple[int, dict[str, Any] | bytes, dict[str, str]] | None:
        """The answer that a test gave for this path."""
        path, _, query = address.partition("?")
        if (method, path) not in self.answers:
            return None
        self.asked.append((method, path, dict(parse_qsl(query)), body))
        if self.not_caught_up and "min_revision" in query:
            raise Problem(503, "not_caught_up", "the revision is not here yet")
        return self.answers[method, path]

    def who(self, token: str) -> dict[str, Any]:
        """The checker's answer."""
        if self.stale:
            return {"valid": False, "code": "STALE"}
        if token in self.refused:
            return {"valid": False, "code": self.refused[token]}
        key: dict[str, Any] = {}
        if looks_signed(token):
            try:
                claims = verify(token, self.key_set.key_of, time.time())
            except BadToken:
                return {"valid": False, "code": "NOT_FOUND"}
            org, sub = claims.org, claims.sub
            if claims.rev > self.revisions.get(org, 0):
                return {"valid": False, "code": "STALE"}
        elif token in self.api_keys:
            org, sub, scopes = self.api_keys[token]
            key = {"key_id": "k" * 22, "scopes": scopes}
        else:
            return {"valid": False, "code": "NOT_FOUND"}
        user = self.orgs.get(org, {}).get(sub)
        if user is None or not user.active:
            return {"valid": False, "code": "NOT_FOUND" if user is None else "OWNER_DISABLED"}
        about = {"org_id": org, "user_id": sub, "role": user.role, "kind": user.kind, "revision": self.revisions[org]}
        return {"valid": True, "code": "VALID", **about, **key}

    def command(self, method: str, path: str, token: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The command API's answer: rights, then what was already done, then the doing."""
        caller = self._caller(token)
        done = (caller, method, path, key)
        if key and done in self.answered:
            status, document = self.answered[done]
            return status, document | ({"key": None, "key_withheld": True} if "key" in document else {})
        steps = path.strip("/").split("/")
        org = body["org_id"] if path == "/v1/orgs" else steps[2]
        operator = caller.startswith("platform/") or caller == "bootstrap"
        if not operator and caller.split("/")[0] != org:
            raise Problem(404, "not_found", "no such organisation")
        if caller == "bootstrap" and any(user.role == "admin" for user in self.orgs.get("platform", {}).values()):
            raise Problem(403, "forbidden", "the platform has an admin")
        if steps[3:4] == ["keys"]:
            answer = self._do_with_key(method, steps[4:], org, body)
        else:
            answer = self._do(method, steps[3:], org, body)
        self.answered[done] = answer
        return answer

    def _do(self, method: str, steps: list[str], org: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        match method, steps:
            case "POST", []:
                if org in self.orgs:
                    raise Problem(409, "org_exists", "there is one")
                self.orgs[org] = {}
                return 201, {"org_id": org, "name": body["name"], "revision": self.move(org)}
            case "PUT", ["keys-enabled"]:
                self.keys_enabled.add(org)
                return 200, {"org_id": org, "revision": self.move(org)}
            case "POST", ["users"]:
                user = f"u{sum(map(len, self.orgs.values())) + 1}"
                self.orgs[org][user] = User(body["role"], body["kind"])
                return 201, {"user_id": user, "org_id": org, **body, "revision": self.move(org)}
            case "DELETE", ["users", user]:
                if user not in self.orgs[org]:
                    raise Problem(404, "not_found", "no such user")
                admins = [name for name, one in self.orgs[org].items() if one.active and one.role == "admin"]
                if admins == [user]:
                    raise Problem(409, "last_admin", "an organisation keeps one")
                self.orgs[org][user].active = False
                return 200, {"user_id": user, "org_id": org, "revision": self.move(org)}
        raise Problem(404, "not_found", "no such call")

    def _do_with_key(self, method: str, steps: list[str], org: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        match method, steps:
            case "POST", []:
                key_id = f"{len(self.keys):022}"
                self.keys[key_id] = Key(org, body["user_id"], body["name"])
                made = {"org_id": org, "key_id": key_id, "key": f"text of {key_id}", "revision": self.move(org)}
                return 201, {**body, **made}
            case "DELETE", [key_id] if key_id in self.keys:
                self.keys[key_id].revoked = True
                return 200, {"key_id": key_id, "org_id": org, "revision": self.move(org)}
        raise Problem(404, "not_found", "no such call")

    def tell(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the checker answers."""
        if path == "/v1/callers":
            self.callers.append(body)
            return self.who(body["token"])
        return {"items": [self._validate(question) for question in body["items"]]}

    def _validate(self, question: dict[str, Any]) -> dict[str, Any]:
        key = self.keys[question["key"].removeprefix("text of ")]
        org, _, revision = question["min_revision"].partition(":")
        if int(revision) > self.revisions[org]:
            return {"valid": False, "code": "STALE"}
        code = "REVOKED" if key.revoked else "VALID"
        self.uses.append((key.name, question["ip"], code))
        return {"valid": not key.revoked, "code": code}

    def _caller(self, token: str) -> str:
        if looks_signed(token):
            claims = verify(token, self.key_set.key_of, time.time())
            if claims.sub == "bootstrap":
                return "bootstrap"
        answer = self.who(token)
        if not answer["valid"]:
            raise Problem(401, "bad_token", "who is this?")
        return f"{answer['org_id']}/{answer['user_id']}"


class Cut(Exception):
    """The connection ends without an answer."""


@contextmanager
def serving(ledger: Ledger) -> Iterator[str]:
    """Both services behind one address, for the length of a `with`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            headers: dict[str, str] = {}
            try:
                status, document, headers = ledger.told(self.command, self.path, body) or (*self.judge(body, token), {})
                raw = document if isinstance(document, bytes) else json.dumps(document).encode()
            except Problem as problem:
                status, raw = problem.status, problem.body()
            except Cut:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def judge(self, body: dict[str, Any], token: str) -> tuple[int, dict[str, Any]]:
            if self.path == "/readyz":
                return 200, {}
            if self.path in ("/v1/callers", "/v1/validations/batch"):
                return (200, ledger.tell(self.path, body)) if token == CHECKER_TOKEN else (401, {})
            what = f"{self.command} {self.path}"
            ledger.trouble("before", what)
            with ledger.lock:
                answer = ledger.command(self.command, self.path, token, self.headers.get("Idempotency-Key", ""), body)
                ledger.commands.append(what)
            ledger.trouble("after", what)
            return answer

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 -- the names that the library calls

        def log_message(self, *_: object) -> None:
            """Tests print what they need."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
