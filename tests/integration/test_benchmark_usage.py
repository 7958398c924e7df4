"""What the benchmark measures our projector beside does the work: each loop keeps what an independent count gives."""

from collections import Counter
from types import SimpleNamespace

import psycopg
import pytest

from benchmarks.corpus import Corpus, MadeKey, Plan
from benchmarks.usage_loops import LOOPS, NEXT_OFFSETS, TABLES
from benchmarks.usage_rates import HOUR_MS
from schemas.decoder import decode_usage
from services.ledger.seal import LedgerKeys

KEYS = [MadeKey("org", "user", f"{number:022d}", "", revoked=number == 7) for number in range(20)]
NOW_MS = 1_790_000_000_000


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_keeps_the_last_use_of_each_key_its_uses_by_hour_and_where_it_goes_on(name: str, database: str) -> None:
    corpus = Corpus(Plan(uses=10, burst=1), LedgerKeys("1", {"1": b"k" * 32}), NOW_MS, keys=KEYS)
    following: Counter[int] = Counter()
    polled = []
    for message in corpus.usage(4 * HOUR_MS):
        at = following[message.partition]
        polled.append(SimpleNamespace(partition=message.partition, offset=at, value=message.value))
        following[message.partition] += 1
    uses = [decode_usage(record.value).event for record in polled]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        for first in range(0, len(polled), 70):  # In three polls: the second and third find rows that are there.
            LOOPS[name](connection, polled[first : first + 70])
        assert dict(connection.execute(NEXT_OFFSETS).fetchall()) == following
        last = connection.execute("SELECT key_id, uses, at, ip FROM last_used").fetchall()
        hours = connection.execute("SELECT key_id, hour, outcome, count FROM hours").fetchall()
    assert sorted(last) == sorted((used.key_id, 10, used.last_at, used.ip) for used in uses[-len(KEYS) :])
    counted = Counter((used.key_id, used.last_at[:13], used.outcome) for used in uses)
    assert sorted(hours) == sorted((*place, count) for place, count in counted.items())
