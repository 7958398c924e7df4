"""Records written straight onto `key-lifecycle`: what does not belong changes nothing, and what proves harm closes one organisation."""

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import schemas
from schemas.events import KeyRenamed
from tests.end_to_end.system import System, running
from tests.fault.forger import FOREIGN, VOID, Forger, event_value, of_version_2
from tests.fault.organisation import FULL, Org
from tests.fault.readers import Ledgers, all_agree, settled_outcomes
from tests.fault.running import restart
from tests.waiting import eventually

EACH = 40 if FULL else 4
READERS = ("command_api", "command_api_2", "auth_checker", "projector")
NEW_VERSION = '    "keyledger:KeyRenamed:2": (events.KeyRenamed, KeyRenamed),\n'
SEED = random.SystemRandom().randrange(10**6)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system of this module's own: its log holds what other stories should not meet."""
    with running(tmp_path_factory.mktemp("injections"), command_apis=2) as made:
        yield made


@pytest.fixture
def forger(system: System) -> Iterator[Forger]:
    made = Forger(system, random.Random(SEED))
    yield made
    made.close()


@pytest.fixture(scope="module")
def bystander(system: System) -> Org:
    """An organisation that nobody does anything to."""
    return Org(system, "bystander")


def test_what_does_not_belong_is_counted_and_changes_nothing(system: System, forger: Forger) -> None:
    """Garbage, forgeries and copies among commands: `foreign` and `void` rise in every reader by what was injected."""
    org, chance = Org(system, "injected"), random.Random(SEED)
    key, other = org.create("admin", "untouched"), org.create("admin", "renamed all the time")
    system.validates_as(key["key"], "VALID")
    before, revision = settled_outcomes(system), Ledgers(system).heads[org.id][0]
    commands = 0
    for _ in range(EACH):
        for kind in chance.sample([*FOREIGN, *VOID], len(FOREIGN) + len(VOID)):
            forger.inject(kind, org.id, key["key_id"])
            if chance.random() < 0.25:
                path, name = f"{org.path}/keys/{other['key_id']}", f"meanwhile {commands}"
                org.made("admin", "PATCH", path, {"name": name}, at=commands % 2)
                commands += 1
    expected = Counter(foreign=EACH * len(FOREIGN), void=EACH * len(VOID), applied=commands)
    risen = {name: now - before[name] for name, now in settled_outcomes(system).items()}
    assert risen == dict.fromkeys(READERS, expected)
    assert Ledgers(system).heads[org.id][0] == revision + commands
    assert org.answered == {event["revision"] for event in Ledgers(system).events(org.id)}
    system.validates_as(key["key"], "VALID")
    assert org.read(f"/keys/{key['key_id']}").json["name"] == "untouched"
    print(f"\ninjections: seed {SEED}, {EACH} of each of {[*FOREIGN, *VOID]}, {commands} commands: {dict(expected)}")


def test_a_gap_closes_its_organisation_until_the_missing_event_is_appended(
    system: System, forger: Forger, bystander: Org
) -> None:
    org = Org(system, "gapped")
    key = org.create("admin", "before the gap")
    system.validates_as(key["key"], "VALID")
    missing, later = forger.extend(
        org.id, KeyRenamed(key["key_id"], "the missing one"), KeyRenamed(key["key_id"], "the later one")
    )
    forger.put_sealed(org.id, later)
    _is_closed(org, key["key"], "gap")
    _goes_on(bystander)
    forger.put_sealed(org.id, missing)
    _is_open(org, key["key"])
    assert org.read(f"/keys/{key['key_id']}").json["name"] == "the later one"
    all_agree(system)


def test_a_fork_closes_its_organisation_until_an_operator_sets_the_records_aside(
    system: System, forger: Forger, bystander: Org
) -> None:
    org = Org(system, "forked")
    key = org.create("admin", "before the fork")
    system.validates_as(key["key"], "VALID")
    revision, _ = Ledgers(system).heads[org.id]
    forged = [
        event_value(org.id, at, "ab" * 32, KeyRenamed(key["key_id"], "forged")) for at in (revision, revision + 1)
    ]
    offsets = [forger.put_sealed(org.id, value) for value in forged]
    _is_closed(org, key["key"], "fork")
    _goes_on(bystander)
    assert eventually(lambda: org.read().json["halted"]["offsets"] == offsets, 10, "the reads to name both records")
    resume = f"{org.path}/resume"
    refused = org.call("admin", "POST", resume, {"offsets": offsets, "reason": "an admin's wish"})
    assert (refused.status, refused.json["code"]) == (403, "forbidden")
    still = org.made("operator", "POST", resume, {"offsets": offsets[:1], "reason": "only one was looked at"})
    assert still["halted"] is True
    _is_closed(org, key["key"], "fork")
    ended = org.made("operator", "POST", resume, {"offsets": offsets, "reason": "both came from a stolen key"}, at=1)
    assert ended["halted"] is False
    _is_open(org, key["key"])
    assert org.read(f"/keys/{key['key_id']}").json["name"] == "before the fork"
    events = Ledgers(system).events(org.id)
    assert [event["data"]["offsets"] for event in events if event["type"] == "LedgerResumed"] == [offsets[:1], offsets]
    all_agree(system)


def test_an_unknown_event_closes_its_organisation_until_newer_software_starts(
    system: System, forger: Forger, bystander: Org, tmp_path: Path
) -> None:
    """Newer software is a copy of this tree with one line more: version 2 of KeyRenamed."""
    org = Org(system, "ahead")
    key = org.create("admin", "as version 1 says")
    system.validates_as(key["key"], "VALID")
    event = forger.extend(org.id, KeyRenamed(key["key_id"], "as version 2 says"))[0]
    forger.put_sealed(org.id, of_version_2(event))
    _is_closed(org, key["key"], "upgrade_me")
    _goes_on(bystander)
    restart(system, *READERS)
    _is_closed(org, key["key"], "upgrade_me")
    restart(system, *READERS, PYTHONPATH=str(_newer_software(tmp_path)), PYTHONSAFEPATH="1")
    _is_open(org, key["key"])
    assert org.read(f"/keys/{key['key_id']}").json["name"] == "as version 2 says"
    _goes_on(bystander)
    all_agree(system)


def _newer_software(folder: Path) -> Path:
    root = Path(schemas.__file__).parents[1]
    for package in ("schemas", "services"):
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    wire = folder / "schemas" / "wire.py"
    before = '    "keyledger:KeyRenamed:1":'
    text = wire.read_text()
    assert before in text
    wire.write_text(text.replace(before, NEW_VERSION + before))
    return folder


def _is_closed(org: Org, key: str, why: str) -> None:
    """Every reader has closed it: both command APIs, the checker and the reads."""
    system = org.system
    for at in (0, 1):
        eventually(partial(_is_refused, org, at), 15, f"command API {at} to refuse")
    system.validates_as(key, "STALE")
    halted = eventually(lambda: org.read().json["halted"], 15, "the reads to say so")
    assert halted["why"] == why, halted
    assert system.validate(key)["valid"] is False
    print(f"\n{org.id} is closed: {halted}")


def _is_refused(org: Org, at: int) -> bool:
    # Keys are on already: while this command API has not read of the harm yet, nothing is appended.
    answer = org.call("admin", "PUT", f"{org.path}/keys-enabled", {"enabled": True}, at)
    assert answer.status == 503, answer
    assert answer.headers["Retry-After"]
    return bool(answer.json["code"] == "org_halted")


def _is_open(org: Org, key: str) -> None:
    """Every reader serves it again."""
    system = org.system
    for at in (0, 1):
        eventually(partial(_accepts, org, at), 15, f"command API {at} to work")
    system.validates_as(key, "VALID")
    eventually(lambda: org.read().json["halted"] is None, 15, "the reads to say so")


def _accepts(org: Org, at: int) -> bool:
    name = f"open again {len(org.answered)}"
    return org.call("admin", "POST", f"{org.path}/keys", {"name": name}, at).status == 201


def _goes_on(org: Org) -> None:
    """Commands, validations and reads of an organisation work."""
    for at in (0, 1):
        key = org.create("admin", f"goes on {len(org.answered)}", at=at)
        org.system.validates_as(key["key"], "VALID")
        answer = org.read(f"/keys/{key['key_id']}?min_revision={key['revision']}")
        assert answer.status == 200, answer
    assert org.read().json["halted"] is None
