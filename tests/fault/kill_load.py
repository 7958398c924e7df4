"""Commands and validations that go on while processes are killed, and what the callers saw; see test_kills."""

import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from random import Random
from typing import Any

import urllib3

from tests.end_to_end.system import Answer, System
from tests.waiting import eventually

ANSWER_WITHIN_S = 90.0
_MOST_KEYS = 15
_RENEW_S = 200.0
Place = tuple[str, int]
"""An organisation and a revision of it."""


@dataclass
class Seen:
    """What all callers saw together. `uses` are the moments at which an answer about a known key came."""

    answered: set[Place] = field(default_factory=set)
    repeats: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    uses: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass
class _Key:
    text: str | None
    revoked: bool
    revision: int


class Actor:
    """One person who creates, renames and revokes keys, one command after the other, and has them validated."""

    def __init__(self, system: System, org: str, role: str, seed: str) -> None:
        self.org, self._role, self._system = org, role, system
        self._random = Random(f"{seed} {org} {role}")
        self._keys: dict[str, _Key] = {}
        self._active: list[str] = []
        self._token = ("", float("-inf"))
        self._made = 0

    def step(self, seen: Seen) -> None:
        """One command until it is answered, then two validations."""
        self._command(seen)
        for key_id in self._random.sample(sorted(self._keys), min(2, len(self._keys))):
            self._validate(seen, self._keys[key_id])

    def _command(self, seen: Seen) -> None:
        kind = self._random.choice(("create", "create", "create", "rename", "revoke"))
        if len(self._active) >= _MOST_KEYS:
            kind = "revoke"
        elif not self._active:
            kind = "create"
        self._made += 1
        name = f"{self._role} {self._made}"
        if kind == "create":
            made = self._answered(seen, "POST", f"/v1/orgs/{self.org}/keys", {"name": name})
            self._keys[made["key_id"]] = _Key(made["key"], revoked=False, revision=made["revision"])
            self._active.append(made["key_id"])
            return
        key_id = self._random.choice(self._active)
        method, body = ("PATCH", {"name": name}) if kind == "rename" else ("DELETE", {})
        made = self._answered(seen, method, f"/v1/orgs/{self.org}/keys/{key_id}", body)
        self._keys[key_id].revision = made["revision"]
        if kind == "revoke":
            self._keys[key_id].revoked = True
            self._active.remove(key_id)

    def _answered(self, seen: Seen, method: str, path: str, body: Any) -> Any:
        """The answer to one command, repeated with the same Idempotency-Key at any of the command APIs until it comes."""
        identity = self._random.randbytes(16).hex()

        def ask() -> Answer | None:
            with suppress(urllib3.exceptions.HTTPError):
                at = self._random.randrange(len(self._system.urls["command"]))
                answer = self._system.call("command", method, path, body, self._fresh(), at, Idempotency_Key=identity)
                if answer.status != 503:
                    return answer
                seen.repeats[answer.json["code"]] += 1
                return None
            seen.repeats["no answer"] += 1
            return None

        answer = eventually(ask, ANSWER_WITHIN_S, f"an answer to {method} {path}")
        if answer is None or answer.status not in {200, 201}:
            raise RuntimeError(f"{method} {path}: {answer}")
        seen.answered.add((self.org, answer.json["revision"]))
        return answer.json

    def _validate(self, seen: Seen, key: _Key) -> None:
        if key.text is None:
            return  # It was made, but the answer was lost with the process that gave it.
        try:
            answer = self._system.validate(key.text, min_revision=f"{self.org}:{key.revision}")
        except urllib3.exceptions.HTTPError:
            seen.codes["no answer"] += 1
            return
        code = answer["code"]
        seen.codes[code] += 1
        if "key_id" in answer:
            seen.uses.append(time.monotonic())
        if code not in {"REVOKED" if key.revoked else "VALID", "STALE", "not_ready"}:
            seen.wrong.append(f"{code} for a key of {self.org} that is {'revoked' if key.revoked else 'active'}")

    def _fresh(self) -> str:
        if time.monotonic() - self._token[1] > _RENEW_S:
            self.sign_in()
        return self._token[0]

    def sign_in(self) -> bool:
        """Whether there is a new token; without one the old one serves for 100 s more."""
        person = {"email": f"{self._role}@{self.org}.test", "password": f"of-{self.org}-{self._role}"}
        answer = self._system.call("console", "POST", "/v1/sessions", person)
        if answer.status == 201:
            self._token = answer.json["token"], time.monotonic()
        return answer.status == 201  # The console asks the checker, which may just have been killed.


class Load:
    """Steps of all actors, side by side; as many as were granted, and no more."""

    def __init__(self, actors: list[Actor]) -> None:
        self.seen = Seen()
        self._idle: SimpleQueue[Actor] = SimpleQueue()
        for actor in actors:
            self._idle.put(actor)
        self._pool = ThreadPoolExecutor(len(actors))
        self._steps: list[Future[None]] = []

    def grant(self, steps: int) -> None:
        """Let this many more steps be taken."""
        self._steps += [self._pool.submit(self._step) for _ in range(steps)]

    @property
    def done(self) -> int:
        """How many steps were taken; raises what went wrong in one of them."""
        return sum(1 for step in self._steps if step.done() and step.result() is None)

    @property
    def under_way(self) -> int:
        """How many steps are granted and not yet taken."""
        return len(self._steps) - self.done

    def wait_done(self, steps: int) -> None:
        """Wait until so many steps were taken in all."""
        eventually(lambda: self.done >= steps, 2 * ANSWER_WITHIN_S, f"{steps} steps to be taken")

    def wait_idle(self) -> None:
        """Wait until all that was granted is done."""
        self.wait_done(len(self._steps))

    def finish(self) -> None:
        """As `wait_idle`, for good."""
        self.wait_idle()
        self._pool.shutdown()

    def _step(self) -> None:
        actor = self._idle.get()
        try:
            actor.step(self.seen)
        finally:
            self._idle.put(actor)
