"""From a validation to `last_used`: in the answers of the read API, and on a page of the console that somebody has open.

An open page asks for its part as often as its own `hx-trigger` says, and every use falls anywhere between two of those.
"""

import random
import re
import time
from dataclasses import dataclass
from html import unescape
from typing import Final

import urllib3

from benchmarks import site
from benchmarks.corpus import Corpus, MadeKey, Plan, write
from benchmarks.measure import Row, percentile
from benchmarks.processes import READY_S, System
from schemas import times

LIMIT_MS: Final = 2000
KEYS: Final = 100
READS: Final = 60
PAGES: Final = 10
USES: Final = 300
_PAUSE_S: Final = 0.5
_LOOK_S: Final = 0.01
_PART: Final = re.compile(r'hx-get="([^"]+)" hx-trigger="every (\d+)s"')
_TIME: Final = re.compile(r'<time datetime="([^"]+)"')


class Asking:
    """A client of one system: validates keys, reads, and opens pages as the admin."""

    def __init__(self, where: site.Site, password: str) -> None:
        self._pool = urllib3.PoolManager(retries=False, timeout=10.0)
        self._where = where
        self._console = f"http://127.0.0.1:{where.console}"
        self._cookie = {"Cookie": site.sign_in(self._console, password)}
        signed_in = {"email": site.EMAIL, "password": password}
        token = self._pool.request("POST", f"{self._console}/v1/sessions", json=signed_in).json()["token"]
        self._bearer = {"Authorization": f"Bearer {token}"}

    def use(self, key: MadeKey) -> range:
        """Validate it; between which milliseconds that was."""
        began_ms = times.wall_clock_ms()
        body = {"key": key.text, "ip": "192.0.2.7"}
        answer = self._pool.request("POST", f"http://127.0.0.1:{self._where.checker}/v1/validations", json=body).json()
        if not answer["valid"]:
            raise RuntimeError(f"an answer was {answer['code']}")
        return range(began_ms, times.wall_clock_ms() + 1)

    def last_used_ms(self, key: MadeKey) -> int:
        """What the read API says now."""
        url = f"http://127.0.0.1:{self._where.read}/v1/orgs/{key.org_id}/keys/{key.key_id}"
        at = self._pool.request("GET", url, headers=self._bearer).json()["last_used_at"]
        return times.to_ms(at) if at else 0

    def page(self, path: str) -> str:
        """A page or a part of one; empty when the part has not changed."""
        answer = self._pool.request("GET", self._console + path, headers=self._cookie | {"HX-Request": "true"})
        if answer.status not in (200, 204):
            raise RuntimeError(f"{path} was answered with {answer.status}")
        return answer.data.decode()


@dataclass
class OpenPage:
    """A page on which the last use of a key is looked for; `used` is when the key was used, None until it is."""

    key: MadeKey
    part: str
    every_s: float
    asks_at_s: float
    uses_at_s: float
    used: range | None = None
    used_at_s: float = 0.0

    def take(self, text: str) -> bool:
        """What the page shows from now on; whether that is the use."""
        if text:
            found = _PART.search(text)
            assert found is not None, text
            self.part = unescape(found[1])
        used = self.used or range(0)
        return any(times.to_ms(at) in used for at in _TIME.findall(text))


def run(scale: float) -> list[Row]:
    """The read API is asked without a pause, the pages as browsers do."""
    with System() as system:
        plan = Plan(orgs=1, users=20, keys=KEYS, revoked=0, uses=1, burst=1)
        corpus = Corpus(plan, system.ledger_keys, times.wall_clock_ms(), with_texts=True)
        write(system.kafka, corpus)
        where = site.start(system)
        asking = Asking(where, site.add_people(system.database_url, corpus))
        chance = random.Random(1)
        reads = [_until_read(asking, chance.choice(corpus.keys), chance) for _ in range(max(5, int(READS * scale)))]
        # The newest stand on the first page of the list.
        pages = [_open(asking, key, number, chance) for number, key in enumerate(corpus.keys[-PAGES:])]
        shown = _until_shown(asking, pages, max(PAGES, int(USES * scale)), chance)
    on_pages = f"{PAGES} open pages of keys and of all keys, asking each {pages[0].every_s:.0f} s"
    return [
        _row("validation_to_last_used", shown, f"on screen: {on_pages}"),
        _row("validation_to_read_api", reads, "asked again and again"),
    ]


def _until_read(asking: Asking, key: MadeKey, chance: random.Random) -> float:
    time.sleep(chance.uniform(0, _PAUSE_S))
    began_s = time.perf_counter()
    used = asking.use(key)
    while asking.last_used_ms(key) not in used:
        if time.perf_counter() - began_s > READY_S:
            raise TimeoutError(f"a use is not in the read API after {READY_S:.0f} s")
        time.sleep(_LOOK_S)
    return time.perf_counter() - began_s


def _open(asking: Asking, key: MadeKey, number: int, chance: random.Random) -> OpenPage:
    text = asking.page(f"/orgs/{key.org_id}/keys" + (f"/{key.key_id}" if number % 2 else ""))
    found = _PART.search(text)
    assert found is not None, text
    every_s, now_s = float(found[2]), time.perf_counter()
    first_s = now_s + chance.uniform(0, every_s)
    return OpenPage(key, unescape(found[1]), every_s, first_s, now_s + chance.uniform(0, every_s))


def _until_shown(asking: Asking, pages: list[OpenPage], count: int, chance: random.Random) -> list[float]:
    """Seconds from each use until it was on its page. One thing at a time: all of it takes a tenth of the time."""
    shown: list[float] = []
    while len(shown) < count:
        page = min(pages, key=_due_s)
        time.sleep(max(0.0, _due_s(page) - time.perf_counter()))
        now_s = time.perf_counter()
        if page.used is None and page.uses_at_s <= page.asks_at_s:
            page.used, page.used_at_s = asking.use(page.key), now_s
            continue
        page.asks_at_s = now_s + page.every_s
        if page.take(asking.page(page.part)):
            shown.append(time.perf_counter() - page.used_at_s)
            page.used, page.uses_at_s = None, now_s + chance.uniform(0, 2 * page.every_s)
        elif page.used is not None and now_s - page.used_at_s > READY_S:
            raise TimeoutError(f"a use is not on {page.part} after {READY_S:.0f} s")
    return shown


def _due_s(page: OpenPage) -> float:
    return page.asks_at_s if page.used is not None else min(page.asks_at_s, page.uses_at_s)


def _row(name: str, seconds: list[float], how: str) -> Row:
    ordered = sorted(seconds)
    p50_ms, p99_ms = (round(percentile(ordered, share) * 1000, 1) for share in (0.5, 0.99))
    judged = f"limit {LIMIT_MS}: {'met' if p99_ms <= LIMIT_MS else 'missed'}"
    return Row(name, p99_ms, "ms, p99", p50_ms, p99_ms, f"{judged}; {how}; {len(seconds)} uses")
