"""Pages of the console on a real system, for an admin whose organisation has 10,000 keys and 1,000 users.

The admin has 100 of the keys, as many as one user may have active. The limit is said beside each p95: this reports, it
never fails.

Beside the constant answer of the same console's `/healthz`, in the same run: how much longer than any answer takes here.
"""

import re
import secrets
from dataclasses import replace
from html import unescape
from http.cookiejar import CookieJar
from typing import Final
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import psycopg
from argon2 import PasswordHasher

from benchmarks.corpus import Corpus, Plan, write
from benchmarks.load import closed_loop
from benchmarks.measure import Row, percentile, rate
from benchmarks.processes import System
from schemas import times
from services.embedded.ports import free_ports

SECONDS: Final = 5.0
LIMIT_MS: Final = 50
"""What the p95 of a page is to stay under on a calm machine."""
_OWN_KEYS: Final = 100
_PAGE: Final = b"</html>"
_UNCHANGED: Final = b"HTTP/1.1 204"
_EMAIL: Final = "user-0@bench.test"
_PERSON: Final = """
    INSERT INTO console.people (idempotency_key, org_id, user_id, name, email, kind, role, password_hash,
                                must_change_password, status, added_revision, created_ms, claimed_until_ms)
    VALUES (%(user)s, %(org)s, %(user)s, %(name)s, %(email)s, 'person', 'member', %(hash)s, false, 'active', 1, 0, 0)
"""


def run(scale: float) -> list[Row]:
    """One browser, as fast as it is answered; the value is the p95."""
    with System() as system:
        plan = _plan(scale)
        corpus = Corpus(plan, system.ledger_keys, times.wall_clock_ms())
        write(system.kafka, corpus)
        port = _start(system)
        cookie = _sign_in(system.console_url, _add_people(system.database_url, corpus))
        size = f"{plan.keys:,} keys, {plan.users:,} users"
        healthz = _measure("/healthz, for comparison", port, "/healthz", cookie, b'"alive"', scale)
        paths = {name: (path, _PAGE) for name, path in _paths(corpus).items()}
        paths["API keys, asked again each second"] = (
            _part_of(system.console_url, paths["API keys"][0], cookie),
            _UNCHANGED,
        )
        pages = [
            _measure(f"{name}, {size}", port, path, cookie, expected, scale) for name, (path, expected) in paths.items()
        ]
        return [healthz, *map(_judged, pages), *(_beside(page, healthz) for page in pages)]


def _plan(scale: float) -> Plan:
    users, keys, own = (max(least, int(most * scale)) for least, most in ((2, 1000), (30, 10_000), (10, _OWN_KEYS)))
    return Plan(orgs=1, users=users, keys=keys, collected=own, uses=5, burst=1)


def _start(system: System) -> int:
    """All services, with everything read; gives the console's port."""
    port = free_ports()[0]
    system.console_url = f"http://127.0.0.1:{port}"
    urls = {"CHECKER_URL": f"http://127.0.0.1:{system.start('auth_checker')}"}
    command_api, projector = (system.start(service, **urls) for service in ("command_api", "projector"))
    return system.start(
        "console",
        **urls,
        KEYLEDGER_PORT=str(port),
        KEYLEDGER_DEMO="0",
        DATABASE_URL=system.database_url,
        COMMAND_URL=f"http://127.0.0.1:{command_api}",
        READ_URL=f"http://127.0.0.1:{projector}",
    )


def _add_people(database_url: str, corpus: Corpus) -> str:
    """Names for the users of the corpus; gives the password of the first, who is the admin."""
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


def _sign_in(console: str, password: str) -> str:
    """The cookie of a browser that signed in as the admin, as people do."""
    jar = CookieJar()
    browser = build_opener(HTTPCookieProcessor(jar))
    with browser.open(f"{console}/sign-in") as page:
        found = re.search(r'name="csrf" value="(\w+)"', page.read().decode())
    assert found is not None
    form = {"csrf": found[1], "email": _EMAIL, "password": password}
    with browser.open(f"{console}/sign-in", urlencode(form).encode()) as page:
        assert page.url.endswith("/users"), page.url
    [cookie] = jar
    return f"{cookie.name}={cookie.value}"


def _paths(corpus: Corpus) -> dict[str, str]:
    key = corpus.keys[-1]
    org = f"/orgs/{key.org_id}"
    return {
        "account": "/account",
        "users": f"{org}/users",
        "users by last activity": f"{org}/users?sort=last_activity",
        "API keys": f"{org}/keys",
        "API keys, searched": f"{org}/keys?search=key+77",
        "user": f"{org}/users/{key.user_id}",
        "key": f"{org}/keys/{key.key_id}",
        "organisation": org,
    }


def _part_of(console: str, path: str, cookie: str) -> str:
    """What an open page asks for each second; the answer is that nothing has changed."""
    with urlopen(Request(console + path, headers={"Cookie": cookie})) as page:
        found = re.search(r'hx-get="([^"]+)"', page.read().decode())
    assert found is not None
    return unescape(found[1])


def _judged(row: Row) -> Row:
    return replace(row, unit=f"{row.unit}, limit {LIMIT_MS}: {'met' if _p95(row) <= LIMIT_MS else 'missed'}")


def _beside(page: Row, healthz: Row) -> Row:
    return Row(f"{page.name}, beside /healthz", _p95(page) / _p95(healthz), "times")


def _p95(row: Row) -> float:
    assert row.value is not None
    return row.value


def _measure(name: str, port: int, path: str, cookie: str, expected: bytes, scale: float) -> Row:
    asked = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n".encode()
    load = closed_loop([port], 1, lambda _: asked, expected, max(1.0, SECONDS * scale))
    if load.others or not load.latencies_s:
        raise RuntimeError(f"{path} answered {dict(load.others)}, and {len(load.latencies_s)} times as it should")
    p95_ms = percentile(sorted(load.latencies_s), 0.95) * 1000
    row = rate(name, len(load.latencies_s), load.seconds, "pages/s", load.latencies_s)
    return replace(row, value=round(p95_ms, 2), unit="ms, p95")
