"""Uses told by other services in every way are counted exactly: `make prove-publishers` for the full form."""

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from benchmarks.corpus import Corpus, Plan, send
from schemas.times import wall_clock_ms
from services.ledger.kafka_log import KafkaLog
from services.ledger.seal import load_or_make
from services.projector.database import Writer, connect
from tests.end_to_end.system import System
from tests.fault import publishing_load as load
from tests.fault.field import Field
from tests.fault.publishing_load import Owned, Place, Uses
from tests.waiting import eventually

FULL = bool(os.environ.get("KEYLEDGER_FULL"))
EVENTS = 200_000 if FULL else 5_000
KEYS = 200
EARLY_KEYS = 4
FOREIGN = EARLY = EVENTS // 100
COPIED = 0.05
COUNTED_S = 180.0
_USES = """
    SELECT org_id, key_id, left(hour, 13), outcome, sum(count)::bigint FROM key_usage_hours
    WHERE key_id = ANY (%s) GROUP BY 1, 2, 3, 4
"""
_HELD = "SELECT reason, count(*) FROM usage_quarantine WHERE org_id = ANY (%s) GROUP BY 1"


class Told:
    """A ledger whose last keys are not in the log yet; and, in another organisation, keys that HTTP tells of."""

    def __init__(self, system: System) -> None:
        self.field = Field(system, KEYS)
        self.plan = Plan(orgs=1, users=5, keys=KEYS, revoked=0, seed=secrets.randbits(60))
        corpus = Corpus(self.plan, load_or_make(system.ledger_keys), wall_clock_ms())
        messages = list(corpus.lifecycle())
        send(system.broker.bootstrap, messages[:-EARLY_KEYS])
        self.withheld = messages[-EARLY_KEYS:]
        owned = [Owned(key.org_id, key.user_id, key.key_id) for key in corpus.keys]
        self.keys, self.early_keys = owned[:-EARLY_KEYS], owned[-EARLY_KEYS:]
        # HTTP asks for no owner: it tells the ledger's.
        self.posted_keys = [Owned(self.field.org, "", key.key_id) for key in self.field.keys]
        self.orgs = [self.field.org, owned[0].org_id]


@pytest.fixture
def session(system: System) -> Iterator[Writer]:
    with closing(connect(system.database.url, "test-publishers")) as session:
        yield session


@pytest.fixture
def log(system: System) -> Iterator[KafkaLog]:
    with closing(KafkaLog(system.broker.bootstrap, "test-publishers")) as log:
        yield log


def test_uses_told_in_every_way_are_counted_exactly_and_the_foreign_ones_held(
    system: System, session: Writer, log: KafkaLog, tmp_path: Path
) -> None:
    random, told = Random(seed := secrets.randbits(32)), Told(system)
    uses = Uses(random)
    quarter = (EVENTS - FOREIGN - EARLY) // 4
    numbered, by_id, posted = (
        uses.of(told.keys, quarter),
        uses.of(told.keys, quarter),
        uses.of(told.posted_keys, quarter),
    )
    events = uses.of(told.keys, quarter)
    early = uses.of(told.early_keys, EARLY)
    unknown = uses.unknown(told.keys[0], FOREIGN // 2)
    misplaced = uses.misplaced(told.keys, told.field.org, FOREIGN - len(unknown))
    system.validates_as(reporter := _reporter(told.field), "VALID")
    ways = [random.sample(more, len(more)) for more in (numbered + early[::3], by_id + unknown + early[1::3])]
    load.publish(system.broker.bootstrap, ways[0], tmp_path)
    load.publish(system.broker.bootstrap, ways[1], None)
    load.post(system, reporter, posted)
    load.send_cloud_events(log, random.sample(rest := events + misplaced + early[2::3], len(rest)), random)
    copies = load.send_again(log, COPIED, random)
    counted = [*numbered, *by_id, *posted, *events]
    print(
        f"\nseed {seed}: {len(counted)} uses of known keys, {len(early)} early, {len(unknown)} of unknown keys,"
        f" {len(misplaced)} of another organisation's, {copies} copies"
    )
    _eventually_counted(session, load.fold(counted))
    held = {"unknown_key": len(unknown) + len(early), "wrong_org": len(misplaced)}
    eventually(lambda: _held(session, told) == held, COUNTED_S, f"in quarantine to be {held}")
    send(system.broker.bootstrap, told.withheld)
    _eventually_counted(session, load.fold([*counted, *early]))
    held["unknown_key"] -= len(early)
    assert _held(session, told) == held


def _reporter(field: Field) -> str:
    answer = field.call("POST", "/keys", {"name": f"reporter {secrets.token_hex(4)}", "scopes": ["usage:write"]})
    assert answer.status == 201, answer
    return str(answer.json["key"])


def _eventually_counted(session: Writer, expected: Counter[Place]) -> None:
    ids = sorted({key_id for _, key_id, _, _ in expected})

    def counted() -> Counter[Place]:
        found = session.execute(_USES, [ids]).fetchall()
        return Counter({(org, key, hour, outcome): count for org, key, hour, outcome, count in found})

    def is_level() -> bool:
        found = counted()
        assert not found - expected, "more is counted than was told"
        return found == expected

    eventually(is_level, COUNTED_S, f"{expected.total()} uses to be counted")
    print(f"{expected.total()} uses in {len(expected)} keys, hours and outcomes are counted, and no more")


def _held(session: Writer, told: Told) -> dict[str, int]:
    return dict(session.execute(_HELD, [told.orgs]).fetchall())
