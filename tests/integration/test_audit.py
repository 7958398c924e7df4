"""The notary and the exports, from the log and from a real PostgreSQL, and each way in which these may lie."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from schemas import events
from schemas.topics import CHECKPOINTS
from services.auditor import checkpoints
from services.auditor.checkpoints import Session, Signed
from services.auditor.export import CannotExport, export
from services.auditor.notary import Contradiction, Notary
from services.auditor.signing_key import BadKeyFile, SigningKey, open_signing_key
from services.auditor.verify_bundle import Head, Unverified, read_keys, read_shipped, verify
from services.ledger.lmdb_chain import CHAIN_TABLES
from services.ledger.memory_log import MemoryLog
from services.ledger.records import TopicPartition
from services.ledger.store import Store
from tests.bundles import signing_key
from tests.integration import projector_story as story
from tests.integration.projector_story import DAY, ORG, OTHER, key_id

NOW_MS = 1_795_500_000_000


@dataclass
class Scene:
    """The story in a log, a projector's database, and a notary with a folder of its own."""

    log: MemoryLog
    ledger: story.Ledger
    other: story.Ledger
    database: str
    session: Session
    store: Store
    key: SigningKey
    folder: Path

    def sign(self, log: MemoryLog | None = None, clock_ms: int = NOW_MS) -> Signed:
        parts = (log or self.log, self.store, story.KEYS, self.session, self.key, self.folder / "checkpoints")
        signed, file = Notary(*parts, lambda: clock_ms).sign()
        assert file.read_bytes() == signed.whole
        return signed

    def project(self) -> None:
        story.projected(self.database, self.log).close()

    def export(self, name: str = "bundle", *orgs: str, wait_s: float = 10.0) -> Path:
        export(self.session, self.folder / name, orgs, self.key.public_keys(), wait_s=wait_s)
        return self.folder / name

    def forget_what_was_read(self) -> None:
        with self.store.write() as txn:
            txn.clear()

    def faults(self, bundle: Path) -> list[str]:
        return [str(fault) for fault in verify(bundle, read_keys(self.key.public_keys()), []).faults]

    def newest(self) -> Signed | None:
        return checkpoints.newest(self.session, self.key.public_keys())


@pytest.fixture
def scene(database: str, tmp_path: Path) -> Iterator[Scene]:
    log, store = MemoryLog(), Store(tmp_path / "ledger", CHAIN_TABLES)
    with psycopg.connect(database, autocommit=True) as session:
        key = open_signing_key(tmp_path / "signing-key")
        yield Scene(log, *story.tell_story(log), database, session, store, key, tmp_path)
    store.close()


def test_a_bundle_holds_every_signed_record_byte_for_byte_and_verifies(scene: Scene) -> None:
    scene.project()
    signed, ledger, other = scene.sign(), scene.ledger, scene.other
    bundle = scene.export()
    assert signed.heads == {ORG: Head(ledger.revision, ledger.parent), OTHER: Head(other.revision, other.parent)}
    records = {path.stem: path.read_bytes().splitlines() for path in (bundle / "records").iterdir()}
    assert records == {ORG: ledger.values, OTHER: other.values}
    report = verify(bundle, read_keys(scene.key.public_keys()), [], want_all=True)
    assert (report.faults, report.records) == ([], {ORG: 12, OTHER: 3})


def test_records_after_the_checkpoint_wait_for_the_next_one(scene: Scene) -> None:
    first = scene.sign()
    assert scene.sign() == first
    scene.ledger.write(events.OrgKeysDisabled())
    scene.project()
    before = scene.export("before", ORG)
    second = scene.sign()
    after = scene.export("after", ORG)
    found = [verify(bundle, read_keys(scene.key.public_keys()), []) for bundle in (before, after)]
    assert [(report.faults, report.records) for report in found] == [([], {ORG: 12}), ([], {ORG: 13})]
    assert first.time < second.time
    records = scene.log.reader({TopicPartition(CHECKPOINTS, 0): 0}).poll(0)
    assert [record.value for record in records] == [first.note, second.note]


def test_a_clock_that_went_back_does_not_make_an_old_checkpoint_the_newest(scene: Scene) -> None:
    first = scene.sign()
    scene.ledger.write(events.OrgKeysDisabled())
    second = scene.sign(clock_ms=NOW_MS - 86_400_000)
    assert first.time < second.time
    assert scene.newest() == second


def test_what_is_shipped_is_read_back(scene: Scene) -> None:
    signed = scene.sign()
    checkpoint, heads = read_shipped(signed.whole, read_keys(scene.key.public_keys()))
    assert heads == signed.heads
    assert checkpoints.verified(signed.whole, scene.key.public_keys()) == signed
    assert (checkpoint.origin, checkpoint.size, checkpoint.fingerprint) == (scene.key.origin, 2, scene.key.fingerprint)


def test_a_void_record_and_one_of_a_stranger_are_not_signed(scene: Scene) -> None:
    ledger = scene.ledger
    lost = ledger.value(events.OrgKeysDisabled())
    ledger.write(events.OrgKeysEnabled())
    ledger.append(lost)
    ledger.append(ledger.value(events.OrgKeysDisabled()), headers=(("kid", b"none"), ("mac", b"none")))
    assert scene.sign().heads[ORG] == Head(13, ledger.parent)


def test_an_archive_row_edited_by_sql_is_named(scene: Scene) -> None:
    scene.project()
    scene.sign()
    scene.session.execute(
        "UPDATE read.ledger_records SET value = convert_to(replace(convert_from(value, 'UTF8'), %s, %s), 'UTF8')"
        " WHERE org_id = %s AND revision = 10",
        [key_id(4), key_id(3), ORG],
    )
    assert scene.faults(scene.export()) == [f"{ORG}: record 10 was changed: it is not the one its neighbours name"]


def test_a_projector_that_is_behind_is_waited_for_and_not_for_ever(scene: Scene) -> None:
    projector = story.projected(scene.database, scene.log)
    scene.ledger.write(events.OrgKeysDisabled())
    scene.sign()
    with pytest.raises(CannotExport, match=f"{ORG}: the archive ends at revision 12, 13 was signed"):
        scene.export(wait_s=0.0)
    catching_up = threading.Thread(target=story.apply_all, args=(scene.log, projector))
    catching_up.start()
    bundle = scene.export(wait_s=60.0)
    catching_up.join()
    projector.close()
    assert scene.faults(bundle) == []


def test_an_archive_that_lacks_a_record_is_not_exported_and_leaves_nothing_behind(scene: Scene) -> None:
    scene.project()
    scene.sign()
    scene.session.execute("DELETE FROM read.ledger_records WHERE org_id = %s AND revision = 12", [ORG])
    before = sorted(scene.folder.iterdir())
    with pytest.raises(CannotExport, match=f"{ORG}: the archive has 11 of the 12 records"):
        scene.export()
    assert sorted(scene.folder.iterdir()) == before


def test_a_bundle_never_takes_the_place_of_something(scene: Scene) -> None:
    scene.project()
    scene.sign()
    (scene.folder / "bundle").mkdir()
    with pytest.raises(FileExistsError, match="bundle exists: name a new folder"):
        scene.export()
    assert list((scene.folder / "bundle").iterdir()) == []


@pytest.mark.parametrize("forgets", [False, True])
def test_a_topic_made_again_shorter_is_not_signed_however_often_it_is_tried(scene: Scene, forgets: bool) -> None:
    first, shorter = scene.sign(), MemoryLog()
    again, _ = story.tell_story(shorter)
    shorter.truncate(story.at_of(again), 11)
    if forgets:
        scene.forget_what_was_read()
    for _ in range(2):
        with pytest.raises(Contradiction, match=f"{ORG}: revision 12, which was signed as .*ends at revision 11"):
            scene.sign(shorter)
    assert scene.newest() == first


@pytest.mark.parametrize("more", [0, 3, 1200])
def test_another_history_of_the_same_organisation_is_not_signed(scene: Scene, more: int) -> None:
    scene.sign()
    other_log = MemoryLog()
    ledger = story.Ledger(other_log, ORG)
    ledger.write(events.OrgRegistered(name="Another"))
    for _ in range(11 + more):
        ledger.append(ledger.take(ledger.value(events.OrgKeysEnabled(), time=f"{DAY}12:00:00.000Z")))
    scene.forget_what_was_read()
    for _ in range(2):
        with pytest.raises(Contradiction, match=f"{ORG}: revision 12, which was signed as"):
            scene.sign(other_log)


@pytest.mark.parametrize("forgetting", ["TRUNCATE auditor.checkpoints", "a file"])
def test_a_notary_whose_rows_or_files_were_removed_still_knows_what_it_signed(scene: Scene, forgetting: str) -> None:
    first, shorter = scene.sign(), MemoryLog()
    again, _ = story.tell_story(shorter)
    shorter.truncate(story.at_of(again), 11)
    if forgetting == "a file":
        [file] = (scene.folder / "checkpoints").iterdir()
        file.unlink()
    else:
        scene.session.execute(forgetting.encode())
    with pytest.raises(Contradiction, match=f"{ORG}: revision 12, which was signed as"):
        scene.sign(shorter)
    scene.forget_what_was_read()
    assert scene.sign() == first
    assert scene.newest() == first


def test_a_row_that_the_notary_did_not_sign_stops_it(scene: Scene) -> None:
    scene.sign()
    scene.session.execute("UPDATE auditor.checkpoints SET lines = replace(lines::text, '12', '11')::bytea")
    with pytest.raises(Unverified):
        scene.sign()
    foreign = checkpoints.sign(signing_key(), {}, "2999-01-01T00:00:00.000Z")
    scene.session.execute("UPDATE auditor.checkpoints SET note = %s, lines = %s", [foreign.note, foreign.lines])
    with pytest.raises(Unverified, match="signed by none of your public keys"):
        scene.sign()


def test_nothing_is_exported_that_nobody_signed_or_asked_for(scene: Scene) -> None:
    scene.project()
    with pytest.raises(CannotExport, match="nothing was signed yet"):
        scene.export()
    scene.sign()
    with pytest.raises(CannotExport, match="knows no organisation org_z"):
        scene.export("bundle", "org_z")
    with pytest.raises(Unverified, match="signed by none of your public keys"):
        export(scene.session, scene.folder / "bundle", [], signing_key().public_keys())
    assert not (scene.folder / "bundle").exists()


def test_the_signing_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "made/signing-key"
    made = [open_signing_key(path) for _ in range(2)]
    assert made[0].public_keys() == made[1].public_keys()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(BadKeyFile, match="can be read by others"):
        open_signing_key(path)
    path.chmod(0o600)
    for text in ("", "{}", '{"origin": "a b", "seeds": []}', '{"origin": "a", "seeds": ["ab"]}'):
        path.write_text(text)
        with pytest.raises(BadKeyFile):
            open_signing_key(path)
