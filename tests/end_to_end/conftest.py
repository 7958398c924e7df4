"""One running system for all stories of this folder; each story uses organisations of its own or leaves `demo` as it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.system import System, running


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Kafka, PostgreSQL, two command APIs, a projector, a checker and the console, as real processes."""
    var: Path = tmp_path_factory.mktemp("system")
    with running(var, command_apis=2) as made:
        yield made
