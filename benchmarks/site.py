"""The whole system for a benchmark of what people see, and an admin who is signed in at its console."""

import re
import secrets
from dataclasses import dataclass
from http.cookiejar import CookieJar
from typing import Final
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import psycopg
from argon2 import PasswordHasher

from benchmarks.corpus import Corpus
from benchmarks.processes import System
from services.embedded.ports import free_ports

EMAIL: Final = "user-0@bench.test"
"""Of the admin."""
_PERSON: Final = """
    INSERT INTO console.people (idempotency_key, org_id, user_id, name, email, kind, role, password_hash,
                                must_change_password, status, added_revision, created_ms, claimed_until_ms)
    VALUES (%(user)s, %(org)s, %(user)s, %(name)s, %(email)s, 'person', 'member', %(hash)s, false, 'active', 1, 0, 0)
"""


@dataclass(frozen=True)
class Site:
    """The ports of its services."""

    console: int
    read: int
    checker: int


def start(system: System) -> Site:
    """All services, with everything read."""
    port = free_ports()[0]
    system.console_url = f"http://127.0.0.1:{port}"
    checker = system.start("auth_checker")
    urls = {"CHECKER_URL": f"http://127.0.0.1:{checker}"}
    command_api, projector = (system.start(service, **urls) for service in ("command_api", "projector"))
    system.start(
        "console",
        **urls,
        KEYLEDGER_PORT=str(port),
        KEYLEDGER_DEMO="0",
        DATABASE_URL=system.database_url,
        COMMAND_URL=f"http://127.0.0.1:{command_api}",
        READ_URL=f"http://127.0.0.1:{projector}",
    )
    return Site(port, projector, checker)


def add_people(database_url: str, corpus: Corpus) -> str:
    """Names for the users of the corpus' one organisation; gives the password of the first, who is the admin."""
    password = secrets.token_urlsafe()
    [(org, users)] = corpus.users.items()
    rows = [
        {"org": org, "user": user, "name": f"User {number}", "email": f"user-{number}@bench.test", "hash": None}
        for number, user in enumerate(users)
    ]
    rows[0]["hash"] = PasswordHasher().hash(password)
    with psycopg.connect(database_url) as connection:
        connection.cursor().executemany(_PERSON, rows)
        connection.execute("ANALYZE")  # Which PostgreSQL does by itself, within minutes of the rows.
    return password


def sign_in(console: str, password: str) -> str:
    """The cookie of a browser that signed in as the admin, as people do."""
    jar = CookieJar()
    browser = build_opener(HTTPCookieProcessor(jar))
    with browser.open(f"{console}/sign-in") as page:
        found = re.search(r'name="csrf" value="(\w+)"', page.read().decode())
    assert found is not None
    form = {"csrf": found[1], "email": EMAIL, "password": password}
    with browser.open(f"{console}/sign-in", urlencode(form).encode()) as page:
        assert page.url.endswith("/users"), page.url
    [cookie] = jar
    return f"{cookie.name}={cookie.value}"
