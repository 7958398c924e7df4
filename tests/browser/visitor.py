"""Somebody with a browser, and everything that happened in it that should not have."""

import re
from collections import Counter

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response

from tests.browser.chromium import PATIENCE_MS

PHONE_WIDTH = 375
_REPORTED_BY_STATUS = "Failed to load resource: the server responded"
_LEFT_BEHIND = "net::ERR_ABORTED"
"""How a request ends whose page was left meanwhile, such as a poll."""


class Visitor:
    """A browser profile with one page open. `wrong` collects errors of scripts, of our Content-Security-Policy and of
    the network, requests to any other host than the console's (and `also`), and answers of 400 and above that the test did not announce with `expect`.
    """

    def __init__(
        self, chromium: Browser, console: str, *, javascript: bool = True, width: int = 1280, also: str = "data:"
    ) -> None:
        self.console = console
        self._hosts = (f"{console}/", "data:", also)
        self.wrong: list[str] = []
        self._expected: Counter[int] = Counter()
        self.context = chromium.new_context(
            base_url=console,
            locale="en-GB",
            timezone_id="Europe/Berlin",
            java_script_enabled=javascript,
            viewport={"width": width, "height": 800},
            reduced_motion="reduce",  # Nothing is measured or photographed half-way through a change of colour.
        )
        self.context.set_default_timeout(PATIENCE_MS)
        # What a page of `also` wants from elsewhere is not ours to judge, and comes empty.
        self._also = also
        self.context.route(
            re.compile("^https:"),
            lambda route: route.fulfill(body="") if self._is_theirs(route.request) else route.continue_(),
        )
        self.context.on("console", self._said)
        self.context.on("weberror", lambda error: self.wrong.append(f"script: {error.error}"))
        self.context.on("request", self._asked)
        self.context.on("response", self._answered)
        self.context.on("requestfailed", self._failed)
        self.page: Page = self.context.new_page()

    def expect(self, *statuses: int) -> None:
        """Answers with these statuses, any number of them, are part of the test."""
        self._expected.update(statuses)

    def opens(self, path: str) -> Page:
        """Go to a path of the console; gives the page when it is loaded."""
        self.page.goto(path)
        return self.page

    def back(self) -> Page:
        """Press Back. A page that comes out of the browser's memory is not loaded, so nothing more is waited for."""
        self.page.go_back(wait_until="commit")
        return self.page

    def sign_in(self, email: str, password: str) -> Page:
        """Sign in as people do: by the page one is sent to, with e-mail, password and the button."""
        self.opens("/")
        self.page.get_by_label("E-mail").fill(email)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in", exact=True).click()
        self.page.wait_for_url(lambda url: "/sign-in" not in url)
        return self.page

    def transferred(self, path: str) -> int:
        """Open a path with nothing in the cache; bytes that came over the network for it, headers included."""
        sizes: list[float] = []
        devtools = self.context.new_cdp_session(self.page)
        devtools.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        devtools.send("Network.enable")
        devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})
        self.opens(path)
        devtools.send("Network.setCacheDisabled", {"cacheDisabled": False})
        devtools.detach()
        return round(sum(sizes))

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        width = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return int(width)

    def leave(self) -> list[str]:
        """Close the browser profile; gives what was wrong."""
        for page in self.context.pages:
            page.title()  # One more exchange with the browser, so that what it had to tell has arrived.
        self.context.close()
        return self.wrong

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_REPORTED_BY_STATUS):
            self.wrong.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(self._hosts) and not self._is_theirs(request):
            self.wrong.append(f"another host: {request.method} {request.url}")

    def _is_theirs(self, request: Request) -> bool:
        return request.headers.get("referer", "").startswith(self._also)

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self._expected:
            self.wrong.append(f"{response.status}: {response.request.method} {response.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != _LEFT_BEHIND:
            self.wrong.append(f"{request.failure}: {request.method} {request.url}")
