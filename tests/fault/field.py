"""Organisations full of keys, written straight into the log, and an admin who commands them over HTTP until it is effective."""

import secrets
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import Any

import urllib3

from benchmarks.corpus import Corpus, MadeKey, Plan, send
from schemas.times import wall_clock_ms
from services.ledger.seal import load_or_make
from tests.end_to_end.system import Answer, System
from tests.fault.asking import Prey
from tests.waiting import eventually

ANSWER_WITHIN_S = 180.0
_RENEW_S = 120.0
_WITNESSES = 20
_KEYS_EACH = 100


@dataclass(frozen=True)
class Command:
    """A command that took rights away and was effective.

    `sent_at` and `answered_at` (CLOCK_MONOTONIC, s) are of the first attempt and of the answer `effective: true`;
    `effective_ms` is what that answer said. `repeats` counts why it had to be asked again.
    """

    sent_at: float
    answered_at: float
    effective_ms: float
    revision: int
    repeats: Counter[str]


class Field:
    """One organisation: `keys` for revoking, `witnesses` that stay, and an admin who can sign in. Thread-safe.

    `users[0]` owns all the keys and none of the witnesses when there is `one_owner`; else each has at most a hundred.
    `head` is the revision that the last added person made.
    """

    def __init__(self, system: System, keys: int, *, one_owner: bool = False) -> None:
        self.system = system
        self._lock = Lock()
        plan = Plan(
            orgs=1,
            users=2 if one_owner else 2 + keys // _KEYS_EACH,
            keys=keys + 2 * _WITNESSES,
            collected=keys if one_owner else 0,
            revoked=0,
            seed=secrets.randbits(60),
        )
        corpus = Corpus(plan, load_or_make(system.ledger_keys), wall_clock_ms(), with_texts=True)
        send(system.broker.bootstrap, corpus.lifecycle())
        [(self.org, self.users)] = corpus.users.items()
        self.path, self.head = f"/v1/orgs/{self.org}", corpus.heads[self.org]
        self.keys = [_prey(key) for key in corpus.keys[:keys]]
        self.witnesses = [_prey(key) for key in corpus.keys[keys:] if key.user_id != self.users[0]]
        self._fresh = iter(self.keys)
        self._people: dict[str, tuple[str, str]] = {}
        self._tokens: dict[str, tuple[str, float]] = {}
        self.add("admin", "admin")

    def take(self, count: int) -> list[Prey]:
        """Keys that nobody took before."""
        with self._lock:
            return [next(self._fresh) for _ in range(count)]

    def add(self, who: str, role: str) -> str:
        """Add a person and wait until it can sign in; gives its user id."""
        password = secrets.token_urlsafe(16)

        def added() -> Answer:
            # A new address each time: one whose outcome is not known yet would be taken.
            self._people[who] = f"{who}.{secrets.token_hex(4)}@{self.org}.test", password
            body = {"name": who, "kind": "person", "role": role, "email": self._people[who][0], "password": password}
            answer = self.system.call("console", "POST", f"{self.path}/users", body, self.system.token("operator"))
            assert answer.status == 201, answer
            return answer

        answer = eventually(added, ANSWER_WITHIN_S, f"{who} to be added")
        eventually(lambda: self.token(who), ANSWER_WITHIN_S, f"{who} to be able to sign in")
        self.head = answer.json["revision"]
        return str(answer.json["user_id"])

    def token(self, who: str = "admin") -> str:
        """A signed token; a new one after two minutes, where the console gives it."""
        token, made_at = self._tokens.get(who, ("", float("-inf")))
        if time.monotonic() - made_at > _RENEW_S:
            email, password = self._people[who]
            answer = self.system.call("console", "POST", "/v1/sessions", {"email": email, "password": password})
            # The console asks a checker, which may be away: then the old token serves for three minutes more.
            assert answer.status == 201 or token, answer
            if answer.status == 201:
                token, made_at = answer.json["token"], time.monotonic()
                self._tokens[who] = token, made_at
        return token

    def call(self, method: str, path: str, body: Any = None, at: int = 0, who: str = "admin", **headers: str) -> Answer:
        """One call to a command API; `path` goes on after the organisation's."""
        instance = at % len(self.system.urls["command"])
        return self.system.call("command", method, self.path + path, body, self.token(who), instance, **headers)

    def read(self) -> Answer:
        """A call to the read API about the organisation."""
        return self.system.call("read", "GET", self.path, token=self.token())

    def revoke(self, key_id: str, at: int = 0) -> Command:
        """Revoke a key; see `take_away`."""
        return self.take_away("DELETE", f"/keys/{key_id}", {}, at)

    def take_away(self, method: str, path: str, body: Any, at: int = 0) -> Command:
        """Send a command that takes rights away, at another command API each time, until it answers `effective: true`.

        Every attempt is the same command (Idempotency-Key); after a 202 its status address is asked.
        """
        sent_at, identity, repeats, instances = time.monotonic(), secrets.token_hex(16), Counter[str](), count(at)

        def attempt() -> Command | None:
            instance = next(instances)
            try:
                answer = self.call(method, path, body, instance, Idempotency_Key=identity)
                if answer.status == 202:
                    repeats["202"] += 1
                    answer = self._status(answer.json["status_url"], instance)
            except urllib3.exceptions.HTTPError as error:
                repeats[type(error).__name__] += 1
                return None
            received_at = time.monotonic()
            if answer.status == 200 and answer.json["effective"] is True:
                said = answer.json
                return Command(sent_at, received_at, said["effective_ms"], said["revision"], repeats)
            if answer.status != 503:
                raise RuntimeError(f"{method} {path}: {answer}")
            repeats[str(answer.json["code"])] += 1
            return None

        done = eventually(attempt, ANSWER_WITHIN_S, f"{method} {path} to be effective")
        assert done is not None
        return done

    def _status(self, url: str, at: int) -> Answer:
        def known() -> Answer | None:
            answer = self.call("GET", url.removeprefix(self.path), at=at)
            return answer if answer.status != 200 or answer.json["effective"] else None

        answer = eventually(known, ANSWER_WITHIN_S, f"{url} to be effective")
        assert answer is not None
        return answer


def _prey(key: MadeKey) -> Prey:
    return Prey(key.key_id, key.text)
