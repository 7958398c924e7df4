"""A command API in this process: real store, follower and callers; the log, the console and the checker stand beside."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask import Flask
from prometheus_client import CollectorRegistry
from werkzeug.test import TestResponse

from schemas import tokens
from schemas.key_text import parse
from schemas.problems import MEDIA_TYPE
from schemas.topics import LIFECYCLE, PARTITIONS
from services.command_api.app import Parts, create_app
from services.command_api.callers import Callers, Checker, fetch_jwks
from services.command_api.effects import Effects, boot_ns
from services.command_api.handler import TABLES, CommandFold, CommandHandler
from services.command_api.minting import Sources
from services.command_api.state import LmdbView
from services.command_api.usage_intake import UsageIntake
from services.ledger.append import Appender
from services.ledger.chain import Head
from services.ledger.follow import Follower
from services.ledger.lmdb_chain import CHAIN_TABLES, LmdbChain, LmdbHandler
from services.ledger.log import Log
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from services.ledger.seal import LedgerKeys, new_keys
from services.ledger.store import Store
from tests.waiting import eventually

CHECKER_TOKEN = "the checker's callers"
KID = "console-1"


class ShiftedSources(Sources):
    """Wall time, and as much more as a test says."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@dataclass
class Beside:
    """The console's JWKS and the checker's POST /v1/callers. `store` is the command API's, read for roles."""

    store: Store
    signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    api_keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    says: dict[str, Any] | None = None
    console_away: bool = False

    def answer(self, path: str, authorization: str, body: Any) -> tuple[int, Any]:
        """What is answered to a request: status and document."""
        if path == "/.well-known/jwks.json":
            return (500, {}) if self.console_away else (200, self.jwks())
        if authorization != f"Bearer {CHECKER_TOKEN}":
            return 401, {}
        self.asked.append(body)
        return (200, self.says or self._who(body["token"])) if self.says != {} else (503, {})

    def jwks(self) -> dict[str, Any]:
        """The console's public keys."""
        return {"keys": [tokens.jwk_of(self.signing.public_key(), KID)]}

    def _who(self, token: str) -> dict[str, Any]:
        if token in self.api_keys:
            return self._user({"valid": True, "code": "VALID", **self.api_keys[token]})
        if not tokens.looks_signed(token):
            return {"valid": False, "code": "NOT_FOUND"}
        claims = tokens.verify(token, lambda _: self.signing.public_key(), time.time())
        return self._user({"valid": True, "code": "VALID", "org_id": claims.org, "user_id": claims.sub})

    def _user(self, answer: dict[str, Any]) -> dict[str, Any]:
        with self.store.read() as txn:
            user = LmdbView(txn, answer["org_id"]).user(answer["user_id"])
            revision = LmdbChain(txn).head(answer["org_id"]).revision
        if user is None or not user.active:
            return {"valid": False, "code": "OWNER_DISABLED"}
        return answer | {"role": user.role, "kind": user.kind, "revision": revision}


@dataclass
class CommandWorld:
    """Everything that a test of the command API touches."""

    app: Flask
    log: Log
    store: Store
    follower: Follower
    appender: Appender
    sources: ShiftedSources
    beside: Beside
    effects: Effects
    operator_id: str = ""

    def token(self, org: str, user: str, rev: int = 0, life_s: int = 300) -> str:
        """The token of a signed-in person."""
        return tokens.sign(tokens.Claims(user, org, rev, int(time.time()) + life_s), self.beside.signing, KID)

    def call(self, method: str, path: str, token: str | None, body: Any = None, **headers: str) -> TestResponse:
        """One request; `headers` with _ for -. A body given as bytes is sent as it is."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["Authorization"] = f"Bearer {token}"
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        media_type = named.pop("Content-Type", "application/json")
        return self.app.test_client().open(path, method=method, headers=named, data=raw, content_type=media_type)

    def done(self, method: str, path: str, token: str | None, body: Any = None, **headers: str) -> dict[str, Any]:
        """One request that must succeed."""
        answer = self.call(method, path, token, body, **headers)
        assert answer.status_code < 300, answer.get_data(as_text=True)
        document: dict[str, Any] = answer.get_json()
        return document

    def operator(self) -> str:
        """A token of the first operator; sets the installation up when that was not done."""
        bootstrap = self.token("platform", "bootstrap")
        if self.head("platform").revision == 0:
            self.done("POST", "/v1/orgs", bootstrap, {"org_id": "platform"})
            user = self.done("POST", "/v1/orgs/platform/users", bootstrap, {"kind": "person", "role": "admin"})
            self.operator_id = user["user_id"]
        return self.token("platform", self.operator_id)

    def org(self, org: str) -> str:
        """A new organisation with its keys on; a token of its admin."""
        operator = self.operator()
        self.done("POST", "/v1/orgs", operator, {"org_id": org})
        self.done("PUT", f"/v1/orgs/{org}/keys-enabled", operator, {"enabled": True})
        return self.user(org, "admin")[1]

    def user(self, org: str, role: str, kind: str = "person") -> tuple[str, str]:
        """A new user: id and token."""
        body = {"kind": kind, "role": role}
        user_id = self.done("POST", f"/v1/orgs/{org}/users", self.operator(), body)["user_id"]
        return user_id, self.token(org, user_id)

    def key(self, org: str, token: str, name: str = "ci", **more: Any) -> dict[str, Any]:
        """A new key, as it is answered; the checker knows it from here on."""
        key = self.done("POST", f"/v1/orgs/{org}/keys", token, {"name": name, **more})
        self.beside.api_keys[key["key"]] = {name: key[name] for name in ("org_id", "user_id", "key_id", "scopes")}
        assert parse(key["key"]) is not None
        return key

    def head(self, org: str) -> Head:
        """The head of an organisation's ledger."""
        with self.store.read() as txn:
            return LmdbChain(txn).head(org)

    def is_halted(self, org: str) -> bool:
        """Whether the organisation is closed."""
        with self.store.read() as txn:
            return LmdbChain(txn).halt(org) is not None


def check_problem(answer: TestResponse) -> dict[str, Any]:
    """Every refusal is a problem with a code, in the right media type, not to be cached."""
    document: dict[str, Any] = answer.get_json(force=True)
    assert answer.mimetype == MEDIA_TYPE
    assert document["status"] == answer.status_code
    assert re.fullmatch("[a-z_]+", document["code"])
    assert document["title"]
    assert document["detail"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert "X-Outcome" not in answer.headers
    assert ("WWW-Authenticate" in answer.headers) is (answer.status_code == 401)
    assert ("Retry-After" in answer.headers) is (answer.status_code == 503)
    return document


def hurried(log: Log, store: Store, keys: LedgerKeys) -> Effects:
    """Effects by a clock that runs a hundred times as fast: nobody waits 100 ms for a checker that is not there."""
    return Effects(log, store, keys, 1, 8, lambda: boot_ns() * 100)


@contextmanager
def running_command_api(
    folder: Path,
    log: Log | None = None,
    keys: LedgerKeys | None = None,
    most_keys: int = 100,
    effects_of: Callable[[Log, Store, LedgerKeys], Effects] = hurried,
) -> Iterator[CommandWorld]:
    """A command API on its own store in `folder`, for the length of a `with`."""
    log, keys, sources, registry = log or MemoryLog(), keys or new_keys(), ShiftedSources(), CollectorRegistry()
    store = Store(folder / "ledger", (*CHAIN_TABLES, *TABLES))
    partitions = [TopicPartition(LIFECYCLE, partition) for partition in range(PARTITIONS)]
    follower = Follower(log, partitions, LmdbHandler(store, keys, CommandFold), "test")
    appender = Appender(log, store, follower, keys, f"keyledger/command-api/{folder.name}", sources)
    beside = Beside(store)
    effects = effects_of(log, store, keys)
    follower.start()
    effects.start()
    with _serving(beside) as url:
        callers = Callers(tokens.KeySet(fetch_jwks(url), retry_s=0), Checker(url, CHECKER_TOKEN), store)
        usage = UsageIntake(log, store, follower, sources)
        handler = CommandHandler(appender, store, follower, most_keys)
        not_ready = partial(_not_ready, follower)
        app = create_app(Parts(handler, callers, usage, effects, store, sources, registry, "kl", not_ready))
        try:
            eventually(follower.caught_up, 30, "the follower caught up")
            yield CommandWorld(app, log, store, follower, appender, sources, beside, effects)
        finally:
            effects.stop()
            follower.stop()
            store.close()


def _not_ready(follower: Follower) -> str | None:
    return None if follower.caught_up() else "catching up with the log"


@contextmanager
def _serving(beside: Beside) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # One segment for head and body, else each answer waits 40 ms for an acknowledgement.

        def do_GET(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            status, document = beside.answer(self.path, self.headers.get("Authorization", ""), body)
            raw = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET  # noqa: N815 -- the name that the library calls

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
