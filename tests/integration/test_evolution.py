"""A second version of an event: old software closes that organisation alone, newer software reads both, no byte changes."""

import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import psycopg
import pytest

from schemas import events, fields, wire
from schemas.codec import canonical
from schemas.events import Envelope
from services.auditor.export import export
from services.auditor.notary import Notary
from services.auditor.signing_key import open_signing_key
from services.auditor.verify_bundle import read_keys, verify
from services.ledger.lmdb_chain import CHAIN_TABLES
from services.ledger.memory_log import MemoryLog
from services.ledger.store import Store
from services.projector import archive
from services.projector.as_of import keys_as_of
from tests.integration import projector_story as story
from tests.integration.projector_story import DAY, ORG, key_id, rows

HALTS = "SELECT org_id, halt_why FROM heads WHERE halt_why IS NOT NULL"
REVOKED = "SELECT key_id FROM keys WHERE revoked_at IS NOT NULL ORDER BY 1"


@dataclass(frozen=True, slots=True)
class KeyRevokedNewly(events.KeyRevoked):
    """The event as newer software has it in memory: one field more, which every new one must have."""

    urgency: int = 0


class KeyRevokedSecond(wire.KeyRevoked):
    """Data of `keyledger:KeyRevoked:2`."""

    urgency = fields.whole(1, 9, required=True)


def upcast(**first: str) -> KeyRevokedNewly:
    """Version 1 to version 2: nobody said then how urgent it was."""
    return KeyRevokedNewly(**first, urgency=5)  # type: ignore[arg-type]  # Checked by the schema.


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Envelope]:
    """The decoder of software that knows both versions."""
    versions = wire.LEDGER_SCHEMAS | {
        "keyledger:KeyRevoked:1": (upcast, wire.KeyRevoked),
        "keyledger:KeyRevoked:2": (KeyRevokedNewly, KeyRevokedSecond),
    }
    with monkeypatch.context() as patched:
        patched.setattr(wire, "LEDGER_SCHEMAS", versions)
        return _loaded_again("schemas.decoder").decode


def _loaded_again(name: str) -> ModuleType:
    """A second copy of a module, beside the one that everybody else has."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _second_version(ledger: story.Ledger, number: int) -> bytes:
    document = json.loads(ledger.value(events.KeyRevoked(key_id(number), "user_request")))
    document["data"]["urgency"] = 9
    return canonical(document | {"dataschema": "keyledger:KeyRevoked:2"})


def test_two_versions_of_one_event_end_to_end(
    database: str, tmp_path: Path, newer: Callable[[bytes], Envelope], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    ledger, other = story.tell_story(log)  # Key 3 is revoked in it, by an event of version 1.
    ledger.append(ledger.take(_second_version(ledger, 1)))
    other.write(events.OrgKeysDisabled())
    story.projected(database, log).close()
    assert rows(database, HALTS) == [{"org_id": ORG, "halt_why": "upgrade_me"}]
    assert rows(database, REVOKED) == [{"key_id": key_id(3)}]
    assert rows(database, "SELECT keys_enabled FROM orgs WHERE org_id = 'org_b'") == [{"keys_enabled": False}]

    for user in ("services.ledger.fold.decode", "services.projector.archive.decode"):
        monkeypatch.setattr(user, newer)
    story.projected(database, log).close()
    assert rows(database, HALTS) == []
    assert rows(database, REVOKED) == [{"key_id": key_id(1)}, {"key_id": key_id(3)}]

    with psycopg.connect(database, autocommit=True) as session:
        archived = list(archive.ledger(session, ORG))
        assert [one.value for one in archived] == ledger.values, "stored bytes never change"
        assert [one.hash for one in archived][-1] == hashlib.sha256(ledger.values[-1]).hexdigest() == ledger.parent
        revocations = [one.envelope.event for one in archived if isinstance(one.envelope.event, events.KeyRevoked)]
        assert revocations == [
            KeyRevokedNewly(key_id(3), "user_request", urgency=5),
            KeyRevokedNewly(key_id(1), "user_request", urgency=9),
        ]
        then = keys_as_of((one.envelope for one in archived), f"{DAY}23:00:00.000Z")
        assert {key.key_id for key in then if key.code == "REVOKED"} == {key_id(1), key_id(3)}
        _verifies(log, session, tmp_path)


def _verifies(log: MemoryLog, session: psycopg.Connection[tuple[object, ...]], folder: Path) -> None:
    """A bundle with both versions proves itself."""
    key, store = open_signing_key(folder / "key"), Store(folder / "notary", CHAIN_TABLES)
    Notary(log, store, story.KEYS, session, key, folder / "kept", lambda: 1_795_500_000_000).sign()
    store.close()
    export(session, folder / "bundle", [ORG], key.public_keys())
    report = verify(folder / "bundle", read_keys(key.public_keys()), [])
    assert (report.faults, report.records) == ([], {ORG: 13})


def test_the_first_version_alone_is_read_by_both_softwares(newer: Callable[[bytes], Envelope]) -> None:
    golden = (Path(__file__).parents[1] / "unit/golden/KeyRevoked-1-1.json").read_bytes()
    event = newer(golden).event
    assert isinstance(event, KeyRevokedNewly)
    assert event.urgency == 5
