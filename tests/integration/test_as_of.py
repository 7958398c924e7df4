"""Many lives of keys: the tables are what the oracle folds, a replay is what was written, and the keys as of any moment are
what a naive fold of the events up to then gives.

The small form is part of every run; `make prove-as_of` is 100,000 lives in 50 organisations and 1,000 moments.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from schemas import events
from schemas.times import to_ms, to_text
from services.ledger.memory_log import MemoryLog
from services.ledger.records import Record
from services.projector import archive
from services.projector.as_of import keys_as_of
from tests import oracle
from tests.integration import projector_story as story
from tests.integration.projector_story import KEYS, Ledger, created, key_id
from tests.rows import actual, difference

FULL = os.environ.get("KEYLEDGER_FULL") == "1"
LIVES, ORGS, MOMENTS = (100_000, 50, 1000) if FULL else (600, 4, 80)
USERS = tuple(f"user_{number}" for number in range(6))
BEGIN_MS = to_ms("2026-01-01T00:00:00.000Z")
STEP_MS = 60_000


class Lives:
    """Legal histories of organisations, in an order that depends on the seed alone."""

    def __init__(self, log: MemoryLog, seed: int) -> None:
        self._log, self._random, self._made = log, random.Random(seed), 0
        self.ledgers = [Ledger(log, f"org_{number}") for number in range(ORGS)]
        self.ends_ms: dict[str, int] = {}
        self.records: list[Record] = []

    def live(self) -> None:
        """Write all ledgers."""
        for number, ledger in enumerate(self.ledgers):
            now_ms = BEGIN_MS
            for event in self._events(LIVES * (number + 1) // ORGS - LIVES * number // ORGS):
                now_ms += self._random.choice((0, 1, STEP_MS))
                ledger.append(ledger.take(ledger.value(event, time=to_text(now_ms))))
                self._now_ms = now_ms
            self.ends_ms[ledger.org] = now_ms

    def _events(self, lives: int) -> Iterator[events.LedgerEvent]:
        chance, alive, users = self._random, list[str](), list[str]()
        self._now_ms = BEGIN_MS
        yield events.OrgRegistered()
        for number, user in enumerate(USERS):
            users.append(user)
            yield events.UserAdded(
                user, "service_account" if number == 1 else "person", "member" if number else "admin"
            )
        yield events.OrgKeysEnabled()
        while lives:
            what = chance.random()
            if what < 0.5 or not alive:
                lives -= 1
                self._made += 1
                alive.append(key_id(self._made))
                yield self._created(chance.choice(users))
            elif what < 0.6:
                yield events.KeyRenamed(chance.choice(alive), f"name {chance.randrange(99)} ü")
            elif what < 0.85:
                yield events.KeyRevoked(alive.pop(chance.randrange(len(alive))), "user_request")
            else:
                yield self._of_a_user(users)

    def _created(self, owner: str) -> events.KeyCreated:
        chance = self._random
        expires_at = to_text(self._now_ms + chance.randrange(1, 500) * STEP_MS) if chance.random() < 0.5 else None
        scopes = chance.choice((None, (), ("keys:read",)))
        last4 = f"{self._made % 10_000:04d}"
        return created(self._made, owner=owner, expires_at=expires_at, scopes=scopes, last4=last4)

    def _of_a_user(self, users: list[str]) -> events.LedgerEvent:
        chance = self._random
        user = chance.choice(users)
        if len(users) > 2 and chance.random() < 0.02:
            users.remove(user)
            return events.PersonErased(user)
        role: Any = chance.choice(("member", "admin", "auditor"))
        return chance.choice(
            (
                *(events.UserDisabled(user), events.UserEnabled(user), events.UserEnabled(user)),
                *(events.UserRoleChanged(user, role), events.OrgKeysDisabled(), events.OrgKeysEnabled()),
            )
        )


def naive(records: list[tuple[str, Record]], org: str, at: str) -> dict[str, tuple[Any, ...]]:
    """The keys at a moment by another fold, which knows nothing of ours: what the tables would have been then."""
    tables = oracle.fold([record for when, record in records if when <= at], KEYS.keys)
    enabled = any(row[0] == org and row[2] for row in tables.get("orgs", ()))
    users = {row[1]: row for row in tables.get("users", ())}
    found = {}
    for _, key, user, name, _, scopes, _, created_at, expires_at, revoked_at, _ in tables.get("keys", ()):
        _, _, kind, role, status, _, _ = users[user]
        refusals = (
            (revoked_at is not None, "REVOKED"),
            (expires_at is not None and expires_at <= at, "EXPIRED"),
            (not enabled, "ORG_KEYS_DISABLED"),
            (status != "active", "OWNER_DISABLED"),
            (True, "VALID"),
        )
        code = next(code for holds, code in refusals if holds)
        found[key] = (user, kind, role, name, scopes, created_at, expires_at, revoked_at, code)
    return found


def ours(connection: psycopg.Connection[Any], org: str, at: str) -> dict[str, tuple[Any, ...]]:
    """The same, as the audit commands and the read API work it out."""
    keys = keys_as_of((one.envelope for one in archive.ledger(connection, org)), at)
    found = {
        key.key_id: (
            *(key.user_id, key.kind, key.role, key.name, json.dumps(key.scopes)),
            *(key.created_at, key.expires_at, key.revoked_at, key.code),
        )
        for key in keys
    }
    assert len(found) == len(keys)
    return found


@pytest.fixture
def lives(database: str) -> Lives:
    log = MemoryLog()
    found = Lives(log, random.SystemRandom().randrange(10**6) if FULL else 7)
    found.live()
    projector = story.new_projector(database)
    found.records = story.new_records(log, projector)
    began = time.monotonic()
    story.apply_all(log, projector, 5000)
    projector.close()
    print(
        f"\n{LIVES} lives, {ORGS} organisations: {len(found.records)} events projected in {time.monotonic() - began:.0f} s"
    )
    return found


def test_every_moment_is_what_a_naive_fold_of_the_events_gives(lives: Lives, database: str) -> None:
    by_org: dict[str, list[tuple[str, Record]]] = {ledger.org: [] for ledger in lives.ledgers}
    for record in lives.records:
        assert record.value is not None
        by_org[json.loads(record.value)["org"]].append((json.loads(record.value)["time"], record))
    assert difference(oracle.fold(lives.records, KEYS.keys), actual(database)) == []
    chance, codes = random.Random(11), set[str]()
    with psycopg.connect(database) as connection:
        for ledger in lives.ledgers:
            replayed: list[bytes] = []
            while found := archive.values(connection, ledger.org, len(replayed), "", 1000):
                replayed += [value for _, value in found]
            assert replayed == ledger.values
        for _ in range(MOMENTS):
            org = chance.choice(lives.ledgers).org
            at = to_text(chance.randrange(BEGIN_MS - STEP_MS, lives.ends_ms[org] + 600 * STEP_MS))
            wanted = naive(by_org[org], org, at)
            assert ours(connection, org, at) == wanted, (org, at)
            codes |= {row[-1] for row in wanted.values()}
    print(f"{MOMENTS} moments are what the naive fold gives")
    assert codes == {"VALID", "REVOKED", "EXPIRED", "ORG_KEYS_DISABLED", "OWNER_DISABLED"}
