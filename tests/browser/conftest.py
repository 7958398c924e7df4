"""One running system and one Chromium for all browser tests; each test has visitors with browser profiles of their own."""

import secrets
from collections.abc import Callable, Iterator
from signal import SIGTERM

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import running_chromium
from tests.browser.visitor import Visitor
from tests.end_to_end.system import System, running
from tests.fault.organisation import Org
from tests.integration.oidc_provider import Provider, provider_process, settings

Visit = Callable[..., Visitor]


@pytest.fixture(scope="package")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """A provider of single sign-on, as a real process."""
    with provider_process(tmp_path_factory.mktemp("provider")) as made:
        yield made


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[System]:
    """Kafka, PostgreSQL, a command API, a projector, a checker and the console, as real processes."""
    sso = settings(provider.issuer)
    with running(tmp_path_factory.mktemp("browser")) as made:
        made.end("console", SIGTERM)
        made.spawn(
            "console",
            KEYLEDGER_OIDC_ISSUER=sso.issuer,
            KEYLEDGER_OIDC_CLIENT_ID=sso.client_id,
            KEYLEDGER_OIDC_CLIENT_SECRET=sso.client_secret,
            KEYLEDGER_OIDC_NAME=sso.name,
        )
        made.wait_ready("console")
        yield made


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """The browser."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def visit(chromium: Browser, system: System) -> Iterator[Visit]:
    """Makes visitors of the console; when the test is over, nothing may have gone wrong in any of their browsers."""
    visitors: list[Visitor] = []

    def come(**how: object) -> Visitor:
        visitors.append(Visitor(chromium, system.urls["console"][0], **how))  # type: ignore[arg-type]
        return visitors[-1]

    yield come
    assert [line for visitor in visitors for line in visitor.leave()] == []


@pytest.fixture
def org(system: System) -> Org:
    """An organisation of the test's own, keys turned on, with `admin` and `member`."""
    return new_org(system)


@pytest.fixture(scope="module")
def shared_org(system: System) -> Org:
    """The same, shared by the tests of a file."""
    return new_org(system)


def new_org(system: System) -> Org:
    """Registers it under a fresh id."""
    made = Org(system, f"org-{secrets.token_hex(4)}")
    made.add("member")
    return made
