"""Pages of the console on a real system, for an admin whose organisation has 10,000 keys and 1,000 users.

The admin has 100 of the keys, as many as one user may have active. The limit is said beside each p95: this reports, it
never fails.

Beside the constant answer of the same console's `/healthz`, in the same run: how much longer than any answer takes here.
"""

import re
from dataclasses import replace
from html import unescape
from typing import Final
from urllib.request import Request, urlopen

from benchmarks import site
from benchmarks.corpus import Corpus, Plan, write
from benchmarks.load import closed_loop
from benchmarks.measure import Row, percentile, rate
from benchmarks.processes import System
from schemas import times

SECONDS: Final = 5.0
LIMIT_MS: Final = 50
"""What the p95 of a page is to stay under on a calm machine."""
_OWN_KEYS: Final = 100
_PAGE: Final = b"</html>"
_UNCHANGED: Final = b"HTTP/1.1 204"


def run(scale: float) -> list[Row]:
    """One browser, as fast as it is answered; the value is the p95."""
    with System() as system:
        plan = _plan(scale)
        corpus = Corpus(plan, system.ledger_keys, times.wall_clock_ms())
        write(system.kafka, corpus)
        port = site.start(system).console
        cookie = site.sign_in(system.console_url, site.add_people(system.database_url, corpus))
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
