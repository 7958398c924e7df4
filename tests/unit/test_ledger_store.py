"""A store keeps what was committed through every kill, and starts empty where nobody vouches for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.ledger.fold import StoreFailure
from services.ledger.store import META, Store
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
TABLES = ("things",)
WRITER = """
import sys, pathlib
from services.ledger.store import Store
store = Store(pathlib.Path(sys.argv[1]), ("things",))
number = 0
while True:
    with store.write() as txn:
        txn.put("things", number.to_bytes(8), b"v" * 100)
        txn.put("meta", b"count", number.to_bytes(8))
    print(number, flush=True)
    number += 1
"""


def _put(store: Store, **pairs: str) -> None:
    with store.write() as txn:
        for key, value in pairs.items():
            txn.put("things", key.encode(), value.encode())


def _things(store: Store, prefix: bytes = b"") -> dict[str, str]:
    with store.read() as txn:
        return {key.decode(): value.decode() for key, value in txn.scan("things", prefix)}


def _abandoned(folder: Path) -> None:
    """A store that was never closed in order."""
    script = "import sys, pathlib; import tests.unit.test_ledger_store as t; t._put(t.Store(pathlib.Path(sys.argv[1]), t.TABLES), a='1')"
    subprocess.run([sys.executable, "-c", script, str(folder)], cwd=ROOT, check=True, timeout=60)


def test_a_writer_that_is_killed_loses_nothing_that_it_committed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        seen = [int(writer.stdout.readline()) for _ in range(500)]
        writer.kill()
        seen += [int(line) for line in writer.stdout]
    store = Store(tmp_path, TABLES)
    with store.read() as txn:
        found = [int.from_bytes(key) for key, _ in txn.scan("things")]
        last = int.from_bytes(txn.get(META, b"count") or b"")
    store.close()
    assert found == list(range(last + 1))
    assert last >= seen[-1]


def test_readers_in_other_processes_see_each_commit(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        reader = Store(tmp_path, TABLES, read_only=True)
        numbers = []
        for _ in range(50):
            committed = int(writer.stdout.readline())
            with reader.read() as txn:
                numbers.append(int.from_bytes(txn.get(META, b"count") or b"") - committed)
        writer.kill()
        reader.close()
    assert min(numbers) >= 0


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, TABLES)
    _put(store, a="1")

    def fail_half_way() -> None:
        with store.write() as txn:
            txn.put("things", b"a", b"2")
            txn.delete("things", b"a")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert _things(store) == {"a": "1"}
    store.close()


def test_a_reader_sees_one_moment_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    store = Store(tmp_path, TABLES)
    _put(store, a="1")
    with store.read() as txn:
        _put(store, a="2", b="2")
        assert (txn.get("things", b"a"), txn.get("things", b"b")) == (b"1", None)
    assert _things(store) == {"a": "2", "b": "2"}
    store.close()


def test_a_scan_gives_the_keys_with_the_prefix_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path, TABLES)
    _put(store, b2="2", a="0", b1="1", c="3")
    assert list(_things(store, b"b").items()) == [("b1", "1"), ("b2", "2")]
    assert _things(store, b"d") == {}
    store.close()


def test_a_machine_that_went_down_leaves_an_empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _abandoned(tmp_path)
    (tmp_path / "not-ours").write_text("kept")
    monkeypatch.setattr("services.ledger.store._boot_id", lambda: "another boot")
    store = Store(tmp_path, TABLES)
    assert _things(store) == {}
    store.close()
    assert (tmp_path / "not-ours").read_text() == "kept"


def test_half_a_store_is_replaced_before_anything_looks_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _abandoned(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"half" * 1000)
    monkeypatch.setattr("services.ledger.store._boot_id", lambda: "another boot")
    store = Store(tmp_path, TABLES)
    assert _things(store) == {}
    store.close()


def test_a_process_that_died_leaves_its_store_to_the_next_one_of_the_same_boot(tmp_path: Path) -> None:
    _abandoned(tmp_path)
    store = Store(tmp_path, TABLES)
    assert _things(store) == {"a": "1"}
    store.close()


def test_a_store_closed_in_order_outlives_a_reboot_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, TABLES)
    _put(store, a="1")
    store.close()
    monkeypatch.setattr("services.ledger.store._boot_id", lambda: "second boot")
    again = Store(tmp_path, TABLES)
    assert _things(again) == {"a": "1"}
    again._env.close()  # As a process that dies does.
    monkeypatch.setattr("services.ledger.store._boot_id", lambda: "third boot")
    last = Store(tmp_path, TABLES)
    assert _things(last) == {}
    last.close()


def test_a_store_of_another_format_starts_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, TABLES)
    _put(store, a="1")
    store.close()
    monkeypatch.setattr("services.ledger.store._FORMAT", "keyledger store of another format, ")
    again = Store(tmp_path, TABLES)
    assert _things(again) == {}
    again.close()


def test_a_full_store_is_a_failure_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ledger.store._MAP_BYTES", 256 * 1024)
    store = Store(tmp_path, TABLES)
    _put(store, a="1")
    with pytest.raises(StoreFailure):
        _put(store, **{str(number): "v" * 1000 for number in range(1000)})
    assert _things(store) == {"a": "1"}
    store.close()


def test_many_threads_read_while_one_writes(tmp_path: Path) -> None:
    from threading import Thread

    store = Store(tmp_path, TABLES)
    _put(store, a="0", b="0")
    torn: list[dict[str, str]] = []
    reads = [0] * 4

    def read(number: int) -> None:
        while _things(store)["a"] != "300":
            seen = _things(store)
            reads[number] += 1
            if seen["a"] != seen["b"]:
                torn.append(seen)

    threads = [Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for number in range(301):
        _put(store, a=str(number), b=str(number))
    eventually(lambda: not any(thread.is_alive() for thread in threads), 20, "the readers are done")
    store.close()
    assert torn == []
    assert sum(reads) > 0
