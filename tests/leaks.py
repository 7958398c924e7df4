"""Searches everything a running system stores and says for secrets, in every form in which one could stand there."""

import base64
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import psycopg
from kafka import KafkaConsumer, TopicPartition
from psycopg import sql

from tests.end_to_end.system import System

_HEAD = 8
_TOKEN = re.compile(rb"[0-9A-Za-z_+/=-]{8,}")
_ONLY_NUMBERS = {".index", ".timeindex"}
"""Kafka's files of ten empty megabytes each, which hold offsets and times."""
Place = tuple[str, bytes]
"""The name of a place, and what stands there."""


def secret_part(issued: str) -> str:
    """The part of a key or signed token that makes it one; a password is all secret."""
    if re.fullmatch("[a-z0-9]+_[0-9A-Za-z]{22}_[0-9A-Za-z]{49}", issued):
        return issued[-49:-6]
    return issued.rpartition(".")[2] if re.fullmatch(r"[\w-]{10,}\.[\w-]{10,}\.[\w-]{40,}", issued) else issued


def forms(secret: str) -> set[bytes]:
    """The secret as it is, in hex, and in base64 at each place it can have in the text that was encoded."""
    raw = secret.encode()
    found = {raw, raw.hex().encode(), raw.hex().upper().encode()}
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + raw)
        # Only the characters that are made of the secret's own bits.
        own = encoded[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
        found |= {own, own.replace(b"+", b"-").replace(b"/", b"_")}
    return found


class Search:
    """Finds secrets in bytes. Those of fewer than eight characters are words, not secrets, and are left out."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._by_head: defaultdict[bytes, list[tuple[bytes, str]]] = defaultdict(list)
        self._texts: list[tuple[bytes, str]] = []
        self.size = 0
        for secret in {part for part in map(secret_part, secrets) if len(part) >= _HEAD}:
            self.size += 1
            for form in forms(secret):
                if _TOKEN.fullmatch(form):
                    self._by_head[form[:_HEAD]].append((form, secret))
                else:
                    self._texts.append((form, secret))

    def find(self, data: bytes) -> set[str]:
        """The secrets that stand in it in some form."""
        found = {secret for form, secret in self._texts if form in data}
        heads = self._by_head.keys()
        for token in set(_TOKEN.findall(data)):
            for at in range(len(token) - _HEAD + 1):
                if (head := token[at : at + _HEAD]) in heads:
                    found |= {secret for form, secret in self._by_head[head] if token.startswith(form, at)}
        return found


@dataclass
class Searched:
    """What was searched: how many secrets, places and bytes by kind of place; and where which secret was found."""

    secrets: int
    places: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)


def search_everything(system: System) -> Searched:
    """Search for all that the system issued or was given in all that it stores and says, also the files it wrote."""
    search = Search(system.issued)
    searched = Searched(search.size)
    for place, data in chain(records(system.broker.bootstrap), tables(system.database.url), files(system.config.var)):
        kind = place.split()[0]
        searched.places[kind] += 1
        searched.bytes[kind] += len(data)
        searched.found += [f"{place}: {secret[:6]}…" for secret in search.find(data)]
    return searched


def records(bootstrap: str) -> Iterator[Place]:
    """Keys, values and headers of all records of all topics, decoded, by topic."""
    reader = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    for topic in sorted(reader.topics()):
        at = [TopicPartition(topic, partition) for partition in reader.partitions_for_topic(topic)]
        reader.assign(at)
        ends, parts = reader.end_offsets(at), []
        while any(reader.position(one) < ends[one] for one in at):
            for record in (record for polled in reader.poll(timeout_ms=200).values() for record in polled):
                parts += [record.key or b"", record.value or b""]
                parts += [part for name, value in record.headers for part in (name.encode(), value or b"")]
        yield f"topic {topic}", b"\n".join(parts)
    reader.close()


def tables(database_url: str) -> Iterator[Place]:
    """All rows of all tables of all schemas, PostgreSQL's own included; text as text, bytea as the bytes."""
    with psycopg.connect(database_url) as connection:
        names = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables ORDER BY (schemaname IN ('pg_catalog', 'information_schema')), 1, 2"
        ).fetchall()
        for schema, table in names:
            rows = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table))).fetchall()
            values = [value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row]
            yield f"table {schema}.{table}", b"\n".join(values)


def files(folder: Path) -> Iterator[Place]:
    """All files, raw: LMDB, logs, what the processes said, Kafka's and PostgreSQL's own. Not the one handed to people."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "first-start.json" and path.suffix not in _ONLY_NUMBERS:
            yield f"file {path.relative_to(folder)}", path.read_bytes()
