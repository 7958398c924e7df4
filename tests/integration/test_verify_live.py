"""`verify --live`: each way in which Kafka, the archive and the checkpoints may differ, from a real PostgreSQL."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from schemas import events
from schemas.topics import LIFECYCLE, partition_of
from services.auditor.checkpoints import Session
from services.auditor.live import LiveReport, compare
from services.auditor.notary import Notary
from services.auditor.signing_key import SigningKey, open_signing_key
from services.auditor.verify_bundle import Unverified
from services.ledger.lmdb_chain import CHAIN_TABLES
from services.ledger.log import Message
from services.ledger.memory_log import MemoryLog
from services.ledger.store import Store
from tests.integration import projector_story as story
from tests.integration.projector_story import ORG, OTHER, Ledger, created, key_id


@dataclass
class Site:
    """The story in a log, projected and signed."""

    log: MemoryLog
    ledger: Ledger
    other: Ledger
    database: str
    session: Session
    key: SigningKey
    folder: Path

    def project(self) -> None:
        story.projected(self.database, self.log).close()

    def sign(self) -> None:
        store = Store(self.folder / "notary", CHAIN_TABLES)
        Notary(
            self.log, store, story.KEYS, self.session, self.key, self.folder / "kept", lambda: 1_795_500_000_000
        ).sign()
        store.close()

    def compare(self, log: MemoryLog | None = None, name: str = "verify") -> LiveReport:
        store = Store(self.folder / name, CHAIN_TABLES)
        found = compare(log or self.log, self.session, store, story.KEYS, self.key.public_keys())
        store.close()
        return found

    def edit(self, statement: str, *values: object) -> None:
        assert self.session.execute(statement.encode(), values).rowcount == 1


@pytest.fixture
def site(database: str, tmp_path: Path) -> Iterator[Site]:
    log = MemoryLog()
    with psycopg.connect(database, autocommit=True) as session:
        found = Site(log, *story.tell_story(log), database, session, open_signing_key(tmp_path / "key"), tmp_path)
        found.project()
        found.sign()
        yield found


def test_three_who_say_the_same_are_verified(site: Site) -> None:
    report = site.compare()
    assert (report.faults, report.checkpoints) == ([], 1)
    assert report.counts == {"applied": 15, "agreeing": 2}
    assert report.lines()[-1] == "VERIFIED"


def test_what_is_not_projected_yet_is_lag_and_no_fault(site: Site) -> None:
    site.ledger.write(created(7), created(8))
    report = site.compare()
    assert (report.faults, report.counts["behind"]) == ([], 2)


def test_void_and_foreign_records_are_counted_and_are_no_fault(site: Site) -> None:
    lost = site.ledger.value(events.OrgKeysDisabled())
    site.ledger.write(events.OrgKeysEnabled())
    site.ledger.append(lost)
    site.log.append(Message(LIFECYCLE, partition_of(ORG), ORG.encode(), b"not ours"), 1)
    site.project()
    report = site.compare()
    assert (report.faults, report.counts["void"], report.counts["foreign"]) == ([], 1, 1)


def test_a_row_that_was_edited_is_named(site: Site) -> None:
    site.edit(
        "UPDATE read.ledger_records SET value = replace(convert_from(value, 'UTF8'), 'Example', 'Exbmple')::bytea"
        " WHERE org_id = %s AND revision = 1",
        ORG,
    )
    [fault] = site.compare().faults
    assert fault.startswith("changed: ")
    assert f"{ORG} revision 1" in fault


@pytest.mark.parametrize(
    ("column", "value"), [("outcome", "void"), ("hash", "0" * 64), ("revision", 99), ("org_id", OTHER)]
)
def test_a_column_that_was_edited_is_named(site: Site, column: str, value: object) -> None:
    site.edit(f"UPDATE read.ledger_records SET {column} = %s WHERE org_id = %s AND revision = 4", value, ORG)
    [fault] = site.compare().faults
    assert fault.startswith("changed: ")
    assert "revision 4" in fault


def test_a_row_that_was_removed_is_a_gap_in_the_archive(site: Site) -> None:
    site.edit("DELETE FROM read.ledger_records WHERE org_id = %s AND revision = 5", ORG)
    [fault] = site.compare().faults
    assert fault.startswith("gap in the archive: ")
    assert ORG in fault


def test_a_row_that_no_log_holds_is_a_gap_in_the_log(site: Site) -> None:
    site.edit(
        'INSERT INTO read.ledger_records SELECT partition, "offset" + 100, org_id, revision + 100, outcome, hash, parent,'
        " time, key_id, value, headers FROM read.ledger_records WHERE org_id = %s AND revision = 12",
        ORG,
    )
    [fault] = site.compare().faults
    assert fault.startswith("gap in the log: ")
    assert f"{ORG} revision 112" in fault


def test_a_log_made_again_shorter_is_told_twice(site: Site) -> None:
    shorter = MemoryLog()
    for value in site.ledger.values[:-1]:
        shorter.append(Message(LIFECYCLE, partition_of(ORG), ORG.encode(), value, story.KEYS.seal(value)), 1)
    for value in site.other.values:
        shorter.append(Message(LIFECYCLE, partition_of(OTHER), OTHER.encode(), value, story.KEYS.seal(value)), 1)
    faults = site.compare(shorter).faults
    assert [fault.split(":")[0] for fault in faults] == ["gap in the log", "truncated"]
    assert "ends at revision 11; 12 was signed" in faults[1]


def test_another_history_contradicts_the_checkpoint(site: Site) -> None:
    another = MemoryLog()
    ledger = Ledger(another, OTHER)
    ledger.write(events.OrgRegistered(), events.UserAdded("user_new", "person", "admin"), events.OrgKeysEnabled())
    for value in site.ledger.values:
        another.append(Message(LIFECYCLE, partition_of(ORG), ORG.encode(), value, story.KEYS.seal(value)), 1)
    faults = site.compare(another).faults
    assert any(fault.startswith(f"contradiction: {OTHER} revision 3 ") for fault in faults)


def test_a_fork_halts_and_is_told_until_an_operator_sets_it_aside(site: Site) -> None:
    fork = Ledger(MemoryLog(), ORG, site.ledger.revision, "1" * 64)
    offset = site.ledger.append(fork.value(events.OrgKeysDisabled()))
    site.project()
    [fault] = site.compare().faults
    assert fault.startswith(f"halted: {ORG}: fork: ")
    site.ledger.write(events.LedgerResumed((offset,), "looked at"))
    site.project()
    assert site.compare(name="again").faults == []


def test_a_gap_that_was_filled_later_is_no_fault(site: Site) -> None:
    first = site.ledger.take(site.ledger.value(created(7)))
    second = site.ledger.take(site.ledger.value(events.KeyRenamed(key_id(7), "later")))
    site.ledger.append(second)
    site.ledger.append(first)
    site.project()
    site.sign()
    report = site.compare()
    assert (report.faults, report.counts["agreeing"]) == ([], 3)


def test_a_checkpoint_of_another_key_is_refused(site: Site) -> None:
    stranger = open_signing_key(site.folder / "stranger")
    store = Store(site.folder / "verify", CHAIN_TABLES)
    with pytest.raises(Unverified):
        compare(site.log, site.session, store, story.KEYS, stranger.public_keys())
    store.close()
