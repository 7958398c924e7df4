"""The projector's tables equal what the oracle works out from the same log, whatever went wrong in it."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas import events
from schemas.topics import LIFECYCLE, TOPICS, USAGE, partition_of
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import Log, Message
from services.ledger.memory_log import MemoryLog
from services.ledger.preflight import prepare
from services.ledger.seal import Headers, new_keys
from tests import oracle
from tests.integration import projector_story as story
from tests.integration.projector_story import KEYS, Ledger, created, key_id, use, use_elsewhere, used
from tests.rows import actual, difference

STEPS = 300
UNSEALED: Headers = ()


class Mischief:
    """Writes ledgers in which everything that can go wrong does, in an order that depends on the seed alone."""

    def __init__(self, log: Log, seed: int, orgs: list[str]) -> None:
        self._log, self._random = log, random.Random(seed)
        self._ledgers = [Ledger(log, org) for org in orgs]
        self._keys = {org: [0] for org in orgs}
        self._held: list[tuple[Ledger, bytes]] = []
        self._forks: list[tuple[Ledger, int]] = []
        self._sequence = 0
        for ledger in self._ledgers:
            ledger.write(events.OrgRegistered(name=ledger.org), events.UserAdded("u", "person", "admin"))

    def run(self, steps: int) -> None:
        """Do something `steps` times, then mend what can be mended."""
        rare = [self._fork, self._mend, self._strange]
        often: list[Callable[[Ledger], None]] = [
            self._copy,
            self._race,
            self._hold,
            self._foreign,
            self._use,
            self._use,
        ]
        for _ in range(steps):
            self._random.choice([*[self._extend] * 8, *often, *rare])(self._random.choice(self._ledgers))
        for ledger in self._ledgers:
            self._mend(ledger)

    def _event(self, ledger: Ledger) -> events.LedgerEvent:
        keys = self._keys[ledger.org]
        number = 1000 * (self._ledgers.index(ledger) + 1) + len(keys)
        match self._random.choice(["create", "create", "rename", "revoke", "role", "switch"]):
            case "create":
                keys.append(number)
                return created(number, owner="u", scopes=("a",) if number % 2 else None)
            case "rename" if len(keys) > 1:
                return events.KeyRenamed(key_id(keys[-1]), f"name {number} ü")
            case "revoke" if len(keys) > 1:
                return events.KeyRevoked(key_id(keys.pop()), "user_request")
            case "role":
                return events.UserRoleChanged("u", self._random.choice(["member", "admin", "auditor"]))
            case _:
                return events.OrgKeysEnabled() if self._random.random() < 0.5 else events.OrgKeysDisabled()

    def _extend(self, ledger: Ledger) -> None:
        ledger.write(self._event(ledger))

    def _copy(self, ledger: Ledger) -> None:
        ledger.append(self._random.choice(ledger.values))

    def _race(self, ledger: Ledger) -> None:
        head = json.loads(ledger.values[-1])
        ledger.append(ledger.value(events.OrgKeysEnabled(), revision=head["revision"], parent=head["parent"]))

    def _hold(self, ledger: Ledger) -> None:
        """An event is lost for now: what follows is a gap."""
        self._held.append((ledger, ledger.take(ledger.value(events.OrgKeysEnabled()))))

    def _fork(self, ledger: Ledger) -> None:
        self._forks.append((ledger, ledger.append(ledger.value(events.OrgKeysEnabled(), parent="ab" * 32))))

    def _mend(self, ledger: Ledger) -> None:
        for held in [one for one in self._held if one[0] is ledger]:
            ledger.append(held[1])
            self._held.remove(held)
        offsets = tuple(offset for forked, offset in self._forks if forked is ledger)
        ledger.write(events.LedgerResumed(offsets, "looked at"))

    def _foreign(self, ledger: Ledger) -> None:
        value = ledger.value(events.OrgKeysEnabled())
        ledger.append(value, headers=UNSEALED)
        ledger.append(value, partition=(partition_of(ledger.org) + 1) % 12)
        ledger.append(self._random.choice([b"", b"{", b'{"org":"org_a"}', b"\xff", b"[" * 5000]))

    def _strange(self, ledger: Ledger) -> None:
        """What closes an organisation for good, in one of three only: it would hide the rest."""
        if ledger is self._ledgers[0] and ledger.revision > STEPS // 5:
            value = ledger.value(events.KeyRevoked(key_id(77), "other"))
            ledger.append(ledger.take(value.replace(b"KeyRevoked", self._random.choice([b"KeyRevoked", b"KeyGone"]))))

    def _use(self, ledger: Ledger) -> None:
        number = self._random.choice([self._sequence + 1, self._sequence + 3, max(1, self._sequence - 2)])
        self._sequence = max(number, self._sequence)
        outcome, minute = self._random.choice(["VALID", "VALID", "EXPIRED"]), self._random.randrange(60)
        ip = self._random.choice(["192.0.2.7", "2001:db8::1", "other", None])
        at = f"{story.DAY}{10 + number % 3}:{minute:02d}:00."
        event = used(1000 + number % 5, outcome, org_id=ledger.org, ip=ip, first_at=at + "000Z", last_at=at + "500Z")
        use(self._log, event, number)
        use_elsewhere(self._log, event, f"id-{number % 40}")
        use_elsewhere(self._log, event, "numbered", source="numbering", sequence=number)
        self._log.append(Message(USAGE, 0, b"k", self._random.choice([b"", b"null", b"{}", b'{"data":1}'])), 5)


@pytest.mark.parametrize(("seed", "at_once"), [(0, 1), (1, 37), (2, 400), (3, 100_000)])
def test_every_row_is_the_one_that_the_log_says(seed: int, at_once: int, database: str) -> None:
    log = MemoryLog()
    Mischief(log, seed, ["org_a", "org_b", "org_c"]).run(STEPS)
    projector = story.new_projector(database)
    records = story.new_records(log, projector)
    story.apply_all(log, projector, at_once)
    projector.close()
    wanted = oracle.fold(records, KEYS.keys)
    assert difference(wanted, actual(database)) == []
    assert {row[1] for row in wanted["ledger_records"]} == {"applied", "void", "halting"}
    assert len(wanted) == 11, "a table without a row proves nothing"


def test_a_fault_planted_in_the_database_is_found(database: str) -> None:
    log = MemoryLog()
    story.tell_story(log)
    projector = story.new_projector(database)
    records = story.new_records(log, projector)
    story.apply_all(log, projector)
    projector.close()
    wanted = oracle.fold(records, KEYS.keys)
    assert difference(wanted, actual(database)) == []
    with story.open_session(database) as session:
        session.execute("UPDATE ledger_records SET value = value || ' ' WHERE revision = 1 AND org_id = 'org_a'")
        session.execute("UPDATE key_usage SET uses = uses + 1")
    found = difference(wanted, actual(database))
    assert {sentence.split(":")[0] for sentence in found} == {"ledger_records", "key_usage"}


def test_the_oracle_reads_a_real_log_and_knows_only_its_own_seal(kafka_bootstrap: str, tmp_path: Path) -> None:
    prepare(kafka_bootstrap, TOPICS)
    orgs = [f"org_oracle_{random.randbytes(6).hex()}_{number}" for number in range(3)]
    keys_file = tmp_path / "ledger-keys"
    keys_file.write_text(json.dumps({"current": KEYS.current, "keys": {k: v.hex() for k, v in KEYS.keys.items()}}))
    log = KafkaLog(kafka_bootstrap, "test-oracle")
    try:
        Mischief(log, 1, orgs).run(30)
        ledger = Ledger(log, orgs[0] + "_extra")
        ledger.write(events.OrgRegistered())
        stranger = Ledger(log, orgs[0] + "_stranger")
        value = stranger.value(events.OrgRegistered())
        stranger.append(value, headers=new_keys().seal(value))
    finally:
        log.close()
    found = oracle.expected(kafka_bootstrap, keys_file)
    # Other tests write to the same log.
    known = {row[0] for row in found["heads"]}
    assert known >= {*orgs, ledger.org}
    assert stranger.org not in known
    assert (ledger.org, 1, ledger.parent) in {row[:3] for row in found["heads"]}
    assert len(found["ledger_records"]) > 3 * 2
    assert LIFECYCLE in {topic.name for topic in TOPICS}
