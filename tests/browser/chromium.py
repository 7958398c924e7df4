"""A real Chromium, driven by Playwright: the one that is installed, never one that Playwright downloads."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 10_000
_FLAGS = (
    "--no-sandbox",  # CI runs as root, where the sandbox refuses to start.
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # No other host is ever reached, whatever a page asks.
)


def executable() -> str:
    """The path of Chromium; AssertionError with what to install when there is none."""
    given = os.environ.get("KEYLEDGER_CHROMIUM")
    found = next((path for name in ([given] if given else NAMES) if (path := shutil.which(name))), None)
    assert found, "no Chromium here: apt-get install chromium, or set KEYLEDGER_CHROMIUM to the one to use"
    return found


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A headless browser for the length of a `with`; each visitor gets a profile of their own in it."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(),
            args=list(_FLAGS),
            # Playwright turns off what every user has: pages kept whole in memory, which Back brings again as they were.
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield browser
        browser.close()
