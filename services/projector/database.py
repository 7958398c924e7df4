"""Connections to PostgreSQL whose tables are those of the schema `read`, or of one beside it, and the tables themselves."""

from functools import partial
from importlib.resources import files
from typing import Any, Final

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.rows import DictRow, dict_row
from psycopg.types.string import TextLoader
from psycopg_pool import ConnectionPool

SCHEMA: Final = "read"
OLD: Final = "read_old"
"""The tables from before the last rebuild, kept for a rollback."""
_TABLES_LOCK: Final = 0x6B6C_7462
_ALIVE: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    # A host that vanished without a word is noticed in seconds, not when the kernel gives up.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}

Writer = psycopg.Connection[tuple[Any, ...]]
Pool = ConnectionPool[psycopg.Connection[DictRow]]


def connect(url: str, application_name: str, schema: str = SCHEMA) -> Writer:
    """A session in autocommit; transactions are explicit, JSON columns are text. Raises psycopg.OperationalError."""
    connection = psycopg.connect(url, autocommit=True, application_name=application_name, **_ALIVE)
    try:
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
    except psycopg.Error:
        connection.close()
        raise
    connection.adapters.register_loader("jsonb", TextLoader)
    return connection


def make_tables(connection: Writer, schema: str = SCHEMA) -> None:
    """Make the schema of this connection, and what is missing of `tables.sql` in it, after `upgrade.sql` for tables of an
    earlier version. Several processes may do so at once.
    """
    upgrade, tables = (files(__package__).joinpath(name).read_text() for name in ("upgrade.sql", "tables.sql"))
    connection.execute("SELECT pg_advisory_lock(%s)", [_TABLES_LOCK])
    try:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        connection.execute(upgrade.encode())
        # One by one: a transaction that locks one table after another would get in the way of those at work.
        for statement in tables.split(";\n"):
            connection.execute(statement.encode())
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", [_TABLES_LOCK])


def read_pool(url: str, size: int, timeout_ms: int = 8_000) -> Pool:
    """Sessions for reading: each transaction sees one state of all tables. Opened without waiting.

    A statement that takes longer than `timeout_ms` is ended, so that a few of them do not keep everybody else waiting.

    A session that broke while nobody used it is replaced before it is handed out, so a restart of PostgreSQL needs
    nothing here; after 3 s of vain attempts the next request asks for a session again.
    """
    return ConnectionPool(
        url,
        connection_class=psycopg.Connection[DictRow],
        kwargs={"row_factory": dict_row, "application_name": "keyledger-read", **_ALIVE},
        min_size=1,
        max_size=size,
        timeout=2.0,
        reconnect_timeout=3.0,
        configure=partial(_reads_one_state, timeout_ms),
        check=ConnectionPool.check_connection,
        open=True,
    )


def _reads_one_state(timeout_ms: int, connection: psycopg.Connection[DictRow]) -> None:
    connection.autocommit = True
    connection.execute(f"SET search_path TO {SCHEMA}")
    connection.execute(sql.SQL("SET statement_timeout TO {}").format(timeout_ms))
    # One organisation has ten keys, another ten thousand: a plan that is good for one is none for the other.
    connection.execute("SET plan_cache_mode TO force_custom_plan")
    connection.autocommit = False
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
