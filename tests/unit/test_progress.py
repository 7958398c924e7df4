"""Long work tells how far it is and how long it still takes."""

import io
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from schemas.topics import PARTITIONS, USAGE
from services.ledger.follow import Follower
from services.ledger.log import LogWasCut, Message
from services.ledger.memory_log import MemoryLog
from services.ledger.records import Batch, Places, TopicPartition
from services.projector.catch_up import tell_catch_up
from services.projector.printed import table
from services.projector.progress import Progress, terminal
from tests.waiting import eventually

ALL = [TopicPartition(USAGE, number) for number in range(PARTITIONS)]
RECORDS = 7


class Terminal(io.StringIO):
    """A terminal that keeps what was drawn."""

    def isatty(self) -> bool:
        return True


class SlowHandler:
    """Handles a batch only when it is let to, or finds that the log was cut."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.is_cut = False

    def resume_from(self) -> Places:
        return {}

    def apply(self, batch: Batch) -> None:
        self.may.wait(10)
        if self.is_cut:
            raise LogWasCut("history is missing")

    def log_was_cut(self, why: str) -> None:
        raise LogWasCut(why)

    def lost(self, at: TopicPartition, next_offset: int, first_offset: int) -> None:
        raise AssertionError("nothing expires here")


def test_a_line_tells_what_is_done_what_is_to_do_how_fast_and_how_long() -> None:
    lines: list[str] = []
    with Progress(lines.append, every_s=0.01) as progress:
        progress.doing("projecting", 1000)
        progress.done(250)
        whole = re.compile(r"projecting: 250 of 1000 records, \S+ records/s, \d\d:\d\d left")
        eventually(lambda: any(whole.fullmatch(line) for line in lines), 5, "the line is told")
        progress.done(500, of=2000)
        eventually(lambda: lines[-1].startswith("projecting: 500 of "), 5, "what is done is told")
        assert lines[-1].startswith("projecting: 500 of 2000 records"), "the end has moved"


def test_work_of_unknown_size_is_named_again_and_again() -> None:
    lines: list[str] = []
    with Progress(lines.append, every_s=0.01) as progress:
        progress.doing("comparing heads")
        eventually(lambda: lines.count("comparing heads …") > 1, 5, "it is told twice")
        progress.say("heads: 3 rows")
        assert "heads: 3 rows" in lines


def test_on_a_terminal_there_is_a_bar_that_goes_away_and_the_results_stand_apart() -> None:
    screen, lines = Terminal(), list[str]()
    with Progress(lines.append, every_s=0.01, terminal=terminal(screen)) as progress:
        progress.doing("projecting", 1000)
        progress.done(250)
        eventually(lambda: "25%|" in screen.getvalue(), 5, "the bar is drawn")
        assert re.search(r"projecting:  25%\|.*\| 250/1\.00k \[\d\d:\d\d<\d\d:\d\d, .*records/s\]", screen.getvalue())
        progress.say("a result")
    assert lines == ["a result"]
    assert screen.getvalue().rpartition("\r")[0].rpartition("\r")[2].strip() == "", "nothing of it is left"


def test_what_is_no_terminal_gets_no_bar() -> None:
    assert terminal(io.StringIO()) is None


@contextmanager
def _catching_up(log: MemoryLog, handler: SlowHandler) -> Iterator[tuple[Follower, Callable[[], list[str]]]]:
    """A follower that starts, while its catching up is told; and the lines told so far."""
    follower, stopping = Follower(log, ALL, handler, "test"), threading.Event()
    with capture_logs() as logged:
        thread = threading.Thread(target=tell_catch_up, args=(follower, stopping, None, 0.01))
        follower.start()
        thread.start()
        yield follower, lambda: [one.get("progress", one["event"]) for one in logged]
        thread.join(10)
        assert not thread.is_alive(), "it has ended by itself"
    handler.may.set()
    follower.stop()


def _log_of(records: int) -> MemoryLog:
    log = MemoryLog()
    for number in range(records):
        log.append(Message(USAGE, number % PARTITIONS, b"key", b"value"), 1)
    return log


def test_a_start_tells_how_much_is_left_until_it_has_caught_up() -> None:
    handler = SlowHandler()
    with _catching_up(_log_of(RECORDS), handler) as (_, told):
        eventually(
            lambda: any(line.startswith(f"catching up with the log: 0 of {RECORDS} records") for line in told()),
            10,
            "what is left is told",
        )
        handler.may.set()
        eventually(lambda: "caught_up" in told(), 10, "the end is told")
        assert told()[-1] == "caught_up", "nothing is told after the end"


def test_a_follower_that_cannot_go_on_ends_the_telling() -> None:
    handler = SlowHandler()
    handler.is_cut = True
    with _catching_up(_log_of(RECORDS), handler) as (follower, told):
        handler.may.set()
        eventually(lambda: follower.failure, 10, "it has stopped")
    assert "caught_up" not in told()


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([], []),
        ([("a", 1), ("long", 200)], ["name  count", "a         1", "long    200"]),
        ([("a", None), ("b", 1.25)], ["name  count", "a         -", "b       1.2"]),
        ([("\x1b[2Jgone\n", 1)], ["name           count", "\\x1b[2Jgone\\n      1"]),
    ],
)
def test_a_table_is_aligned_and_what_could_steer_a_terminal_is_written_out(rows: list, lines: list[str]) -> None:
    assert table(("name", "count"), rows).splitlines() == lines
