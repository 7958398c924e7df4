"""A copy of a checker's index: whole, with its places, without its lease, and never of tables nobody vouches for."""

import subprocess
import sys
from pathlib import Path

import pytest

from keyledger import cli
from services.auth_checker import status
from services.auth_checker.key_index import KeyIndex
from services.auth_checker.lease import Lease
from services.auth_checker.snapshot import snapshot
from services.auth_checker.status import IndexHandler
from services.ledger.fold import StoreFailure
from services.ledger.memory_log import MemoryLog
from services.ledger.records import Batch, Place, value_hash
from services.ledger.store import Store
from tests.unit.checker_story import BEGINNING, Teller, created, key_id

LEASED = status.Status(Lease("a boot", "an incarnation", 1, 2, 1, 2))


def running(state_dir: Path) -> Store:
    """An index that its checker holds open, with one organisation, one key and a lease."""
    log = MemoryLog()
    teller = Teller(log)
    teller.tell("org_a", *BEGINNING, created())
    store = status.open_index(state_dir)
    handler = IndexHandler(store, teller.keys)
    records = tuple(log.reader(dict.fromkeys(status.FOLLOWED, 0)).poll(0))
    places = {record.at: Place(record.offset + 1, value_hash(record)) for record in records}
    handler.apply(Batch(records, places))
    with store.write() as txn:
        status.write(txn, LEASED)
    return store


def command(state_dir: Path, target: Path) -> tuple[int, str]:
    """The exit code, and what was said: in a process of its own, since the checker that runs is another one too."""
    words = ["checker", "snapshot", str(state_dir), str(target)]
    done = subprocess.run([sys.executable, "-m", "keyledger.cli", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_a_copy_holds_all_that_was_folded_and_its_places_but_not_the_lease(tmp_path: Path) -> None:
    store = running(tmp_path / "first")
    assert command(tmp_path / "first", tmp_path / "second") == (cli.GOOD, "")
    copied = status.open_index(tmp_path / "second")
    with copied.read() as txn:
        assert len(KeyIndex(txn).candidates(key_id())) == 1
        assert status.read(txn) is None
        reached = status.positions(txn)
    with store.read() as txn:
        assert reached == status.positions(txn)
        assert sum(reached.values()) == 4
        assert status.read(txn) == LEASED
    copied.close()
    store.close()


def test_a_copy_outlives_a_reboot_before_its_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = running(tmp_path / "first")
    store.close()
    snapshot(tmp_path / "first", tmp_path / "second")
    monkeypatch.setattr("services.ledger.store._boot_id", lambda: "another boot")
    copied = status.open_index(tmp_path / "second")
    with copied.read() as txn:
        assert KeyIndex(txn).org("org_a") is not None
    copied.close()


def test_what_a_machine_that_went_down_left_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = running(tmp_path / "first")
    monkeypatch.setattr("services.ledger.store._boot_id", lambda: "another boot")
    with pytest.raises(StoreFailure, match="nothing vouches"):
        store.snapshot(tmp_path / "copy")
    store._env.close()  # As a process that dies does.
    with pytest.raises(ValueError, match="nothing vouches"):
        snapshot(tmp_path / "first", tmp_path / "second")
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


@pytest.mark.parametrize(
    ("state_dir", "target", "why"),
    [
        ("first", "first", "exists already"),
        ("nowhere", "second", "holds no index"),
        ("first", "no/such", "cannot be copied"),
    ],
)
def test_wrong_folders_are_one_sentence(tmp_path: Path, state_dir: str, target: str, why: str) -> None:
    store = running(tmp_path / "first")
    store.close()
    code, said = command(tmp_path / state_dir, tmp_path / target)
    assert code == cli.MISUSED
    assert why in said
    assert said.count("\n") == 1
