"""The first start: an operator, and a demo organisation, made by the same commands that anyone uses.

Every step can be repeated: its Idempotency-Key comes from a secret of the installation, and passwords are set at the
very end. Killed at any point, the next start ends with one operator and one demo organisation.
"""

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Final

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from schemas.problems import Problem
from schemas.times import Clock
from schemas.tokens import LONGEST_LIFE_S, Claims
from schemas.validation import BOOTSTRAP, PLATFORM
from services.console import passwords
from services.console.adding import Adding
from services.console.api_clients import Checker, CommandApi
from services.console.demo import DEMO, Demo
from services.console.passwords import Passwords
from services.console.people import NewPerson, People, Person, Pool
from services.console.sign_in import SignIn
from services.console.signing_keys import SigningKeys

_log = structlog.get_logger()
_LOCK: Final = 0x6B6C_0002
_LONGEST_PAUSE_S: Final = 3.0


@dataclass(slots=True)
class Readiness:
    """Why this console is not ready; None when it is. Written by one thread, read by others."""

    reason: str | None = "starting"


class NotYet(Exception):
    """Something else has to be there first; the message says what."""


@dataclass(frozen=True, slots=True)
class Result:
    """Where the first passwords go: `path` with mode 0600, or the log where it is None."""

    path: Path | None
    urls: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Prepares the tables, and on the first start the installation."""

    pool: Pool
    people: People
    passwords: Passwords
    adding: Adding
    sign_in: SignIn
    keys: SigningKeys
    command_api: CommandApi
    checker: Checker
    clock: Clock
    result: Result
    demo: bool

    def run(self, stop: Event, report: Readiness) -> None:
        """Try until it is done or `stop` is set; `report` gets the reason why not yet."""
        pause_s = 0.2
        while not stop.is_set():
            try:
                self.once()
            except (NotYet, Problem, psycopg.Error, PoolTimeout) as error:
                report.reason = f"first start: {_first_line(error)}"
                _log.info("not ready yet", why=report.reason)
            except Exception as error:  # noqa: BLE001 -- Nothing else would ever try again, and nobody would learn why.
                report.reason = f"first start: {_first_line(error)}"
                _log.exception("first start failed")
            else:
                report.reason = None
                _log.info("ready")
                return
            stop.wait(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    def once(self) -> None:
        """One try. Raises NotYet, Problem or psycopg.Error."""
        self.people.create_tables()
        self.people.drop_old_pending()
        with self.pool.connection() as connection:
            connection.execute(
                "INSERT INTO console.installation (secret) VALUES (%s) ON CONFLICT DO NOTHING", [secrets.token_hex(32)]
            )
        with self.pool.connection() as connection:
            # Held to the end of this transaction: of several consoles one does it, the others wait and find it done.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            secret = _unfinished(connection)
            if secret is not None:
                self._install(secret)
                connection.execute("UPDATE console.installation SET bootstrapped = true")

    def _install(self, secret: str) -> None:
        for name, api in (("command API", self.command_api), ("auth checker", self.checker)):
            if not api.is_ready():
                raise NotYet(f"waiting for the {name}")
        operator = self._operator(secret)
        people = {"operator": operator}
        if self.demo:
            people |= self._demo_people(secret, operator)
        self._hand_out(people)

    def _operator(self, secret: str) -> Person:
        new = _person(PLATFORM, "Operator", "operator@keyledger.local", "admin")
        known = self.people.with_email(str(new.email))
        if known is not None:
            return known
        exp = self.clock() // 1000 + LONGEST_LIFE_S
        token = self.keys.sign(Claims(sub=BOOTSTRAP, org=PLATFORM, rev=0, exp=exp))
        self._register(token, PLATFORM, "Platform", secret)
        return self._add(new, token, secret)

    def _demo_people(self, secret: str, operator: Person) -> dict[str, Person]:
        token = self.sign_in.session_of(operator).token
        self._register(token, DEMO, "Demo organisation", secret)
        self.command_api.enable_keys(token, DEMO, _key(secret, "enable demo"))
        admin = _person(DEMO, "Demo Admin", "admin@demo.local", "admin")
        member = _person(DEMO, "Demo Member", "member@demo.local", "member")
        people = {"admin": self._add(admin, token, secret), "member": self._add(member, token, secret)}
        Demo(
            self.command_api,
            self.checker,
            self.clock(),
            add=lambda new: self._add(new, token, secret),
            token_of=lambda person: self.sign_in.session_of(person).token,
            once=lambda step: _key(secret, step),
        ).fill(**people)
        return people

    def _register(self, token: str, org_id: str, name: str, secret: str) -> None:
        try:
            self.command_api.register_org(token, org_id, name, _key(secret, f"register {org_id}"))
        except Problem as problem:
            # Registered by an earlier try, whose Idempotency-Key may be forgotten by now.
            if problem.status not in {403, 409}:
                raise
            _log.info("organisation not registered again", org=org_id, why=problem.code)

    def _add(self, new: NewPerson, token: str, secret: str) -> Person:
        known = self.people.with_email(str(new.email))
        if known is not None:
            return known
        key = _key(secret, f"add {new.email}")
        self.people.release(key)  # A try that was killed may still hold it; the lock says that nobody else does.
        return self.adding.add(new, token, key)

    def _hand_out(self, people: dict[str, Person]) -> None:
        told = {}
        for title, person in people.items():
            password = passwords.temporary()
            told[title] = {"user_id": person.user_id, "email": person.email, "password": password}
            hashed = self.passwords.hash(password)
            self.people.set_password(person.org_id, person.user_id, hashed, must_change=False)
        document: dict[str, Any] = {"operator": told.pop("operator"), "urls": self.result.urls}
        if told:
            document["demo"] = {"org_id": DEMO, **told}
        if self.result.path is None:
            _log.info("first passwords, shown only this once", **document)
        else:
            _write(self.result.path, document)


def _unfinished(connection: psycopg.Connection[tuple[Any, ...]]) -> str | None:
    row = connection.execute("SELECT secret, bootstrapped FROM console.installation").fetchone()
    assert row is not None
    return None if row[1] else str(row[0])


def _person(org_id: str, name: str, email: str, role: str) -> NewPerson:
    return NewPerson(org_id, name, email, "person", role, password_hash=None, must_change_password=False)


def _key(secret: str, step: str) -> str:
    return hashlib.sha256(f"{secret} {step}".encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".new")
    scratch.unlink(missing_ok=True)
    scratch.touch(mode=0o600)
    with scratch.open("r+") as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
