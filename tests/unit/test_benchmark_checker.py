"""The comparison of checkers: who cannot run is said to be not run, and what is counted are right answers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import bare, measure, peers, wrk
from benchmarks.checker import measure as compare
from benchmarks.contenders import Contender
from benchmarks.measure import NotMeasured, Row
from benchmarks.wrk import Load

LINE = 'answers=1000 seconds=2.000000 wrong=%d failed=0 p50_us=700 p99_us=2900 example="200 {}"\n'


class Server:
    """A stand-in that is measured at these rates, one a round, or fails."""

    def __init__(self, *rates: float, fails: Exception | None = None) -> None:
        self.rates, self.fails, self.starts = list(rates), fails, 0

    @contextmanager
    def serving(self) -> Iterator[int]:
        self.starts += 1
        if self.fails:
            raise self.fails
        yield 1

    def load(self, port: int) -> Load:
        return Load(self.rates.pop(0), 0.5, 2.0, 0, 0.6)


def refuse(port: int) -> Load:
    raise NotMeasured("no such module")


def test_a_figure_is_the_median_of_its_rounds_beside_the_floor() -> None:
    floor, ours = Server(100, 400, 200), Server(60, 90, 150)
    rows = compare(
        [
            Contender("Go", floor.serving, {"go_floor": floor.load}),
            Contender("ours", ours.serving, {"ours": ours.load}),
        ],
        rounds=3,
    )
    assert [(row.name, row.value) for row in rows] == [("go_floor", 200), ("ours", 90)]
    assert "0.450 of the Go floor" in rows[1].note
    assert "rounds 60 90 150" in rows[1].note


@pytest.mark.parametrize("error", [RuntimeError("no\npip"), NotMeasured("no pip"), TimeoutError("no pip")])
def test_who_cannot_start_is_not_run_with_the_reason_and_the_others_are_measured(error: Exception) -> None:
    peer, ours = Server(fails=error), Server(60, 60)
    rows = compare(
        [Contender("DRF", peer.serving, {"drf": peer.load}), Contender("ours", ours.serving, {"ours": ours.load})],
        rounds=2,
    )
    assert [(row.name, row.value) for row in rows] == [("drf", None), ("ours", 60)]
    assert rows[0].note == "no pip"
    assert peer.starts == 1


def test_one_row_that_fails_leaves_the_other_rows_of_the_same_server() -> None:
    ours = Server(60)
    rows = compare([Contender("ours", ours.serving, {"ours_in_process": refuse, "ours": ours.load})], rounds=1)
    assert [(row.name, row.value) for row in rows] == [("ours_in_process", None), ("ours", 60)]


def test_every_figure_is_kept_under_its_name_and_null_where_it_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "FOLDER", tmp_path)
    rows = [Row("ours", 20_000.0, "requests/s", 0.5, 2.0), Row("drf", None, "requests/s", note="no pip")]
    kept = json.loads(measure.write("checker", rows).read_text())
    assert (kept["ours"], kept["drf"]) == (20_000.0, None)
    assert kept["rows"][1]["note"] == "no pip"
    assert kept["machine"]["cores"] > 0
    assert "not run" in measure.table({"checker": rows})


def test_only_right_answers_count() -> None:
    load = wrk.read(LINE % 100, 0.5)
    assert (load.per_s, load.p50_ms, load.p99_ms, load.wrong) == (450.0, 0.7, 2.9, 100)


@pytest.mark.parametrize("said", [LINE % 1000, "unable to connect"])
def test_no_right_answer_is_no_figure(said: str) -> None:
    with pytest.raises(NotMeasured):
        wrk.read(said, 0.5)


def test_peers_that_are_not_there_are_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYLEDGER_PEERS", str(tmp_path))
    with pytest.raises(NotMeasured, match="KEYLEDGER_PEERS"):
        peers.script("drf")


def test_the_bare_view_knows_the_keys_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("text key org user\n")
    monkeypatch.setenv("BENCH_KEYS", str(tmp_path / "keys"))
    client = bare.flask_view().test_client()
    assert client.post("/v1/validations", json={"key": "text"}).json == {
        "valid": True,
        "code": "VALID",
        "key_id": "key",
        "org_id": "org",
        "user_id": "user",
    }
    assert client.post("/v1/validations", json={"key": "other"}).json == {"valid": False, "code": "NOT_FOUND"}
