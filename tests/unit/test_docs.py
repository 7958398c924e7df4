"""The docs tell the truth where a machine can tell."""

import re
from pathlib import Path

import pytest

from keyledger import cli

ROOT = Path(__file__).parents[2]


MISSION = {3: "tests/browser/test_mission_pages.py", 4: "tests/end_to_end/test_mission.py"}
"""Which column of docs/mission.md names the tests of which file."""


@pytest.mark.parametrize("column", MISSION)
def test_every_row_of_the_mission_names_a_test_that_exists(column: int) -> None:
    tests, cells = _tests(MISSION[column]), _cells(column)
    assert len(cells) >= 20
    assert [cell for cell in cells if not set(re.findall(r"`(test_\w+)`", cell)) & tests] == []


@pytest.mark.parametrize("column", MISSION)
def test_every_mission_test_has_a_row(column: int) -> None:
    assert _tests(MISSION[column]) - set(re.findall(r"`(test_\w+)`", " ".join(_cells(column)))) == set()


def test_every_file_and_symbol_the_architecture_names_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = set(
        re.findall(r"`((?:services|schemas|keyledger|tests|benchmarks)/[\w/.]+\.(?:py|sql))(?::([\w.]+))?`", text)
    )
    assert len(named) >= 15
    missing = [name for name in named if not _exists(*name)]
    assert missing == []


def test_every_command_for_a_compliance_officer_is_one_that_is_taken() -> None:
    commands = re.findall(r"`keyledger (.*?)`", (ROOT / "docs/compliance.md").read_text())
    assert len(commands) >= 20
    parse = cli._parser().parse_args
    assert all(callable(parse(command.replace("$", "").split()).run) for command in commands)


def test_links_between_the_docs_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    dead = [
        f"{page.name}: {link}"
        for page in pages
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert dead == []


def _tests(file: str) -> set[str]:
    return set(re.findall(r"^def (test_\w+)", (ROOT / file).read_text(), re.MULTILINE))


def _cells(column: int) -> list[str]:
    rows = [line for line in (ROOT / "docs/mission.md").read_text().splitlines() if line.startswith("| ")][2:]
    return [row.split("|")[column] for row in rows]


def _exists(file: str, symbol: str) -> bool:
    path = ROOT / file
    if not path.exists():
        return False
    text = path.read_text()
    return all(re.search(rf"(def|class) {part}\b|^{part}\b", text, re.MULTILINE) for part in symbol.split(".") if part)
