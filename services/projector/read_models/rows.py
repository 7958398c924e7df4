"""The rows of a table that one transaction touches: loaded once, changed in memory, written back in one statement."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, Generic, TypeVar

import psycopg
from psycopg import sql
from psycopg.adapt import PyFormat

from services.ledger.fold import StoreFailure
from services.projector.database import Writer

Row = TypeVar("Row")
GUILTY: Final = (psycopg.DataError, psycopg.IntegrityError)
"""What PostgreSQL raises about a value; every other error is about PostgreSQL itself."""


class Rows(Generic[Row]):
    """Rows as mutable dataclasses whose fields are the columns. `columns` maps each to its PostgreSQL type.

    The first `key_size` fields are the key. Raises StoreFailure when PostgreSQL is away.
    """

    def __init__(
        self, connection: Writer, table: str, kind: type[Row], columns: Mapping[str, str], key_size: int
    ) -> None:
        self._connection, self._table, self._kind = connection, table, kind
        self._columns = dict(columns)
        assert list(columns) == [field.name for field in fields(kind)]  # type: ignore[arg-type]
        self._key = list(columns)[:key_size]
        self._known: dict[tuple[Any, ...], Row | None] = {}
        self._changed: set[tuple[Any, ...]] = set()

    def load(self, keys: Iterable[tuple[Any, ...]]) -> None:
        """Fetch what is not known yet; an absent row is remembered too."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._known]
        if not missing:
            return
        query = sql.SQL("SELECT {columns} FROM {table} JOIN {wanted} AS wanted ({key}) USING ({key})").format(
            columns=_names(self._columns),
            table=sql.Identifier(self._table),
            wanted=_unnest([self._columns[name] for name in self._key]),
            key=_names(self._key),
        )
        try:
            found = self._connection.execute(query, transposed(missing)).fetchall()
        except psycopg.Error as error:
            raise StoreFailure(str(error)) from error
        self._known.update(dict.fromkeys(missing))
        self._known.update({values[: len(self._key)]: self._kind(*values) for values in found})

    def get(self, *key: Any) -> Row | None:
        """The row of a key, to be changed only together with `put`."""
        self.load([key])
        return self._known[key]

    def put(self, row: Row) -> None:
        """Take a new or changed row in."""
        key = tuple(getattr(row, name) for name in self._key)
        self._known[key] = row
        self._changed.add(key)

    def write(self) -> None:
        """Write all that was put. Raises psycopg.Error."""
        if self._changed:
            rows = [self._known[key] for key in self._changed]
            values = [tuple(getattr(row, name) for name in self._columns) for row in rows]
            rest = [name for name in self._columns if name not in self._key]
            upsert(self._connection, self._table, self._columns, values, key=self._key, update=replace(rest))
            self._changed.clear()

    def forget(self) -> None:
        """Drop all that is known, written or not."""
        self._known.clear()
        self._changed.clear()


def upsert(
    connection: Writer,
    table: str,
    columns: Mapping[str, str],
    rows: Sequence[tuple[Any, ...]],
    *,
    key: Sequence[str],
    update: sql.Composable | None,
) -> None:
    """Write rows in one statement. `update` says what happens where the key is there; without it that is an error.

    Raises psycopg.Error.
    """
    if not rows:
        return
    query = sql.SQL("INSERT INTO {} ({}) SELECT * FROM {}").format(
        sql.Identifier(table), _names(columns), _unnest(columns.values())
    )
    if update is not None:
        query += sql.SQL(" ON CONFLICT ({}) DO {}").format(_names(key), update)
    connection.execute(query, transposed(rows))


def transposed(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows as columns, for unnest; there must be at least one row."""
    return list(map(list, zip(*rows, strict=True)))


def replace(names: Iterable[str]) -> sql.Composable:
    """The update that takes these columns from the new row."""
    parts = [sql.SQL("{name} = EXCLUDED.{name}").format(name=sql.Identifier(name)) for name in names]
    return sql.SQL("UPDATE SET ") + sql.SQL(", ").join(parts)


def _names(names: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _unnest(types: Iterable[str]) -> sql.Composable:
    # In binary a column is made three times as fast as in text, where every element is searched for quotes.
    value = sql.Placeholder(format=PyFormat.BINARY)
    arrays = [sql.SQL("{}::{}[]").format(value, sql.SQL(kind)) for kind in types]
    return sql.SQL("unnest({})").format(sql.SQL(", ").join(arrays))
