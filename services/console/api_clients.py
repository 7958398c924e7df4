"""Clients of the command API, the read API and the auth checker. What they refuse is passed on as the problem it is."""

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final
from urllib.parse import quote, urlencode

import msgspec
import urllib3

from schemas.codec import canonical
from schemas.problems import Problem
from schemas.validation import Code
from services.console.caller import Caller

_TIMEOUT: Final = urllib3.Timeout(connect=2.0, read=10.0)
COMMAND_TIMEOUT: Final = urllib3.Timeout(connect=2.0, read=40.0)
"""A command that takes rights away is answered once all checkers know, or after 25 s, with 202; before that it is written."""

_DOWNLOAD_TIMEOUT: Final = urllib3.Timeout(connect=2.0, read=120.0)
_IN_MEMORY_BYTES: Final = 1_000_000
_NAME: Final = re.compile(r'filename="?([0-9A-Za-z_.-]{1,150})"?$')
# The read API noticed that what it holds is not what was signed: no outage, but something that people must be told.
_ALARMS: Final = frozenset({"archive_broken"})


class Api:
    """One API by its address. Thread-safe; nothing is retried here, because only the caller knows what is safe."""

    def __init__(self, name: str, url: str, pool: urllib3.PoolManager, timeout: urllib3.Timeout = _TIMEOUT) -> None:
        self._name, self._url, self._pool, self._timeout = name, url, pool, timeout

    def call(
        self, method: str, path: str, token: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The answer's document. Raises Problem: a 4xx is a refusal, 503 means that the outcome is not known."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        return self._request(method, path, token, canonical(dict(body)), sent)[0]

    def get(self, path: str, token: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The answer's document and headers. Raises Problem."""
        return self._request("GET", path, token, None, {})

    def download(self, path: str, token: str) -> tuple[IO[bytes], Mapping[str, str]]:
        """The answer as a file, open at its beginning, and its headers; it is all there. Raises Problem."""
        with ExitStack() as unless_it_is_all_here:
            file = unless_it_is_all_here.enter_context(SpooledTemporaryFile(_IN_MEMORY_BYTES))
            try:
                with self._pool.request(
                    "GET",
                    self._url + path,
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=_DOWNLOAD_TIMEOUT,
                    retries=False,
                    preload_content=False,
                ) as answer:
                    if answer.status != 200:
                        raise self._refusal(answer.status, _object(answer.data), answer.headers)
                    shutil.copyfileobj(answer, file)
            except urllib3.exceptions.HTTPError as error:
                raise self._away(type(error).__name__) from error
            unless_it_is_all_here.pop_all()
        file.seek(0)
        return file, answer.headers

    def _request(
        self, method: str, path: str, token: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        sent = {"Authorization": f"Bearer {token}", **headers}
        try:
            answer = self._pool.request(
                method, self._url + path, body=body, headers=sent, timeout=self._timeout, retries=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._away(type(error).__name__) from error
        document = _object(answer.data)
        if 200 <= answer.status < 300 and document is not None:
            return document, answer.headers
        raise self._refusal(answer.status, document, answer.headers)

    def is_ready(self) -> bool:
        """Whether `/readyz` says so right now."""
        try:
            answer = self._pool.request("GET", self._url + "/readyz", timeout=_TIMEOUT, retries=False)
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200

    def _away(self, why: str) -> Problem:
        return Problem(503, "dependency_away", f"the {self._name} did not answer as it should ({why})", retry_after_s=1)

    def _refusal(self, status: int, document: dict[str, Any] | None, headers: Mapping[str, str]) -> Problem:
        document = document or {}
        if 400 <= status < 500 or status == 503 or document.get("code") in _ALARMS:
            return self._passed_on(status, document, headers)
        return self._away(f"HTTP {status}")

    def _passed_on(self, status: int, document: dict[str, Any], headers: Mapping[str, str]) -> Problem:
        code, detail = document.get("code"), document.get("detail")
        if not isinstance(code, str) or not isinstance(detail, str):
            return self._away(f"HTTP {status} without a problem")
        errors = tuple((str(one.get("pointer")), str(one.get("detail"))) for one in document.get("errors", []))
        kept = {name: headers[name] for name in ("Retry-After", "WWW-Authenticate") if name in headers}
        return Problem(status, code, detail, errors, headers=kept)


class CommandApi:
    """The commands that the console sends, each with the bearer token of whoever asked for it."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.is_ready = api.is_ready

    def send(self, method: str, path: tuple[str, ...], token: str, body: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Any command by its path below `/v1`; `key` is its Idempotency-Key. Gives the answer. Raises Problem."""
        return self._api.call(method, path_of(path), token, body, {"Idempotency-Key": key})

    def register_org(self, token: str, org_id: str, name: str, key: str) -> None:
        """`POST /v1/orgs`."""
        self.send("POST", ("orgs",), token, {"org_id": org_id, "name": name}, key)

    def enable_keys(self, token: str, org_id: str, key: str) -> None:
        """`PUT /v1/orgs/{org}/keys-enabled`."""
        self.send("PUT", ("orgs", org_id, "keys-enabled"), token, {"enabled": True}, key)

    def add_user(self, token: str, org_id: str, kind: str, role: str, key: str) -> tuple[str, int]:
        """`POST /v1/orgs/{org}/users`; gives the user id and the revision at which it was added."""
        answer = self.send("POST", ("orgs", org_id, "users"), token, {"kind": kind, "role": role}, key)
        return str(answer["user_id"]), int(answer["revision"])

    def erase_user(self, token: str, org_id: str, user_id: str) -> dict[str, Any]:
        """`DELETE /v1/orgs/{org}/users/{user}`; gives its answer."""
        return self._api.call("DELETE", path_of(("orgs", org_id, "users", user_id)), token, {})


@dataclass(frozen=True, slots=True)
class Read:
    """What the read API answered. `lag_ms` is how far its tables are behind the log, None where it cannot tell."""

    document: dict[str, Any]
    lag_ms: int | None
    halted: str | None


class ReadApi:
    """The lists and histories that pages show, each with the token of whoever looks."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def get(self, path: tuple[str, ...], token: str, query: Mapping[str, Any]) -> Read:
        """A read by its path below `/v1`; parameters that are None are left out. Raises Problem."""
        given = {name: _parameter(value) for name, value in query.items() if value is not None}
        document, headers = self._api.get(path_of(path) + ("?" + urlencode(given) if given else ""), token)
        lag = headers.get("Keyledger-Lag-Ms", "")
        return Read(document, int(lag) if lag.isdigit() else None, headers.get("Keyledger-Halted"))

    def download(self, path: tuple[str, ...], token: str) -> tuple[IO[bytes], str | None]:
        """A file by its path below `/v1`, and the name that it has there, if it has one. Raises Problem."""
        file, headers = self._api.download(path_of(path), token)
        named = _NAME.search(headers.get("Content-Disposition", ""))
        return file, named[1] if named else None


def path_of(parts: tuple[str, ...]) -> str:
    """`("orgs", "a/b")` is `/v1/orgs/a%2Fb`."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _parameter(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Checker:
    """Asks the auth checker who is behind a bearer token."""

    def __init__(self, api: Api, checker_token: str) -> None:
        self._api, self._token = api, checker_token
        self.is_ready = api.is_ready

    def caller(self, token: str, address: str, user_agent: str) -> tuple[Code, Caller | None]:
        """The code, and with VALID who it is. Raises Problem 503 when that cannot be known now."""
        asked: dict[str, Any] = {"token": token}
        asked |= {name: value for name, value in (("ip", address), ("user_agent", user_agent)) if value}
        try:
            answer = self._api.call("POST", "/v1/callers", self._token, asked)
        except Problem as problem:
            # A refusal here is about our own credential or request, never about the person who is waiting.
            raise Problem(
                503, "checker_away", f"the auth checker did not answer: {problem}", retry_after_s=1
            ) from problem
        code = Code(answer["code"])
        if code is Code.STALE:
            raise Problem(503, "stale", "the auth checker cannot tell right now", retry_after_s=1)
        if not answer["valid"] or code is not Code.VALID:
            return code, None
        return code, Caller(
            org_id=answer["org_id"],
            user_id=answer["user_id"],
            role=answer["role"],
            revision=answer["revision"],
            key_id=answer.get("key_id"),
            scopes=tuple(answer.get("scopes") or ()),
            token=token,
        )

    def validate(self, questions: Sequence[Mapping[str, Any]]) -> list[str]:
        """The codes of at most 100 questions about keys, each counted as a use of its key. Raises Problem."""
        answer = self._api.call("POST", "/v1/validations/batch", self._token, {"items": list(questions)})
        return [str(one["code"]) for one in answer["items"]]


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return document if isinstance(document, dict) else None
