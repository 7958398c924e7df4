"""The notary and the exports, from the log and from a real PostgreSQL, and each way in which these may lie."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from schemas import events
from schemas.topics import CHECKPOINTS
from services.auditor import checkpoints
from services.auditor.checkpoints import Session
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


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return open_signing_key(tmp_path / "notary/signing-key")


@pytest.fixture
def session(database: str) -> Iterator[Session]:
    with psycopg.connect(database, autocommit=True) as session:
        yield session


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "notary/ledger", CHAIN_TABLES)
    yield store
    store.close()


def notary(log: MemoryLog, store: Store, session: Session, key: SigningKey) -> Notary:
    return Notary(log, store, story.KEYS, session, key, lambda: NOW_MS)


def faults(bundle: Path, key: SigningKey) -> list[str]:
    return [str(fault) for fault in verify(bundle, read_keys(key.public_keys()), []).faults]


def test_a_bundle_holds_every_signed_record_byte_for_byte_and_verifies(
    log: MemoryLog, database: str, session: Session, store: Store, key: SigningKey, tmp_path: Path
) -> None:
    ledger, other = story.tell_story(log)
    story.projected(database, log).close()
    signed = notary(log, store, session, key).sign()
    export(session, tmp_path / "bundle", [], key.public_keys())
    assert signed.heads == {
        ORG: Head(ledger.revision, ledger.parent),
        OTHER: Head(other.revision, other.parent),
    }
    records = {path.stem: path.read_bytes().splitlines() for path in (tmp_path / "bundle/records").iterdir()}
    assert records == {ORG: ledger.values, OTHER: other.values}
    report = verify(tmp_path / "bundle", read_keys(key.public_keys()), [], want_all=True)
    assert (report.faults, report.records) == ([], {ORG: 12, OTHER: 3})


def test_records_after_the_checkpoint_wait_for_the_next_one(
    log: MemoryLog, database: str, session: Session, store: Store, key: SigningKey, tmp_path: Path
) -> None:
    ledger, _ = story.tell_story(log)
    first = notary(log, store, session, key).sign()
    assert notary(log, store, session, key).sign() == first
    ledger.write(events.OrgKeysDisabled())
    story.projected(database, log).close()
    export(session, tmp_path / "before", [ORG], key.public_keys())
    second = notary(log, store, session, key).sign()
    export(session, tmp_path / "after", [ORG], key.public_keys())
    found = [verify(tmp_path / name, read_keys(key.public_keys()), []) for name in ("before", "after")]
    assert [(report.faults, report.records) for report in found] == [([], {ORG: 12}), ([], {ORG: 13})]
    assert first.time < second.time
    [topic] = [log.reader({TopicPartition(CHECKPOINTS, 0): 0}).poll(0)]
    assert [record.value for record in topic] == [first.note, second.note]


def test_what_is_shipped_is_read_back(
    log: MemoryLog, database: str, session: Session, store: Store, key: SigningKey
) -> None:
    story.tell_story(log)
    signed = notary(log, store, session, key).sign()
    checkpoint, heads = read_shipped(signed.whole, read_keys(key.public_keys()))
    assert heads == signed.heads == checkpoints.Signed(signed.time, signed.note, signed.lines).heads
    assert (checkpoint.origin, checkpoint.size, checkpoint.fingerprint) == (key.origin, 2, key.fingerprint)


def test_a_void_record_and_one_of_a_stranger_are_not_signed(
    log: MemoryLog, database: str, session: Session, store: Store, key: SigningKey
) -> None:
    ledger, _ = story.tell_story(log)
    lost = ledger.value(events.OrgKeysDisabled())
    ledger.write(events.OrgKeysEnabled())
    ledger.append(lost)
    ledger.append(ledger.value(events.OrgKeysDisabled()), headers=(("kid", b"none"), ("mac", b"none")))
    assert notary(log, store, session, key).sign().heads[ORG] == Head(13, ledger.parent)


def test_an_archive_row_edited_by_sql_is_named(
    log: MemoryLog, database: str, session: Session, store: Store, key: SigningKey, tmp_path: Path
) -> None:
    story.tell_story(log)
    story.projected(database, log).close()
    notary(log, store, session, key).sign()
    session.execute(
        "UPDATE read.ledger_records SET value = convert_to(replace(convert_from(value, 'UTF8'), %s, %s), 'UTF8')"
        " WHERE org_id = %s AND revision = 10",
        [key_id(4), key_id(3), ORG],
    )
    export(session, tmp_path / "bundle", [], key.public_keys())
    assert faults(tmp_path / "bundle", key) == [f"{ORG}: record 10 was changed: it is not the one its neighbours name"]


def test_a_projector_that_is_behind_is_waited_for_and_not_for_ever(
    log: MemoryLog, database: str, session: Session, store: Store, key: SigningKey, tmp_path: Path
) -> None:
    ledger, _ = story.tell_story(log)
    projector = story.projected(database, log)
    ledger.write(events.OrgKeysDisabled())
    notary(log, store, session, key).sign()
    with pytest.raises(CannotExport, match=f"{ORG}: the archive ends at revision 12, 13 was signed"):
        export(session, tmp_path / "bundle", [], key.public_keys(), wait_s=0.0)
    catching_up = threading.Thread(target=story.apply_all, args=(log, projector))
    catching_up.start()
    export(session, tmp_path / "bundle", [], key.public_keys(), wait_s=60.0)
    catching_up.join()
    projector.close()
    assert faults(tmp_path / "bundle", key) == []


def test_an_archive_that_lacks_a_record_is_not_exported(
    log: MemoryLog, database: str, session: Session, store: Store, key: SigningKey, tmp_path: Path
) -> None:
    story.tell_story(log)
    story.projected(database, log).close()
    notary(log, store, session, key).sign()
    session.execute("DELETE FROM read.ledger_records WHERE org_id = %s AND revision = 12", [ORG])
    with pytest.raises(CannotExport, match=f"{ORG}: the archive has 11 of the 12 records"):
        export(session, tmp_path / "bundle", [], key.public_keys())


@pytest.mark.parametrize("forgets", [False, True])
def test_a_topic_made_again_shorter_is_not_signed_however_often_it_is_tried(
    log: MemoryLog, database: str, session: Session, store: Store, key: SigningKey, tmp_path: Path, forgets: bool
) -> None:
    story.tell_story(log)
    first = notary(log, store, session, key).sign()
    shorter = MemoryLog()
    again, _ = story.tell_story(shorter)
    shorter.truncate(story.at_of(again), 11)
    if forgets:
        with store.write() as txn:
            txn.clear()
    for _ in range(2):
        with pytest.raises(Contradiction, match=f"{ORG}: revision 12, which was signed as .*ends at revision 11"):
            notary(shorter, store, session, key).sign()
    assert checkpoints.newest(session) == first


@pytest.mark.parametrize("more", [0, 3, 1200])
def test_another_history_of_the_same_organisation_is_not_signed(
    log: MemoryLog, database: str, session: Session, store: Store, key: SigningKey, more: int
) -> None:
    story.tell_story(log)
    notary(log, store, session, key).sign()
    other_log = MemoryLog()
    ledger = story.Ledger(other_log, ORG)
    ledger.write(events.OrgRegistered(name="Another"))
    for _ in range(11 + more):
        ledger.append(ledger.take(ledger.value(events.OrgKeysEnabled(), time=f"{DAY}12:00:00.000Z")))
    with store.write() as txn:
        txn.clear()
    for _ in range(2):
        with pytest.raises(Contradiction, match=f"{ORG}: revision 12, which was signed as"):
            notary(other_log, store, session, key).sign()


def test_nothing_is_exported_that_nobody_signed_or_asked_for(
    log: MemoryLog, database: str, session: Session, store: Store, key: SigningKey, tmp_path: Path
) -> None:
    story.tell_story(log)
    story.projected(database, log).close()
    with pytest.raises(CannotExport, match="nothing was signed yet"):
        export(session, tmp_path / "bundle", [], key.public_keys())
    notary(log, store, session, key).sign()
    with pytest.raises(CannotExport, match="knows no organisation org_z"):
        export(session, tmp_path / "bundle", ["org_z"], key.public_keys())
    with pytest.raises(Unverified, match="signed by none of your public keys"):
        export(session, tmp_path / "bundle", [], signing_key().public_keys())
    assert not (tmp_path / "bundle").exists()


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
