"""The commands of docs/audit.md work when pasted: from the public key to a bundle that verifies offline."""

import re
import sys
from pathlib import Path

import pytest

from tests.end_to_end.pasting import ROOT, paste
from tests.end_to_end.system import System

BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/audit.md").read_text(), re.DOTALL)


def script(system: System) -> str:
    """All blocks, for the ports and the Python of this system; what would fetch a package takes ours."""
    pasted = "\n".join(BLOCKS).replace("127.0.0.1:8092", system.urls["kafka"][0])
    pasted, fetches = re.subn(r"python3 -m venv offline && .*", "", pasted)
    assert fetches == 1
    return pasted.replace(".venv/bin/python", sys.executable).replace("offline/bin/python", f"{sys.executable} -I")


@pytest.fixture
def folder(system: System, tmp_path: Path) -> Path:
    """A folder with the system's `var` and the source, as a checkout has it."""
    (tmp_path / "var").symlink_to(system.config.var)
    (tmp_path / "services").symlink_to(ROOT / "services")
    return tmp_path


def test_the_commands_work_as_printed_and_a_changed_byte_is_found(system: System, folder: Path) -> None:
    assert len(BLOCKS) == 5
    done = paste(script(system), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^signed at \S+: [0-9]+ organisations by keyledger/", done.stdout, re.MULTILINE)
    verified = [line for line in done.stdout.splitlines() if line.startswith("VERIFIED: ")]
    assert len(verified) == 2
    assert len(set(verified)) == 1
    assert (folder / "evidence/records/demo.jsonl").stat().st_size > 0
    assert "VERIFIED" in done.stdout.splitlines()
    replayed, exported = (folder / "ledger.jsonl").read_bytes(), (folder / "evidence/records/demo.jsonl").read_bytes()
    assert replayed.startswith(exported)
    records = folder / "evidence/records/demo.jsonl"
    records.write_bytes(records.read_bytes().replace(b'"role":"member"', b'"role":"admin" ', 1))
    again = paste(f"{sys.executable} -I verify_bundle.py evidence --key notary.pub --all", folder)
    assert again.returncode == 1, again.stderr
    assert re.match(r"changed: demo: record [0-9]+ was changed", again.stdout)
    assert "NOT VERIFIED: " in again.stdout


def test_what_is_missing_is_said_in_one_line(system: System, folder: Path) -> None:
    keyledger = f"{sys.executable} -m keyledger.cli audit"
    without = paste(f"unset DATABASE_URL; {keyledger} export evidence --key var/first-start.json", folder)
    assert (without.returncode, without.stderr) == (
        2,
        "keyledger: DATABASE_URL must say where the projector's PostgreSQL is\n",
    )
    no_key = paste(f"export DATABASE_URL=postgresql://127.0.0.1:1/none; {keyledger} export evidence --key none", folder)
    assert (no_key.returncode, no_key.stderr) == (2, "keyledger: [Errno 2] No such file or directory: 'none'\n")
    verify = paste(f"{keyledger} verify --key none evidence", folder)
    assert (verify.returncode, verify.stderr) == (2, "cannot verify: [Errno 2] No such file or directory: 'none'\n")
    away = paste(
        f"export DATABASE_URL=postgresql://127.0.0.1:1/none KEYLEDGER_LEDGER_KEYS=var/ledger-keys"
        f" KEYLEDGER_STATE_DIR={folder}/state; {keyledger} checkpoint",
        folder,
    )
    assert away.returncode == 3
    assert away.stderr.startswith("keyledger: PostgreSQL does not answer: ")
