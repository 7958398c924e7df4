"""The limits of the house hold for every file; and each rule finds the fault that is planted for it."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import house

ROOT = Path(__file__).parents[2]
Rule = Callable[[house.Files], Iterator[str]]

_TEST = "tests/unit/test_x.py"
# For each rule: files that break it, each a fault of its own kind.
PLANTED: list[tuple[Rule, dict[str, str]]] = [
    (house.long_functions, {"services/x/y.py": "def f():\n" + "    a = 1\n" * 41}),
    (house.long_files, {"schemas/y.py": "a = 1\n" * 301}),
    (house.wrong_imports, {"schemas/y.py": "from services.ledger import chain"}),
    (house.wrong_imports, {"services/ledger/y.py": "import services.console.app"}),
    (house.wrong_imports, {"services/console/y.py": "from services.projector.app import x"}),
    (house.wrong_imports, {"services/console/y.py": "from services import projector"}),
    (house.wrong_imports, {"services/console/y.py": "from ..projector import app"}),
    (house.wrong_imports, {"services/console/y.py": "def f():\n    import keyledger.cli"}),
    (house.wrong_imports, {"services/console/y.py": "from services.console import __main__"}),
    (house.wrong_importers, {"services/console/y.py": "from kafka.errors import KafkaError"}),
    (house.wrong_importers, {"services/auth_checker/y.py": "import psycopg"}),
    (house.wrong_importers, {"services/command_api/minting.py": "import flask"}),
    (house.wrong_importers, {"services/command_api/state.py": "import lmdb"}),
    (house.banned_names, {"services/console/utils.py": ""}),
    (house.banned_names, {"services/common/app.py": ""}),
    (house.orphans, {"services/console/y.py": "", _TEST: "import services.console.y"}),
    (house.orphans, {"schemas/y.py": "", "schemas/yy.py": "", "README.md": "schemas.yy"}),
    (house.unfinished, {"services/x/y.py": "# TO" + "DO: later"}),
    (house.unfinished, {"services/x/y.py": "raise NotImplemented" + "Error"}),
    (house.swallowed_errors, {"services/x/y.py": "try:\n    f()\nexcept ValueError:\n    pass"}),
    (house.weak_tests, {_TEST: "def test_x():\n    f()"}),
    (house.weak_tests, {_TEST: "def test_x():\n    time.sleep(1)\n    assert f()"}),
    (house.weak_tests, {_TEST: "def test_x():\n    pytest.skip('no')\n    assert f()"}),
    (house.misnumbered_decisions, {"docs/decisions/0001-one.md": "", "docs/decisions/0003-three.md": ""}),
    (house.misnumbered_decisions, {"docs/decisions/notes.md": ""}),
    (house.package_hosts, {"requirements-dev.txt": "--index-url https://packages.example"}),
    (house.machine_paths, {"README.md": "see /ro" + "ot/notes"}),
    (house.machine_paths, {"services/x/y.py": "open('/wo" + "rk/main/x')"}),
]
RULES = list(dict.fromkeys(rule for rule, _ in PLANTED))


def _tracked() -> dict[str, str]:
    """Every text file that is tracked, or will be: new files count before they are committed."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    files = {}
    for name in names:
        if (ROOT / name).is_file():
            files[name] = (ROOT / name).read_text(encoding="utf-8", errors="replace")
    return files


@pytest.fixture(scope="module")
def tracked() -> dict[str, str]:
    files = _tracked()
    assert "services/embedded/__main__.py" in files, "the listing of tracked files is broken"
    return files


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(rule: Rule, tracked: dict[str, str]) -> None:
    found = list(rule(tracked))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("rule", "files"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_each_rule_finds_the_fault_planted_for_it(rule: Rule, files: dict[str, str]) -> None:
    assert list(rule(files))


def test_what_is_allowed_is_not_found() -> None:
    good = {
        "services/ledger/follow.py": "import kafka\nfrom schemas import events",
        "services/ledger/store.py": "import lmdb",
        "services/console/app.py": "import flask\nfrom services.ledger import follow, store\nfrom services.console import people",
        "services/console/people.py": "import psycopg\nimport schemas.events",
        "schemas/events.py": "x = 'GET /v1/orgs'",
        "keyledger/cli.py": "from services.console import app",
        "pyproject.toml": "keyledger = 'keyledger.cli:main'",
        "docs/decisions/0001-one.md": "",
    }
    assert [found for rule in RULES for found in rule(good)] == []


def test_every_rule_is_run() -> None:
    public = {name for name, value in vars(house).items() if callable(value) and not name.startswith("_")}
    rules = {name for name in public if getattr(house, name).__annotations__.get("files") == house.Files}
    assert rules == {rule.__name__ for rule in RULES}
