"""A console on a real database beside the stand-ins, called through Flask's own test client."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from schemas.times import wall_clock_ms
from services.console.app import create_app
from services.console.bootstrap import Bootstrap
from services.console.config import Config, OidcSettings
from services.console.parts import Console
from services.console.people import NewPerson, Person
from services.console.worker import build
from tests.integration.console_stand_ins import CHECKER_TOKEN, Ledger, serving

PASSWORD = "correct horse battery"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Clock:
    """Wall time, and as much more as a test says."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return wall_clock_ms() + self.ahead_ms


@dataclass
class World:
    """Everything that a test of the console touches."""

    client: FlaskClient
    console: Console
    bootstrap: Bootstrap
    ledger: Ledger
    clock: Clock
    config: Config

    def person(self, org: str, user: str, role: str = "member", *, must_change: bool = False) -> Person:
        """An active person with PASSWORD, in the ledger and in the table."""
        revision = self.ledger.seed(org, user, role)
        hashed = self.console.passwords.hash(PASSWORD)
        new = NewPerson(org, user.title(), f"{user}@example.org", "person", role, hashed, must_change)
        self.console.people.reserve(new, f"key-{org}-{user}")
        self.console.people.activate(f"key-{org}-{user}", user, revision)
        person = self.console.people.get(org, user)
        assert person is not None
        return person

    def sign_in(self, email: str, password: str = PASSWORD) -> TestResponse:
        return self.client.post("/v1/sessions", json={"email": email, "password": password})

    def token(self, user: str) -> str:
        """A token of the person `<user>@example.org`."""
        answer = self.sign_in(f"{user}@example.org")
        assert answer.status_code == 201, answer.get_data(as_text=True)
        return str(answer.get_json()["token"])

    def call(self, method: str, path: str, token: str | None, body: Any = None) -> TestResponse:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.client.open(path, method=method, headers=headers, json={} if body is None else body)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.console.pool.connection() as connection:
            return connection.execute(query).fetchall()


@contextmanager
def running_console(database: str, folder: Path, oidc: OidcSettings | None = None) -> Iterator[World]:
    """The tables are there; the first start has not been tried."""
    ledger = Ledger(jwks=dict)
    with serving(ledger) as url:
        first_start = folder / "first-start.json"
        config = Config(
            host="127.0.0.1",
            port=1,
            state_dir=folder,
            database_url=database,
            command_url=url,
            read_url=url,
            checker_url=url,
            checker_token=CHECKER_TOKEN,
            first_start=first_start,
            urls={"console": [url]},
            demo=True,
            public_url="http://127.0.0.1:1",
            oidc=oidc,
        )
        clock = Clock()
        console, bootstrap = build(config, QUICK, clock)
        ledger.jwks = console.keys.jwks
        console.people.create_tables()
        console.readiness.reason = None
        try:
            yield World(create_app(console).test_client(), console, bootstrap, ledger, clock, config)
        finally:
            console.pool.close()
