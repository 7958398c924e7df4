"""Providers of single sign-on: a real one in a process of its own, and one that answers whatever a test wants."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import urllib3
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from services.console.config import OidcSettings
from services.embedded.ports import free_ports
from tests.waiting import eventually

CLIENT_ID = "keyledger-console"
CLIENT_SECRET = "the client's secret"
_HTTP = urllib3.PoolManager()


def settings(issuer: str) -> OidcSettings:
    return OidcSettings(issuer, CLIENT_ID, CLIENT_SECRET, "Acme Login")


def query_of(address: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(address).query))


@dataclass
class Provider:
    """A provider that runs; any client may use it."""

    issuer: str

    def knows(self, subject: str, **claims: Any) -> None:
        """This person has an account there."""
        answer = _HTTP.request("PUT", f"{self.issuer}/users/{quote(subject)}", json=claims)
        assert answer.status == 204, answer.data

    def visit(self, address: str, subject: str | None) -> dict[str, str]:
        """What a browser does: opens the address, signs in there (None: refuses to), and brings this query back."""
        fields = {"sub": subject} if subject is not None else {"action": "deny"}
        answer = _HTTP.request("POST", address, fields=fields, encode_multipart=False, redirect=False)
        assert answer.status == 302, answer.data
        return query_of(answer.headers["Location"])


@contextmanager
def provider_process(folder: Path) -> Iterator[Provider]:
    """A real provider for the length of a `with`."""
    port = free_ports()[0]
    issuer = f"http://127.0.0.1:{port}"
    with (folder / "provider.log").open("w") as log:
        command = [sys.executable, "-m", "oidc_provider_mock", "-p", str(port)]
        process = subprocess.Popen(command, env=os.environ | {"NO_COLOR": "1"}, stdout=log, stderr=log)
    try:
        eventually(lambda: _answers(issuer), 30, "the provider of single sign-on answers")
        yield Provider(issuer)
    finally:
        process.terminate()
        process.wait(10)


def _answers(issuer: str) -> bool:
    try:
        return (
            _HTTP.request("GET", issuer + "/.well-known/openid-configuration", retries=False, timeout=2).status == 200
        )
    except urllib3.exceptions.HTTPError:
        return False


def _unchanged(_document: dict[str, Any]) -> None:
    """Nothing."""


@dataclass
class Liar:
    """A provider that lies as told. `change_claims`, `change_header` and `change_discovery` get what a good one says.

    `keys` are published, `signer` signs; `token_answer` replaces the whole answer of the token endpoint, where `asked`
    has each form with its Authorization header.
    """

    change_claims: Callable[[dict[str, Any]], None] = _unchanged
    change_header: Callable[[dict[str, Any]], None] = _unchanged
    change_discovery: Callable[[dict[str, Any]], None] = _unchanged
    token_answer: tuple[int, bytes] | None = None
    keys: list[RSAKey | ECKey | OKPKey | OctKey] = field(default_factory=list)
    signer: RSAKey | ECKey | OKPKey | OctKey | None = None
    asked: list[dict[str, str]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    nonce: str = ""
    challenge: str = ""
    issuer: str = ""

    def begun(self, address: str) -> dict[str, str]:
        """The browser arrives and everything is granted: the query that it brings back."""
        query = query_of(address)
        self.nonce, self.challenge = query["nonce"], query["code_challenge"]
        return {"code": "the-code", "state": query["state"]}

    def discovery(self) -> dict[str, Any]:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": self.issuer + "/authorize",
            "token_endpoint": self.issuer + "/token",
            "jwks_uri": self.issuer + "/jwks",
        }
        self.change_discovery(document)
        return document

    def token(self, form: dict[str, str]) -> tuple[int, bytes]:
        self.asked.append(form)
        if self.token_answer:
            return self.token_answer
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if urlsafe_b64encode(digest).rstrip(b"=").decode() != self.challenge:
            return 400, b'{"error": "invalid_grant"}'
        answer = {"access_token": "opaque", "token_type": "Bearer", "id_token": self.id_token()}
        return 200, json.dumps(answer).encode()

    def id_token(self) -> str:
        now_s = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": "ada",
            "aud": CLIENT_ID,
            "iat": now_s,
            "exp": now_s + 300,
            "nonce": self.nonce,
            "email": "ada@example.org",
            "email_verified": True,
        }
        signer = self.signer or self.keys[0]
        header: dict[str, Any] = {"alg": "RS256", "kid": signer.kid}
        self.change_claims(claims)
        self.change_header(header)
        return jwt.encode(header, claims, signer, [header["alg"]])


@contextmanager
def lying_provider(key: RSAKey) -> Iterator[Liar]:
    """For the length of a `with`; honest until told otherwise."""
    liar = Liar(keys=[key])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            liar.seen.append(self.path)
            if self.path == "/jwks":
                self.say(200, json.dumps(KeySet(list(liar.keys)).as_dict(private=False)).encode())
            else:
                self.say(200, json.dumps(liar.discovery()).encode())

        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.say(*liar.token(form | {"Authorization": self.headers.get("Authorization", "")}))

        def say(self, status: int, raw: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            """Tests print what they need."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    liar.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield liar
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
