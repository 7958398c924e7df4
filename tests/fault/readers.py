"""What the log holds, and what every reader of it says: heads, and records by outcome."""

import json
import time
from collections import Counter
from functools import partial
from typing import Any

import psycopg
import urllib3
from kafka import KafkaConsumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from schemas.topics import LIFECYCLE, PARTITIONS
from services.auth_checker import status
from services.command_api.handler import TABLES
from services.embedded.processes import Program
from services.ledger.lmdb_chain import CHAIN_TABLES, LmdbChain
from services.ledger.store import Store
from tests import oracle
from tests.end_to_end.system import System
from tests.waiting import eventually

Heads = dict[str, tuple[int, str]]
"""Revision and hash by organisation."""
_RECORDS = {
    "command_api": "keyledger_records_total",
    "auth_checker": "keyledger_ledger_records_total",
    "projector": "keyledger_projector_records_total",
}
_REPORT_AGE = {
    "auth_checker": "keyledger_follower_lag_seconds",
    "projector": "keyledger_projector_report_age_seconds",
}
_HTTP = urllib3.PoolManager(timeout=5.0, retries=False)


def lifecycle_records(system: System) -> list[Any]:
    """Every record of `key-lifecycle` as it is now, raw."""
    wanted = [TopicPartition(LIFECYCLE, number) for number in range(PARTITIONS)]
    consumer = KafkaConsumer(bootstrap_servers=system.broker.bootstrap, enable_auto_commit=False, group_id=None)
    consumer.assign(wanted)
    consumer.seek_to_beginning(*wanted)
    ends, records = consumer.end_offsets(wanted), []
    while any(consumer.position(at) < ends[at] for at in wanted):
        records += [record for polled in consumer.poll(timeout_ms=200).values() for record in polled]
    consumer.close()
    return records


class Ledgers:
    """The log as `tests.oracle` sorts it, which shares no code with the services."""

    def __init__(self, system: System) -> None:
        records = lifecycle_records(system)
        keys = {kid: bytes.fromhex(key) for kid, key in json.loads(system.ledger_keys.read_text())["keys"].items()}
        tables = oracle.fold(records, keys)
        self._values = {(record.partition, record.offset): record.value for record in records}
        self._rows = [row[:5] for row in tables["ledger_records"]]
        self.heads: Heads = {org: (revision, hash_) for org, revision, hash_, *_ in tables["heads"]}

    def events(self, org: str) -> list[dict[str, Any]]:
        """The applied events of an organisation as JSON, in order."""
        mine = [(row[4], row[0], row[2]) for row in self._rows if row[1] == "applied" and row[3] == org]
        return [json.loads(self._values[partition, offset]) for _, partition, offset in sorted(mine)]

    def values(self, org: str) -> list[bytes]:
        """The applied events of an organisation byte for byte, in order."""
        mine = [(row[4], row[0], row[2]) for row in self._rows if row[1] == "applied" and row[3] == org]
        return [self._values[partition, offset] for _, partition, offset in sorted(mine)]

    def void(self, *orgs: str) -> int:
        """How many void records these organisations have."""
        return sum(1 for row in self._rows if row[1] == "void" and row[3] in orgs)


def heads_by_reader(system: System) -> dict[str, Heads]:
    """What every reader of the log has stored, by the name of its process; `log` is the log itself."""
    found = {"log": Ledgers(system).heads}
    for name, program in system.programs.items():
        state = system.config.var / name
        if program.service == "command_api":
            found[name] = _stored(Store(state / "ledger", (*CHAIN_TABLES, *TABLES), read_only=True))
        elif program.service == "auth_checker":
            found[name] = _stored(status.open_index(state, read_only=True))
    with psycopg.connect(system.database.url) as connection:
        rows = connection.execute("SELECT org_id, revision, hash FROM read.heads").fetchall()
    return found | {"read.heads": {org: (revision, hash_) for org, revision, hash_ in rows}}


def all_agree(system: System) -> dict[str, Heads]:
    """Wait until every reader has the heads of the log; gives them."""

    def same() -> dict[str, Heads]:
        found = heads_by_reader(system)
        for reader, heads in found.items():
            differ = {org for org in heads | found["log"] if heads.get(org) != found["log"].get(org)}
            assert not differ, f"{reader} differs in {differ}"
        return found

    return eventually(same, 30, "every reader to have the heads of the log")


def settled_outcomes(system: System) -> dict[str, Counter[str]]:
    """How many lifecycle records were applied, void and foreign, by process since its start, when all have read all."""
    all_agree(system)
    began = time.monotonic()
    return {
        name: eventually(partial(_outcomes, program, began), 15, f"{name} to report")
        for name, program in system.programs.items()
        if program.service in _RECORDS
    }


def _outcomes(program: Program, since: float) -> Counter[str]:
    """Empty while the last report was made before `since`: checker and projector report from time to time."""
    asked = time.monotonic()
    text = _HTTP.request("GET", f"{program.url}/metrics").data.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    ages = [sample.value for sample in samples if sample.name == _REPORT_AGE.get(program.service)]
    if any(asked - age <= since for age in ages):
        return Counter()
    wanted = _RECORDS[program.service]
    found = {sample.labels["outcome"]: int(sample.value) for sample in samples if sample.name == wanted}
    return Counter({outcome: found.get(outcome, 0) for outcome in ("applied", "void", "foreign")})


def _stored(store: Store) -> Heads:
    with store.read() as txn:
        heads = {org: (head.revision, head.hash) for org, head in LmdbChain(txn).heads()}
    store.close()
    return heads
