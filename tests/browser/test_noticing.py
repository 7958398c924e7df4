"""What the browser tests rely on: whatever goes wrong in a visitor's browser is noticed, and what is fine is not."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser

from tests.browser.accessibility import check_accessibility
from tests.browser.visitor import PHONE_WIDTH, Visitor

_GOOD = "<!doctype html><html lang=en><meta name=viewport content='width=device-width'><title>t</title><main><h1>Hello</h1></main>"
_PAGES = {
    "/good": _GOOD,
    "/inline": f"{_GOOD}<script>document.title = 'ran'</script>",
    "/other-host": f"{_GOOD}<img alt='' src='http://elsewhere.test/x.png'>",
    "/missing-part": f"{_GOOD}<script src='/nothing.js'></script>",
    "/broken-script": f"{_GOOD}<script src='/broken.js'></script>",
    "/broken.js": "throw new Error('broken')",
    "/complaint": f"{_GOOD}<script src='/complaint.js'></script>",
    "/complaint.js": "console.error('something')",
    "/unlabelled": f"{_GOOD}<main><input name=x></main>",
    "/pale": f"{_GOOD}<p style='color: #ccc'>pale</p>",
    "/wide": f"{_GOOD}<div style='width: 500px'>wide</div>",
    "/heavy": f"{_GOOD}{'x' * 50_000}",
}


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = _PAGES.get(self.path)
        body = (page or "nothing").encode()
        self.send_response(404 if page is None else 200)
        self.send_header("Content-Type", "text/javascript" if self.path.endswith(".js") else "text/html")
        # Other hosts are allowed here, so that it is the visitor who notices them.
        self.send_header("Content-Security-Policy", "script-src 'self'")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "noticed"),
    [
        ("/inline", "Content Security Policy"),
        ("/other-host", "another host: GET http://elsewhere.test/x.png"),
        ("/missing-part", "404: GET"),
        ("/nowhere", "404: GET"),
        ("/broken-script", "script: broken"),
        ("/complaint", "console: something"),
    ],
)
def test_what_goes_wrong_is_noticed(chromium: Browser, site: str, path: str, noticed: str) -> None:
    visitor = Visitor(chromium, site)
    visitor.opens(path)
    assert noticed in "\n".join(visitor.leave())


def test_a_good_page_has_nothing_wrong(chromium: Browser, site: str) -> None:
    visitor = Visitor(chromium, site, width=PHONE_WIDTH)
    check_accessibility(visitor.opens("/good"))
    assert (visitor.overflow(), visitor.page.title()) == (0, "t")
    assert visitor.leave() == []


def test_an_announced_refusal_is_not_wrong(chromium: Browser, site: str) -> None:
    visitor = Visitor(chromium, site)
    visitor.expect(404)
    visitor.opens("/nowhere")
    assert visitor.leave() == []


@pytest.mark.parametrize(("path", "rule"), [("/unlabelled", "label"), ("/pale", "color-contrast")])
def test_axe_finds_what_is_planted(chromium: Browser, site: str, path: str, rule: str) -> None:
    visitor = Visitor(chromium, site)
    with pytest.raises(AssertionError, match=rule):
        check_accessibility(visitor.opens(path))
    assert visitor.leave() == []


def test_a_page_wider_than_a_phone_is_measured(chromium: Browser, site: str) -> None:
    visitor = Visitor(chromium, site, width=PHONE_WIDTH)
    visitor.opens("/wide")
    assert visitor.overflow() >= 500 - PHONE_WIDTH
    assert visitor.leave() == []


def test_what_a_page_weighs_is_measured_with_an_empty_cache(chromium: Browser, site: str) -> None:
    visitor = Visitor(chromium, site)
    assert 50_000 < visitor.transferred("/heavy") < 52_000
    assert visitor.transferred("/heavy") > 50_000
    assert visitor.transferred("/broken-script") > visitor.transferred("/good")
    visitor.leave()
