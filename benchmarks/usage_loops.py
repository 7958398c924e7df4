"""Other ways to get uses from Kafka into PostgreSQL, as short as they can be: what ours is measured beside.

`DATABASE_URL=… python -m benchmarks.usage_loops NAME BOOTSTRAP` reads `key-usage` from its beginning until it is stopped.
All of them keep the last use of each key and its uses by hour, and the offsets in the same transaction. None drops a
record that was sent twice, sees a gap, keeps addresses apart, or looks at what it is given.
"""

import gc
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import psycopg
from kafka import KafkaConsumer, TopicPartition

from schemas.topics import PARTITIONS, USAGE

TABLES: Final = """
    CREATE TABLE last_used (key_id text COLLATE "C" PRIMARY KEY, org_id text, at text, ip text, uses bigint);
    CREATE TABLE hours (key_id text COLLATE "C", hour text COLLATE "C", outcome text COLLATE "C", count bigint,
                        PRIMARY KEY (key_id, hour, outcome));
    CREATE TABLE checkpoints (partition integer PRIMARY KEY, next_offset bigint);
"""
NEXT_OFFSETS: Final = "SELECT partition, next_offset FROM checkpoints"
_MOST_RECORDS: Final = 5000
_LAST_USED: Final = """
    INSERT INTO last_used AS old {rows} ON CONFLICT (key_id) DO UPDATE SET
        ip = CASE WHEN EXCLUDED.at > old.at THEN EXCLUDED.ip ELSE old.ip END,
        at = GREATEST(old.at, EXCLUDED.at), uses = old.uses + EXCLUDED.uses
"""
_HOURS: Final = """
    INSERT INTO hours AS old {rows} ON CONFLICT (key_id, hour, outcome) DO UPDATE SET count = old.count + EXCLUDED.count
"""
_OFFSETS: Final = """
    INSERT INTO checkpoints SELECT * FROM unnest(%s::integer[], %s::bigint[])
    ON CONFLICT (partition) DO UPDATE SET next_offset = EXCLUDED.next_offset
"""
_ONE_KEY, _ONE_HOUR = (
    _LAST_USED.format(rows="VALUES (%s, %s, %s, %s, %s)"),
    _HOURS.format(rows="VALUES (%s, %s, %s, %s)"),
)
_ALL_KEYS: Final = _LAST_USED.format(
    rows="SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[])"
)
_ALL_HOURS: Final = _HOURS.format(rows="SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[])")


class _Used(msgspec.Struct, gc=False):
    count: int
    ip: str
    key_id: str
    last_at: str
    org_id: str
    outcome: str


class _Event(msgspec.Struct, gc=False):
    data: _Used


_decode: Final = msgspec.json.Decoder(_Event).decode
Connection = psycopg.Connection[Any]
Polled = Sequence[Any]
"""Records of one poll."""


def batched_floor(connection: Connection, polled: Polled) -> None:
    """Fold in a dict, then a statement for each table: what anybody would measure a projection of uses against."""
    keys: dict[str, list[Any]] = {}
    hours: dict[tuple[str, str, str], int] = {}
    for record in polled:
        used = _decode(record.value).data
        found = keys.get(used.key_id)
        if found is None:
            keys[used.key_id] = [used.org_id, used.last_at, used.ip, used.count]
        else:
            found[3] += used.count
            if used.last_at > found[1]:
                found[1:3] = used.last_at, used.ip
        place = used.key_id, used.last_at[:13], used.outcome
        hours[place] = hours.get(place, 0) + used.count
    with connection.transaction():
        connection.execute(_ALL_KEYS, _columns((key, *row) for key, row in keys.items()))
        connection.execute(_ALL_HOURS, _columns((*place, count) for place, count in hours.items()))
        _move(connection, polled)


def row_commit(connection: Connection, polled: Polled) -> None:
    """A transaction for each record."""
    for record in polled:
        with connection.transaction():
            _write(connection, record)
            _move(connection, [record])


def batch_commit(connection: Connection, polled: Polled) -> None:
    """Row by row, and a transaction for each poll."""
    with connection.transaction():
        for record in polled:
            _write(connection, record)
        _move(connection, polled)


def batch_commit_pipelined(connection: Connection, polled: Polled) -> None:
    """The same, without waiting for each answer of PostgreSQL: psycopg's `executemany`."""
    used = [_decode(record.value).data for record in polled]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_ONE_KEY, map(_key_row, used))
        cursor.executemany(_ONE_HOUR, map(_hour_row, used))
        _move(connection, polled)


LOOPS: Final[Mapping[str, Callable[[Connection, Polled], None]]] = {
    loop.__name__: loop for loop in (batched_floor, batch_commit_pipelined, batch_commit, row_commit)
}


def _write(connection: Connection, record: Any) -> None:
    used = _decode(record.value).data
    connection.execute(_ONE_KEY, _key_row(used))
    connection.execute(_ONE_HOUR, _hour_row(used))


def _key_row(used: _Used) -> tuple[str | int, ...]:
    return used.key_id, used.org_id, used.last_at, used.ip, used.count


def _hour_row(used: _Used) -> tuple[str | int, ...]:
    return used.key_id, used.last_at[:13], used.outcome, used.count


def _move(connection: Connection, polled: Polled) -> None:
    following = {record.partition: record.offset + 1 for record in polled}
    connection.execute(_OFFSETS, [list(following), list(following.values())])


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def main() -> int:
    """Until the process is stopped."""
    apply, bootstrap = LOOPS[sys.argv[1]], sys.argv[2]
    gc.set_threshold(100_000)  # As in our projector.
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_poll_records=_MOST_RECORDS,
        fetch_max_wait_ms=50,
        metrics_enabled=False,
    )
    at = [TopicPartition(USAGE, partition) for partition in range(PARTITIONS)]
    consumer.assign(at)
    consumer.seek_to_beginning(*at)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        while True:
            polled = [record for some in consumer.poll(timeout_ms=100).values() for record in some]
            if polled:
                apply(connection, polled)


if __name__ == "__main__":
    sys.exit(main())
