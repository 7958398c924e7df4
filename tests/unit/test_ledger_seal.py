"""The ledger keys: made once whoever comes first, kept from others, rotated without a stop."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from services.ledger.seal import BadKeyFile, LedgerKeys, load_or_make, new_keys
from tests.ledger_story import record

ROOT = Path(__file__).parents[2]
LOAD = (
    "import sys, pathlib; from services.ledger.seal import load_or_make; k = load_or_make(pathlib.Path(sys.argv[1]));"
)


def test_the_file_is_made_once_by_eight_processes_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "made" / "ledger-keys.json"
    script = LOAD + "print(k.current, k.keys[k.current].hex())"
    command = [sys.executable, "-c", script, str(path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    answers = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 8
    assert len(answers) == 1
    assert list(path.parent.iterdir()) == [path]


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger-keys.json"
    made = load_or_make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_make(path) == made
    assert len(made.keys[made.current]) == 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"current":"a"}',
        '{"current":"a","keys":[]}',
        '{"current":"a","keys":{}}',
        json.dumps({"current": "b", "keys": {"a": "11" * 32}}),
        json.dumps({"current": "a", "keys": {"a": "zz" * 32}}),
        json.dumps({"current": "a", "keys": {"a": "11" * 31}}),
        json.dumps({"current": "a", "keys": {"a": "11" * 32, "old": "11"}}),
        json.dumps({"current": "a", "keys": {"a": 11}}),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ledger-keys.json"
    path.write_text(text)
    with pytest.raises(BadKeyFile, match=r"ledger-keys\.json"):
        load_or_make(path)
    assert path.read_text() == text


def test_a_file_that_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "folder").mkdir()
    for name in ("bytes", "folder"):
        with pytest.raises(BadKeyFile, match=name):
            load_or_make(tmp_path / name)


def test_a_key_is_rotated_by_adding_switching_and_removing(tmp_path: Path) -> None:
    old, new = new_keys(), new_keys()
    both = {**old.keys, **new.keys}
    adding, switched = LedgerKeys(old.current, both), LedgerKeys(new.current, both)
    by_old, by_new = (record("org", b"{}", headers=keys.seal(b"{}")) for keys in (adding, switched))
    assert by_old.header("kid") != by_new.header("kid")
    assert all(keys.is_sealed(one) for keys in (adding, switched) for one in (by_old, by_new))
    assert new.is_sealed(by_new)
    assert not new.is_sealed(by_old)


def test_a_key_never_reaches_a_log() -> None:
    keys = new_keys()
    shown = f"{keys} {keys!r} {[keys]}"
    assert keys.current in shown
    assert keys.keys[keys.current].hex() not in shown
    assert repr(keys.keys[keys.current]) not in shown
