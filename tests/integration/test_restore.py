"""A log that lost records gets them back from the archive or a bundle, byte for byte; and nobody forgets a revocation by it."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from schemas import events
from schemas.topics import LIFECYCLE, PARTITIONS, TOPICS, partition_of
from services.auditor.checkpoints import Session
from services.auditor.export import export
from services.auditor.known_heads import Known, known_heads
from services.auditor.notary import Notary
from services.auditor.read_tables import ReadTables
from services.auditor.restore import CannotRestore, Restore, Restored
from services.auditor.restore_task import Wanted, restore_ledger
from services.auditor.signing_key import SigningKey, open_signing_key
from services.auditor.stored_records import Archive, Bundle, Source
from services.auditor.verify_bundle import Unverified
from services.ledger import seal
from services.ledger.chain import Head
from services.ledger.fold import MOST_BROKEN, Halt
from services.ledger.lmdb_chain import CHAIN_TABLES, LmdbChain, LmdbHandler
from services.ledger.log import LogUnavailable, Message
from services.ledger.memory_log import MemoryLog
from services.ledger.records import Batch, Record, TopicPartition
from services.ledger.store import Store
from tests.integration import projector_story as story
from tests.integration.projector_story import DAY, ORG, OTHER, key_id
from tests.ledger_story import NamesFold

NOW_MS = 1_795_500_000_000
LIFECYCLE_PARTITIONS = [TopicPartition(LIFECYCLE, partition) for partition in range(PARTITIONS)]


def records_in(log: MemoryLog) -> list[Record]:
    """Every record of `key-lifecycle`, but for the time at which the log got it."""
    found = log.reader(dict.fromkeys(LIFECYCLE_PARTITIONS, 0)).poll(0)
    return [
        record._replace(time_ms=0) for record in sorted(found, key=lambda record: (record.partition, record.offset))
    ]


def copy_of(records: Iterable[Record]) -> MemoryLog:
    """A log with these records, wherever they stood."""
    log = MemoryLog()
    for one in records:
        log.append(Message(one.topic, one.partition, one.key or b"", one.value or b"", one.headers), 1)
    return log


class Reader:
    """A command API or a checker: an LMDB store that follows a log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "ledger", (*CHAIN_TABLES, "seen"))
        self._handler = LmdbHandler(self.store, story.KEYS, lambda txn: NamesFold(txn, ""))

    def read(self, log: MemoryLog) -> "Reader":
        """Read the whole log anew, as after a cut."""
        with self.store.write() as txn:
            txn.clear()
        self._handler.apply(Batch(tuple(records_in(log)), {}))
        return self

    def halt(self, org: str) -> Halt | None:
        with self.store.read() as txn:
            return LmdbChain(txn).halt(org)

    def head(self, org: str) -> Head:
        with self.store.read() as txn:
            return LmdbChain(txn).head(org)


@dataclass
class Scene:
    """The story with a lost race and a copy in a log, projected; a bundle of it; and somebody who restores."""

    log: MemoryLog
    ledger: story.Ledger
    other: story.Ledger
    database: str
    session: Session
    folder: Path
    key: SigningKey
    known: list[Known] = field(default_factory=list)

    def restore(self, log: MemoryLog, source: Source | None = None, keys: seal.LedgerKeys = story.KEYS) -> Restored:
        known = [*known_heads(self.session, None, []), *self.known]
        store = Store(self.folder / "restore", CHAIN_TABLES)
        try:
            return Restore(log, store, keys, source or Archive(self.session), known, lambda: NOW_MS).run()
        finally:
            store.close()

    def bundle(self, name: str = "bundle") -> Path:
        """Sign where the log stands, and export it."""
        store = Store(self.folder / "notary", CHAIN_TABLES)
        parts = (self.log, store, story.KEYS, self.session, self.key, self.folder / "checkpoints", lambda: NOW_MS)
        Notary(*parts).sign()
        store.close()
        export(self.session, self.folder / name, [], self.key.public_keys())
        return self.folder / name

    def reader(self, name: str, log: MemoryLog) -> Reader:
        return Reader(self.folder / name).read(log)

    def project(self, log: MemoryLog | None = None) -> None:
        story.projected(self.database, log or self.log).close()

    def forget_tables(self) -> None:
        self.session.execute("TRUNCATE read.heads, read.halting_records, read.ledger_records")

    def ledger_parent(self, revision: int) -> str:
        """The hash of a revision of ORG."""
        return hashlib.sha256(self.ledger.values[revision - 1]).hexdigest()

    def upto(self, org: str, revision: int) -> MemoryLog:
        """The log, had it lost all records of an organisation after a revision."""
        return copy_of(one for one in records_in(self.log) if org != _org(one) or _revision(one) <= revision)


def _org(record: Record) -> str:
    return (record.key or b"").decode()


def _revision(record: Record) -> int:
    return int(json.loads(record.value or b"{}")["revision"])


@pytest.fixture
def scene(database: str, tmp_path: Path) -> Iterator[Scene]:
    log = MemoryLog()
    ledger, other = story.tell_story(log)
    lost_race = ledger.value(events.OrgKeysDisabled())
    ledger.write(events.KeyRevoked(key_id(4), "admin"))
    ledger.append(lost_race)
    ledger.append(ledger.values[2])
    value = ledger.take(ledger.value(events.KeyRenamed(key_id(1), "again")))
    ledger.append(value, headers=(("traceparent", b"00-ab"), ("empty", None), *story.KEYS.seal(value)))
    with psycopg.connect(database, autocommit=True) as session:
        made = Scene(log, ledger, other, database, session, tmp_path, open_signing_key(tmp_path / "signing-key"))
        made.project()
        yield made


def test_an_emptied_log_is_restored_byte_for_byte_with_its_void_records_and_offsets(scene: Scene) -> None:
    restored = scene.restore(log := MemoryLog())
    assert records_in(log) == records_in(scene.log)
    assert restored.appended == {ORG: 16, OTHER: 3}
    assert (restored.present, restored.refused, restored.halted, restored.marked) == (0, {}, {}, set())


def test_a_second_restore_changes_nothing(scene: Scene) -> None:
    scene.restore(log := MemoryLog())
    before = records_in(log)
    again = scene.restore(log)
    assert records_in(log) == before
    assert (sum(again.appended.values()), again.present, again.refused, again.halted) == (0, 19, {}, {})


@pytest.mark.parametrize("left", [0, 1, 9, 13, 15])
def test_a_lost_tail_is_appended_where_it_was(scene: Scene, left: int) -> None:
    before = records_in(scene.log)
    scene.log.truncate(story.at_of(scene.ledger), left)
    restored = scene.restore(scene.log)
    assert records_in(scene.log) == before
    assert restored.appended == {ORG: 16 - left}
    assert not restored.halted


@pytest.mark.parametrize("lost", [1, 5, 12])
def test_a_lost_beginning_is_appended_after_the_rest_and_ends_the_halt(scene: Scene, lost: int) -> None:
    mine = [one for one in records_in(scene.log) if _org(one) == ORG]
    log = copy_of(mine[lost:])
    reader = scene.reader("reader", log)
    assert reader.halt(ORG) is not None
    scene.restore(log)
    assert Counter(one.value for one in records_in(log) if _org(one) == ORG) == Counter(one.value for one in mine)
    assert (reader.read(log).halt(ORG), reader.head(ORG).hash) == (None, scene.ledger.parent)


def test_a_beginning_is_restored_though_so_much_waits_for_it_that_readers_dropped_some(scene: Scene) -> None:
    for number in range(MOST_BROKEN + 200):
        scene.ledger.append(
            scene.ledger.take(scene.ledger.value(events.KeyRenamed(key_id(1), f"{number}"), time=f"{DAY}23:00:00.000Z"))
        )
    scene.project()
    log = copy_of(records_in(scene.log)[8:])
    restored = scene.restore(log)
    assert (restored.refused, restored.halted) == ({}, {})
    reader = scene.reader("reader", log)
    assert (reader.halt(ORG), reader.head(ORG).hash) == (None, scene.ledger.parent)
    before = records_in(log)
    scene.restore(log)
    assert records_in(log) == before


def test_the_same_bytes_without_our_seal_are_not_taken_for_the_record(scene: Scene) -> None:
    records = records_in(scene.log)
    log = copy_of([records[0], *(one._replace(headers=()) for one in records[1:])])
    assert sum(scene.restore(log).appended.values()) == len(records) - 1
    reader = scene.reader("reader", log)
    assert (reader.head(ORG).hash, reader.head(OTHER).hash) == (scene.ledger.parent, scene.other.parent)


def test_a_bundle_brings_back_what_was_applied(scene: Scene) -> None:
    bundle, log = scene.bundle(), MemoryLog()
    scene.forget_tables()
    source = Bundle(bundle, scene.key.public_keys())
    restored = scene.restore(log, source)
    assert restored.appended == {ORG: 14, OTHER: 3}
    values = {org: [one.value for one in records_in(log) if _org(one) == org] for org in (ORG, OTHER)}
    assert values == {ORG: scene.ledger.values, OTHER: scene.other.values}
    kept = {one.value: one.headers for one in records_in(scene.log)}
    assert all(one.headers == kept[one.value] for one in records_in(log))
    assert sum(scene.restore(log, source).appended.values()) == 0


@pytest.mark.parametrize("part", ["records", "headers"])
def test_a_bundle_that_was_tampered_with_is_not_believed(scene: Scene, part: str) -> None:
    file = scene.bundle() / part / f"{ORG}.jsonl"
    file.write_bytes(file.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(Unverified):
        Bundle(scene.folder / "bundle", scene.key.public_keys())


def test_the_command_says_that_an_unverified_bundle_appended_nothing_before_it_asks_for_kafka(scene: Scene) -> None:
    bundle, public, keys = scene.bundle(), scene.folder / "notary.pub", scene.folder / "ledger-keys"
    public.write_text(scene.key.public_keys())
    (bundle / "records" / f"{OTHER}.jsonl").unlink()
    wanted = Wanted(bundle, public)
    with pytest.raises(ValueError, match="restore the ledger-keys file first"):
        restore_ledger(scene.database, "127.0.0.1:1", keys, wanted)
    seal.load_or_make(keys)
    told = restore_ledger(scene.database, "127.0.0.1:1", keys, wanted)
    assert not told.is_good
    assert f"left_out: {OTHER}: its records are not in the bundle" in told.text
    assert told.text.endswith("NOT RESTORED: nothing was appended")
    with pytest.raises(ValueError, match="give the file of public keys with --key"):
        restore_ledger(scene.database, "127.0.0.1:1", keys, Wanted(bundle, None))


def test_a_bundle_whose_headers_were_changed_with_the_manifest_is_refused_for_its_seals(scene: Scene) -> None:
    bundle, log = scene.bundle(), MemoryLog()
    source = Bundle(bundle, scene.key.public_keys())
    (bundle / "headers" / f"{ORG}.jsonl").write_bytes(b"[]\n")
    restored = scene.restore(log, source)
    assert restored.refused.keys() == {ORG}
    assert "the bundle: the record for key-lifecycle/" in restored.refused[ORG]
    assert restored.appended == {OTHER: 3}


def test_an_archive_row_edited_by_sql_is_refused_with_its_organisation_alone(scene: Scene) -> None:
    scene.session.execute(
        "UPDATE read.ledger_records SET value = convert_to(replace(convert_from(value, 'UTF8'), %s, %s), 'UTF8')"
        " WHERE org_id = %s AND revision = 12",
        [key_id(3), key_id(2), ORG],
    )
    log = MemoryLog()
    restored = scene.restore(log)
    assert restored.refused.keys() == {ORG}
    assert "none of ours (seal)" in restored.refused[ORG]
    assert restored.appended == {OTHER: 3}
    # Nothing of it is there, but that it is closed: without the marker anybody could register it anew.
    [marker] = [one for one in records_in(log) if _org(one) == ORG]
    assert (_revision(marker), restored.marked) == (15, {ORG})
    reader = scene.reader("reader", log)
    assert reader.halt(ORG) is not None
    assert (reader.halt(OTHER), reader.head(OTHER).hash) == (None, scene.other.parent)


@pytest.mark.parametrize("more", [0, 1])
def test_a_fork_between_log_and_archive_is_refused_alone_and_closed(scene: Scene, more: int) -> None:
    """The log lost its tail, a command API went on without it, and the archive has both the lost revocation and more."""
    log = scene.upto(ORG, 12)
    ledger = story.Ledger(log, ORG, 12, scene.ledger_parent(12))
    ledger.write(*[events.KeyRenamed(key_id(4), "never revoked")] * (1 + more))
    log.truncate(TopicPartition(LIFECYCLE, partition_of(OTHER)), 1)
    before = scene.reader("before", log)
    assert before.halt(ORG) is None
    restored = scene.restore(log)
    assert restored.refused.keys() == {ORG}
    assert "two histories" in restored.refused[ORG]
    assert restored.appended == {OTHER: 2}
    reader = scene.reader("reader", log)
    assert (reader.head(ORG).revision, reader.head(OTHER).hash) == (13 + more, scene.other.parent)
    assert (reader.halt(ORG) or Halt("", "")).why in {"fork", "gap"}
    records = records_in(log)
    assert scene.restore(log).refused.keys() == {ORG}
    assert records_in(log) == records


def test_a_reader_that_knows_more_keeps_the_organisation_halted_until_a_bundle_brings_the_rest(scene: Scene) -> None:
    """Kafka lost a revocation that the archive does not have either; a checker saw it."""
    whole = scene.bundle()
    checker = scene.reader("checker", scene.log)
    checker.store.close()
    _archive_ends_at(scene, 12)
    scene.known = known_heads(scene.session, None, [checker.folder])
    log = MemoryLog()
    restored = scene.restore(log)
    assert (restored.marked, restored.refused, set(restored.halted)) == ({ORG}, {}, {ORG})
    assert f"{checker.folder} knows revision 14" in restored.halted[ORG]
    reader = scene.reader("reader", log)
    assert (reader.head(ORG).revision, (reader.halt(ORG) or Halt("", "")).why) == (12, "gap")
    assert (reader.halt(OTHER), reader.head(OTHER).hash) == (None, scene.other.parent)
    assert _projected_anew(scene, log) == {ORG: "gap", OTHER: None}
    before = records_in(log)
    assert set(scene.restore(log).halted) == {ORG}
    assert records_in(log) == before
    found = scene.restore(log, Bundle(whole, scene.key.public_keys()))
    assert (found.appended, found.halted, found.refused) == ({ORG: 2}, {}, {})
    assert (reader.read(log).halt(ORG), reader.head(ORG).revision) == (None, 15)
    with reader.store.read() as txn:
        assert LmdbChain(txn).hash_at(ORG, 14) == scene.ledger.parent
    scene.project(log)
    assert _halts(scene) == {ORG: None, OTHER: None}


def test_an_operator_ends_the_halt_by_setting_the_marker_aside(scene: Scene) -> None:
    checker = scene.reader("checker", scene.log)
    checker.store.close()
    _archive_ends_at(scene, 12)
    scene.known = known_heads(scene.session, None, [checker.folder])
    scene.restore(log := MemoryLog())
    [marker] = [one for one in records_in(log) if _org(one) == ORG and _revision(one) == 15]
    ledger = story.Ledger(log, ORG, 12, scene.ledger_parent(12))
    ledger.write(events.LedgerResumed((marker.offset,), "the rest is lost; keys were revoked by hand"))
    reader = scene.reader("reader", log)
    assert (reader.halt(ORG), reader.head(ORG).revision) == (None, 13)
    before = records_in(log)
    restored = scene.restore(log)
    assert (records_in(log), restored.halted, restored.marked) == (before, {}, set())


def test_the_newest_checkpoint_is_known_too_when_its_key_is_given(scene: Scene) -> None:
    scene.bundle()
    _archive_ends_at(scene, 12)
    assert scene.restore(MemoryLog()).halted == {}
    scene.known = known_heads(scene.session, scene.key.public_keys(), [])
    assert set(scene.restore(MemoryLog()).halted) == {ORG}
    stranger = open_signing_key(scene.folder / "another")
    with pytest.raises(Unverified, match="signed by none of your public keys"):
        known_heads(scene.session, stranger.public_keys(), [])


def test_a_contradiction_too_old_for_readers_to_remember_still_halts(scene: Scene) -> None:
    for number in range(1100):
        scene.ledger.append(
            scene.ledger.take(scene.ledger.value(events.KeyRenamed(key_id(1), f"{number}"), time=f"{DAY}23:00:00.000Z"))
        )
    scene.known = [Known("a reader", ORG, 13, "ab" * 32)]
    restored = scene.restore(scene.log)
    assert set(restored.halted) == {ORG}
    assert (scene.reader("reader", scene.log).halt(ORG) or Halt("", "")).why == "fork"
    before = records_in(scene.log)
    assert set(scene.restore(scene.log).halted) == {ORG}
    assert records_in(scene.log) == before


def test_a_fork_that_was_set_aside_stays_so_where_its_offset_is_the_same(scene: Scene) -> None:
    _fork_and_resume(scene)
    restored = scene.restore(log := MemoryLog())
    assert (restored.refused, restored.halted) == ({}, {})
    assert records_in(log) == records_in(scene.log)
    assert scene.reader("reader", log).halt(ORG) is None


def test_a_fork_that_was_set_aside_halts_again_where_its_offset_is_another_and_nothing_is_refused(scene: Scene) -> None:
    _fork_and_resume(scene)
    log = copy_of(
        [records_in(scene.log)[0]._replace(partition=partition_of(ORG), headers=()), records_in(scene.log)[0]]
    )
    restored = scene.restore(log)
    assert (restored.refused, set(restored.halted)) == ({}, {ORG})
    reader = scene.reader("reader", log)
    assert (reader.head(ORG).hash, (reader.halt(ORG) or Halt("", "")).why) == (scene.ledger.parent, "fork")


def test_a_log_without_its_first_offsets_is_not_appended_to(scene: Scene) -> None:
    scene.log.expire(story.at_of(scene.ledger), 3)
    with pytest.raises(CannotRestore, match="begins at offset 3"):
        scene.restore(scene.log)


def test_a_topic_that_holds_nothing_of_ours_is_not_appended_to(scene: Scene) -> None:
    log = copy_of(one._replace(headers=()) for one in records_in(scene.log))
    before = records_in(log)
    with pytest.raises(CannotRestore, match="is this the right Kafka"):
        scene.restore(log)
    with pytest.raises(CannotRestore, match="the right file of keys"):
        scene.restore(scene.log, keys=seal.new_keys())
    assert records_in(log) == before


@pytest.mark.parametrize("is_empty", [True, False])
def test_an_empty_topic_is_filled_only_where_the_source_vouches_for_the_ledger_keys(
    scene: Scene, is_empty: bool
) -> None:
    if is_empty:
        scene.session.execute("TRUNCATE read.ledger_records")
    log = MemoryLog()
    with pytest.raises(CannotRestore, match="the archive has no record that is sealed"):
        scene.restore(log, keys=seal.new_keys())
    assert records_in(log) == []


def test_who_appends_meanwhile_is_noticed(scene: Scene) -> None:
    class Busy(MemoryLog):
        def append_all(self, messages, timeout_s):
            super().append_all([messages[0]], timeout_s)
            return super().append_all(messages, timeout_s)

    with pytest.raises(LogUnavailable, match="somebody else appends"):
        scene.restore(Busy())


def test_tables_that_do_not_fit_are_emptied_and_made_again_as_they_were(scene: Scene) -> None:
    before = story.everything(scene.database)
    tables = ReadTables(scene.session)
    assert tables.made_again(dict.fromkeys(tables.topic_ids, "topic-id")) == []
    assert tables.made_again({LIFECYCLE: "another"}) == [LIFECYCLE]
    scene.restore(log := MemoryLog())
    assert tables.keep_projectors_away()
    tables.empty([LIFECYCLE], "read_before_1")
    assert scene.session.execute("SELECT count(*) FROM read_before_1.ledger_records").fetchone() == (19,)
    assert scene.restore(log).present == 19
    for at in story.PARTITIONS:
        if at.topic != LIFECYCLE:
            for one in scene.log.reader({at: 0}).poll(0):
                log.append(Message(one.topic, one.partition, one.key or b"", one.value or b"", one.headers), 1)
    story.projected(scene.database, log).close()
    assert story.everything(scene.database) == before


def _projected_anew(scene: Scene, log: MemoryLog) -> dict[str, str | None]:
    """What a projector says of each organisation that finds this log and emptied tables."""
    ReadTables(scene.session).empty([topic.name for topic in TOPICS], "read_before_1")
    scene.project(log)
    return _halts(scene)


def _halts(scene: Scene) -> dict[str, str | None]:
    return dict(scene.session.execute("SELECT org_id, halt_why FROM read.heads").fetchall())


def _archive_ends_at(scene: Scene, revision: int) -> None:
    """PostgreSQL was restored from an old backup: it ends at this revision of ORG."""
    scene.session.execute("DELETE FROM read.ledger_records WHERE org_id = %s AND revision > %s", [ORG, revision])
    scene.session.execute(
        "UPDATE read.heads SET revision = %s, hash = %s WHERE org_id = %s",
        [revision, scene.ledger_parent(revision), ORG],
    )


def _fork_and_resume(scene: Scene) -> None:
    offset = scene.ledger.append(scene.ledger.value(events.OrgKeysEnabled(), parent="ab" * 32))
    scene.ledger.write(events.LedgerResumed((offset,), "looked at"), events.KeyRenamed(key_id(1), "after"))
    scene.project()
