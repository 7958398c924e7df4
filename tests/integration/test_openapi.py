"""Every service answers whatever is sent to it as its own OpenAPI document says, and never with an error of ours.

KEYLEDGER_SCHEMATHESIS_CASES says how many requests are made up over all services; 2,000 when it is not set.
"""

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from schemas.events import OrgRegistered, UserAdded
from services.auth_checker import index_reader
from services.ledger.memory_log import MemoryLog
from services.projector import reads
from services.projector.database import read_pool
from tests.integration import projector_story
from tests.integration.command_parts import CHECKER_TOKEN, running_command_api
from tests.integration.console_parts import running_console
from tests.integration.read_api import app_on as reads_on
from tests.unit import checker_story
from tests.unit.checker_site import lanes

CASES = int(os.environ.get("KEYLEDGER_SCHEMATHESIS_CASES", "10000" if os.environ.get("KEYLEDGER_FULL") else "2000"))


def no_error_of_ours(_context: Any, response: Any, _case: Any) -> None:
    """Nothing is away here, so a 5xx is a fault; a made-up `min_revision` that does not come is none."""
    assert response.status_code < 500 or response.json()["code"] == "not_caught_up", response.text


CHECKS: list[Any] = [
    no_error_of_ours,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
_PER_ROUND = 25


@dataclass(frozen=True)
class Served:
    """A WSGI app, the token that a path needs, and ids that exist, for the parameters of paths."""

    app: Any
    token_of: Callable[[str], str]
    ids: dict[str, str] = field(default_factory=dict)


Factory = Callable[[Path, pytest.FixtureRequest], AbstractContextManager[Served]]


@contextmanager
def command_api(folder: Path, _request: pytest.FixtureRequest) -> Iterator[Served]:
    """The command API on a log in memory; an admin calls, but where only others may."""
    with running_command_api(folder) as world:
        world.org("acme")

        def token_of(path: str) -> str:
            if path == "/v1/usage":
                return str(reporter["key"])
            return world.token("acme", admin) if path.startswith("/v1/orgs/{org}/keys") else world.operator()

        admin, token = world.user("acme", "admin")
        reporter = world.key("acme", token, "reporter", scopes=["usage:write"])
        account = world.user("acme", "member", "service_account")[0]
        key = world.key("acme", world.token("acme", account))
        yield Served(world.app, token_of, {"org": "acme", "user": account, "key": key["key_id"], "revision": "1"})


@contextmanager
def auth_checker(folder: Path, _request: pytest.FixtureRequest) -> Iterator[Served]:
    """The checker over an index in a folder, with its fast lane in front."""
    asking = checker_story.Asking(folder / "index")
    asking.index.tell("org", *checker_story.BEGINNING, checker_story.created())
    try:
        yield Served(lanes(asking, folder, CHECKER_TOKEN)[0], lambda _path: CHECKER_TOKEN)
    finally:
        asking.spool.close()
        asking.index.store.close()


@contextmanager
def read_api(folder: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """The read API on a real database into which a story was projected."""
    database, log = request.getfixturevalue("database"), MemoryLog()
    projector_story.Ledger(log, "platform").write(OrgRegistered(), UserAdded("user_operator", "person", "admin"))
    projector_story.tell_story(log)
    projector_story.projected(database, log).close()
    ids = {"org": projector_story.ORG, "user": projector_story.MEMBER, "key": projector_story.key_id(1)}
    with read_pool(database, 4) as pool:
        yield Served(reads_on(pool, folder), lambda _path: "operator", ids)


@contextmanager
def console(folder: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """The console on a real database, with stand-ins for the services it calls; an operator calls."""
    with running_console(request.getfixturevalue("database"), folder) as world:
        world.person("acme", "admin", "admin")
        world.person("acme", "target")
        world.person("platform", "operator", "admin")
        # An operator may name any organisation; the stand-in finds those it does not know empty.
        world.ledger.orgs = defaultdict(dict, world.ledger.orgs)
        app = world.client.application
        # One for all: made-up sign-ins soon make the console refuse more of them from here.
        token = world.token("operator")
        yield Served(app, lambda _path: token, {"org": "acme", "user": "target"})


SERVICES: dict[str, Factory] = {
    "command API": command_api,
    "auth checker": auth_checker,
    "read API": read_api,
    "console": console,
}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_answers_as_its_document_says(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reads, "WAIT_S", 0.02)
    monkeypatch.setattr(index_reader, "LONGEST_WAIT_S", 0.02)
    made: Counter[int] = Counter()
    with SERVICES[name](tmp_path, request) as served:
        schema = schemathesis.openapi.from_wsgi("/openapi.json", served.app)
        operations = [cast(Any, found).ok() for found in schema.get_all_operations()]
        for number, operation in enumerate(itertools.cycle(operations)):
            if made.total() >= CASES / len(SERVICES):
                break
            _check_made_up(operation, served, number, made)
    print(f"{name}: {made.total()} cases, answered {dict(sorted(made.items()))}")
    assert made.total() >= CASES / len(SERVICES)


def _check_made_up(operation: Any, served: Served, number: int, made: Counter[int]) -> None:
    """Send some requests of one operation: right and wrong ones, to ids that exist and to others."""
    modes = list(schemathesis.GenerationMode)
    headers = {"Authorization": f"Bearer {served.token_of(operation.path)}"}

    @seed(number)
    @settings(
        max_examples=_PER_ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes]),
        known=st.sampled_from([True, True, True, False]),
    )
    def send(case: Any, *, known: bool) -> None:
        if known and case.path_parameters:
            case.path_parameters = {name: served.ids.get(name, value) for name, value in case.path_parameters.items()}
        response = case.call_and_validate(headers=headers, checks=CHECKS)
        made[response.status_code] += 1

    send()
