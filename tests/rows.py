"""What the read models hold, in the shape of `tests.oracle.expected`, and where the two differ."""

import base64
import json

import psycopg

SHOWN = 5
HEADERS = 9
# In the order of the columns of tests.oracle; a table without a row is left out on both sides.
QUERIES = {
    "heads": "SELECT org_id, revision, hash, time, halt_why IS NOT NULL FROM heads",
    # The hash is worked out from the archived bytes: what counts is that they are the bytes of the log.
    "ledger_records": "SELECT partition, outcome, \"offset\", org_id, revision, encode(sha256(value), 'hex'), parent, time,"
    " key_id, headers FROM ledger_records WHERE hash = encode(sha256(value), 'hex')",
    "orgs": "SELECT org_id, name, keys_enabled, registered_at FROM orgs",
    "users": "SELECT org_id, user_id, kind, role, status, created_at, revision FROM users",
    "keys": "SELECT org_id, key_id, user_id, name, last4, scopes, cidrs, created_at, expires_at, revoked_at, revision"
    " FROM keys",
    "key_usage": "SELECT org_id, key_id, uses, valid_uses, last_used_at, last_used_ip, last_used_agent,"
    " last_used_source FROM key_usage",
    "key_usage_hours": "SELECT org_id, key_id, user_id, hour, outcome, ip, count, first_at, last_at FROM key_usage_hours",
    "usage_sources": "SELECT source, partition, last, topic FROM usage_sources",
    "usage_gaps": "SELECT source, partition, first, last, topic FROM usage_gaps",
    # How far lifecycle was when a use was judged is not in the log.
    "usage_quarantine": "SELECT topic, partition, \"offset\", CASE WHEN reason IN ('waiting', 'unknown_key', 'wrong_org')"
    " THEN 'keyless' ELSE reason END FROM usage_quarantine",
    "external_usage_ids": "SELECT source, id FROM external_usage_ids",
}


def actual(database_url: str) -> dict[str, set[tuple]]:
    """{table: set of rows} of the schema `read`, all of one moment."""
    with psycopg.connect(database_url, options="-c search_path=read") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        tables = {table: connection.execute(query).fetchall() for table, query in QUERIES.items()}
    tables["keys"] = [(*row[:5], json.dumps(row[5]), json.dumps(row[6]), *row[7:]) for row in tables["keys"]]
    tables["ledger_records"] = [(*row[:HEADERS], _headers(row[HEADERS])) for row in tables["ledger_records"]]
    return {table: set(rows) for table, rows in tables.items() if rows}


def difference(expected: dict[str, set[tuple]], actual: dict[str, set[tuple]]) -> list[str]:
    """A sentence for each of the first rows that differ, table by table; empty when the two are equal."""
    found = []
    for table in QUERIES:
        wanted, there = expected.get(table, set()), actual.get(table, set())
        for sentence, rows in (("is missing", wanted - there), ("should not be there", there - wanted)):
            found += [f"{table}: {row} {sentence}" for row in sorted(rows, key=repr)[:SHOWN]]
            found += [f"{table}: {len(rows) - SHOWN} more {sentence}"] if len(rows) > SHOWN else []
    unknown = (expected.keys() | actual.keys()) - QUERIES.keys()
    return [*found, *(f"{table}: no such table is compared" for table in sorted(unknown))]


def _headers(stored: bytes) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((name, value and base64.b64decode(value)) for name, value in json.loads(stored))
