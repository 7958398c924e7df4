"""History entries as text: for a person, a spreadsheet or a program."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

COLUMNS: Final = ("revision", "time", "type", "actor", "actor_type", "actor_key", "void", "data", "hash", "parent")
# A spreadsheet takes a cell that begins like this for a formula, and key names are anybody's text.
_FORMULA: Final = tuple("=+-@\t\r＝＋－＠")


def as_jsonl(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One JSON object a line, as the read API answers them."""
    for entry in entries:
        yield json.dumps(entry, sort_keys=True)


def as_csv(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """RFC 4180 with a line of headings; no cell is taken for a formula by a spreadsheet."""
    yield _csv_line(COLUMNS)
    for entry in entries:
        actor = entry["actor"] or {}
        flat = dict(entry) | {"actor": actor.get("user_id"), "actor_type": actor.get("type")}
        flat |= {"actor_key": actor.get("key_id"), "data": json.dumps(entry["data"], sort_keys=True)}
        yield _csv_line([flat[name] for name in COLUMNS])


def as_table(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One line for a person; what is not ASCII in a name or comment is escaped."""
    for entry in entries:
        actor = entry["actor"] or {}
        by = actor.get("key_id") or actor.get("user_id") or ""
        data = " ".join(f"{name}={json.dumps(value)}" for name, value in entry["data"].items() if value is not None)
        revision = "" if entry["revision"] is None else entry["revision"]
        mark = " void" if entry["void"] else ""
        yield f"{revision:>7}  {entry['time']}  {entry['type']:<16}{mark}  {by:<24}  {data}".rstrip()


def as_stored(values: Iterable[bytes]) -> Iterator[str]:
    """The CloudEvents, byte for byte."""
    for value in values:
        yield value.decode()


FORMATS: Final[dict[str, Callable[[Iterable[Any]], Iterator[str]]]] = {
    "table": as_table,
    "jsonl": as_jsonl,
    "csv": as_csv,
    "cloudevents": as_stored,
}


def _csv_line(cells: Iterable[Any]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow([_safe(cell) for cell in cells])
    return written.getvalue()


def _safe(cell: Any) -> Any:
    return "'" + cell if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
