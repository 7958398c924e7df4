"""One running system for the stories of this folder; each uses organisations of its own and leaves every process running."""

from collections.abc import Iterator

import pytest

from tests.end_to_end.system import System, running


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Kafka, PostgreSQL, two command APIs, a projector, a checker and the console, as real processes."""
    with running(tmp_path_factory.mktemp("fault"), command_apis=2) as made:
        yield made
