"""What a reader does with each record: it folds history once and in order, and closes an organisation that has none."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import canonical
from schemas.decoder import decode
from schemas.events import LedgerResumed
from services.ledger import fold
from services.ledger.chain import ROOT, Head
from services.ledger.fold import StoreFailure
from services.ledger.lmdb_chain import LmdbChain
from services.ledger.records import Batch, Place, TopicPartition
from tests.ledger_story import KEYS, POISON, NamesFold, Reader, chain, hash_of, named, record, value_of

ORG, OTHER = "org_a", "org_b"
NAMES = ["one", "two", "three", "four", "five"]
VALUES = chain(ORG, NAMES)
HEAD = Head(5, hash_of(VALUES[-1]), "2026-11-23T10:00:00.000Z")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.store.close()


def _why(reader: Reader, org: str = ORG) -> str | None:
    halt = reader.halt(org)
    return None if halt is None else halt.why


def _unknown(org: str, revision: int, parent: str) -> bytes:
    document = {"org": org, "revision": revision, "parent": parent, "dataschema": "keyledger:KeyBlessed:1"}
    return canonical(document)


def test_history_is_folded_in_order(reader: Reader) -> None:
    reader.take(ORG, *VALUES)
    assert (reader.names(ORG), reader.head(ORG), reader.halt(ORG)) == (NAMES, HEAD, None)
    assert reader.counts == {"applied": 5}


def test_copies_and_lost_races_are_void_and_change_nothing(reader: Reader) -> None:
    lost = value_of(ORG, 3, hash_of(VALUES[1]), named("lost"))
    reader.take(ORG, *VALUES[:3], lost, VALUES[0], VALUES[2], *VALUES[3:], lost)
    assert (reader.names(ORG), reader.head(ORG), reader.halt(ORG)) == (NAMES, HEAD, None)
    assert reader.counts == {"applied": 5, "void": 4}


def test_garbage_is_counted_as_foreign_and_moves_the_place_on(reader: Reader) -> None:
    garbage = record(ORG, b"garbage", 0, headers=())
    reader.handler.apply(Batch((garbage,), {garbage.at: Place(1, b"hash")}))
    assert reader.counts == {"foreign": 1}
    assert reader.handler.resume_from() == {garbage.at: Place(1, b"hash")}


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])), ids=str)
def test_a_gap_halts_until_the_missing_events_came_in_whatever_order(reader: Reader, order: tuple[int, ...]) -> None:
    reader.take(ORG, VALUES[0], VALUES[4])
    assert (_why(reader), reader.names(ORG), reader.head(ORG).revision) == ("gap", ["one"], 1)
    for at in order[:-1]:
        reader.take(ORG, VALUES[at])
        assert (_why(reader), reader.names(ORG)) == ("gap", ["one"])
    reader.take(ORG, VALUES[order[-1]])
    assert (reader.names(ORG), reader.head(ORG), reader.halt(ORG)) == (NAMES, HEAD, None)


def test_nothing_is_folded_while_halted_though_the_head_moves(reader: Reader) -> None:
    reader.take(ORG, VALUES[0], VALUES[3], VALUES[1])
    assert (_why(reader), reader.names(ORG), reader.head(ORG).revision) == ("gap", ["one"], 2)
    reader.take(ORG, VALUES[2])
    assert (_why(reader), reader.names(ORG), reader.head(ORG).revision) == (None, NAMES[:4], 4)


def test_the_other_organisations_go_on(reader: Reader) -> None:
    others = chain(OTHER, NAMES)
    reader.take(ORG, VALUES[0], VALUES[4])
    reader.take(OTHER, *others)
    assert (_why(reader), _why(reader, OTHER), reader.names(OTHER)) == ("gap", None, NAMES)


FORKS = {
    "beside the head": value_of(ORG, 6, "e" * 64, named("fork")),
    "beside an older event": value_of(ORG, 3, "e" * 64, named("fork")),
    "another first event": value_of(ORG, 1, "e" * 64, named("fork")),
}


@pytest.mark.parametrize("name", FORKS)
def test_a_fork_ends_only_by_ledger_resumed(reader: Reader, name: str) -> None:
    later = chain(ORG, ["six", "seven"], HEAD)
    reader.take(ORG, *VALUES, FORKS[name], *later)
    assert (_why(reader), reader.names(ORG), reader.head(ORG).revision) == ("fork", NAMES, 7)
    reader.handler.resume_from()
    assert _why(reader) == "fork"
    reader.take(ORG, value_of(ORG, 8, hash_of(later[1]), LedgerResumed((5,), "looked at")))
    assert (_why(reader), reader.names(ORG)) == (None, [*NAMES, "six", "seven", "LedgerResumed"])


def test_ledger_resumed_sets_aside_only_what_it_names(reader: Reader) -> None:
    reader.take(ORG, *VALUES, *FORKS.values())
    resumed = value_of(ORG, 6, HEAD.hash, LedgerResumed((5, 7), "two of three"))
    reader.take(ORG, resumed)
    assert _why(reader) == "fork"
    reader.take(ORG, value_of(ORG, 7, hash_of(resumed), LedgerResumed((6,), "the third")))
    assert (_why(reader), reader.names(ORG)[5:]) == (None, ["LedgerResumed"] * 2)


def test_a_fork_does_not_heal_by_being_forgotten(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ledger.lmdb_chain.REMEMBERED", 5)
    reader.take(ORG, *VALUES, FORKS["beside an older event"])
    reader.take(ORG, *chain(ORG, [f"later {number}" for number in range(20)], HEAD))
    assert _why(reader) == "fork"


def test_so_many_hashes_are_remembered_and_no_more(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ledger.lmdb_chain.REMEMBERED", 2)
    reader.take(ORG, *VALUES, value_of(ORG, 5, "e" * 64, named("fork")))
    assert _why(reader) == "fork"
    with reader.store.read() as txn:
        assert len(list(txn.scan("hashes"))) == 2
    other = chain(OTHER, NAMES)
    reader.take(OTHER, *other, value_of(OTHER, 3, "e" * 64, named("too old to tell")))
    assert _why(reader, OTHER) is None


def test_more_halting_records_than_are_kept_do_not_end_the_halt_too_early(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, "MOST_BROKEN", 3)
    values = chain(ORG, [str(number) for number in range(1, 11)])
    reader.take(ORG, values[0], *values[2:])
    reader.take(ORG, values[1])
    assert (_why(reader), reader.head(ORG).revision) == ("gap", 4)
    reader.take(ORG, *values[4:8])
    assert _why(reader) == "gap"
    reader.take(ORG, values[8])
    assert (_why(reader), reader.names(ORG)) == (None, [str(number) for number in range(1, 11)])


def test_an_unknown_event_halts_until_software_knows_it(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = _unknown(ORG, 6, HEAD.hash)
    after = value_of(ORG, 7, hash_of(unknown), named("seven"))
    reader.take(ORG, *VALUES, unknown, after)
    assert (_why(reader), reader.names(ORG), reader.head(ORG).revision) == ("upgrade_me", NAMES, 7)
    reader.handler.resume_from()
    assert (_why(reader), reader.names(ORG)) == ("upgrade_me", NAMES)

    def newer(value: bytes) -> Any:
        return decode(value_of(ORG, 6, HEAD.hash, named("blessed"))) if value == unknown else decode(value)

    monkeypatch.setattr(fold, "decode", newer)
    reader.handler.resume_from()
    assert (_why(reader), reader.names(ORG)) == (None, [*NAMES, "blessed", "seven"])


def test_a_gap_that_fills_after_an_upgrade_ends_the_halt(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = _unknown(ORG, 6, HEAD.hash)
    seven, eight = chain(ORG, ["seven", "eight"], Head(6, hash_of(unknown), ""))
    reader.take(ORG, *VALUES, unknown, eight)
    monkeypatch.setattr(
        fold, "decode", lambda value: decode(value_of(ORG, 6, ROOT, named("six")) if value == unknown else value)
    )
    reader.handler.resume_from()
    assert (_why(reader), reader.names(ORG)) == ("upgrade_me", NAMES)
    reader.take(ORG, seven)
    assert (_why(reader), reader.names(ORG)) == (None, [*NAMES, "six", "seven", "eight"])


def test_a_gap_that_fills_leaves_an_unknown_event_to_an_upgrade(reader: Reader) -> None:
    unknown = _unknown(ORG, 6, HEAD.hash)
    seven, eight = chain(ORG, ["seven", "eight"], Head(6, hash_of(unknown), ""))
    reader.take(ORG, *VALUES[:4], seven, unknown, VALUES[4], eight)
    assert (_why(reader), reader.names(ORG), reader.head(ORG).revision) == ("upgrade_me", NAMES, 8)


def test_an_event_that_evolve_refuses_halts_only_its_organisation(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    values = chain(ORG, ["one", POISON, "three"])
    reader.take(ORG, *values)
    reader.take(OTHER, *chain(OTHER, NAMES))
    halt = reader.halt(ORG)
    assert halt is not None
    assert (halt.why, halt.detail) == ("evolve", "revision 2: poison")
    assert (reader.names(ORG), reader.head(ORG).revision) == (["one"], 3)
    assert (reader.names(OTHER), reader.halt(OTHER)) == (NAMES, None)
    assert reader.counts["halted"] == 1
    reader.store.close()
    newer = Reader(tmp_path, poison="another")
    newer.handler.resume_from()
    assert (newer.names(ORG), newer.halt(ORG)) == (["one", POISON, "three"], None)
    newer.store.close()


def test_an_event_that_breaks_its_schema_halts_its_organisation(reader: Reader) -> None:
    broken = canonical({"org": ORG, "revision": 1, "parent": ROOT, "dataschema": "keyledger:KeyRenamed:1"})
    reader.take(ORG, broken)
    assert (_why(reader), reader.head(ORG).revision) == ("evolve", 1)


def test_a_store_that_fails_stores_nothing_and_halts_nobody(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object, envelope: object, offset: int) -> None:
        raise StoreFailure("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("tests.ledger_story.NamesFold.evolve", fails)
        with pytest.raises(StoreFailure):
            reader.take(ORG, *VALUES)
    assert (reader.head(ORG), reader.halt(ORG), reader.handler.resume_from()) == (Head(), None, {})
    reader.take(ORG, *VALUES)
    assert reader.names(ORG) == NAMES


def test_a_cut_log_empties_the_store(reader: Reader) -> None:
    reader.take(ORG, *VALUES, VALUES[0])
    reader.handler.log_was_cut("truncated")
    assert (reader.names(ORG), reader.head(ORG), reader.handler.resume_from()) == ([], Head(), {})


def test_places_are_kept_by_topic_and_partition(reader: Reader) -> None:
    places = {TopicPartition("key-lifecycle", 11): Place(7, b"h"), TopicPartition("a/b", 0): Place(2**40, b"")}
    reader.handler.apply(Batch((), places))
    assert reader.handler.resume_from() == places


class Archive:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.first: list[tuple[int, str]] = []
        self.again: list[tuple[int, str]] = []

    def sorted(self, record: Any, outcome: Any) -> None:
        self.first.append((record.offset, type(outcome).__name__))

    def resorted(self, org: str, offset: int, outcome: Any) -> None:
        self.again.append((offset, type(outcome).__name__))


def test_an_archive_is_told_what_every_sealed_record_turned_out_to_be(reader: Reader) -> None:
    archive = Archive()
    values = [VALUES[0], VALUES[3], VALUES[3], VALUES[2], VALUES[1], VALUES[1]]
    with reader.store.write() as txn:
        folder = fold.Folder(KEYS, LmdbChain(txn), NamesFold(txn, POISON), archive)
        for offset, value in enumerate(values):
            folder.take(record(ORG, value, offset))
        folder.take(record(ORG, b"garbage", 6, headers=()))
    assert archive.first == [
        (0, "Applied"),
        (1, "Broken"),
        (2, "Broken"),
        (3, "Broken"),
        (4, "Applied"),
        (5, "Void"),
    ]
    assert archive.again == [(3, "Applied"), (1, "Applied"), (2, "Void")]


@st.composite
def interleavings(draw: st.DrawFn) -> list[bytes]:
    """A clean log of two organisations with copies and lost races in it, and some events late: restored at the end."""
    clean = [value for pair in zip(chain(ORG, NAMES), chain(OTHER, NAMES), strict=True) for value in pair]
    log: list[bytes] = []
    late: list[bytes] = []
    for number, value in enumerate(clean):
        is_late = draw(st.booleans())
        (late if is_late else log).append(value)
        if number >= 2 and not is_late and draw(st.booleans()):
            org, revision = (ORG, OTHER)[number % 2], number // 2 + 1
            log.append(value_of(org, revision, hash_of(clean[number - 2]), named(f"lost {number}")))
        if len(log) > 0 and draw(st.booleans()):
            log.append(draw(st.sampled_from(log)))
    copies: list[bytes] = draw(st.lists(st.sampled_from(clean), max_size=5))
    restored: list[bytes] = draw(st.permutations(late + copies))
    return log + restored


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(interleavings(), st.integers(1, 7))
def test_any_mix_of_copies_lost_races_and_restored_records_folds_as_the_clean_log_does(
    log: list[bytes], size: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(Path(folder))
        for at in range(0, len(log), size):
            reader.take_all(*log[at : at + size])
        for org in (ORG, OTHER):
            assert (reader.names(org), reader.halt(org)) == (NAMES, None)
            assert reader.head(org).hash == hash_of(chain(org, NAMES)[-1])
        reader.store.close()
