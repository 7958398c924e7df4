"""A list of keys as a file for spreadsheets (RFC 4180, UTF-8). Pure."""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any, Final

_COLUMNS: Final = ("name", "key_id", "owner", "owner_id", "created_at", "last_used_at", "last_used_ip", "expires_at")
_LISTS: Final = ("scopes", "cidrs")
# A spreadsheet takes a cell that begins like this for a formula, and key names are anybody's text.
_FORMULA: Final = tuple("=+-@\t\r＝＋－＠")


def text(keys: Iterable[Mapping[str, Any]]) -> str:
    """A header and one row for each key of the read API; an empty cell stands for never, or for no limit."""
    written = io.StringIO()
    rows = csv.writer(written, quoting=csv.QUOTE_ALL)  # Some spreadsheets split at a semicolon too.
    rows.writerow((*_COLUMNS, *_LISTS))
    for key in keys:
        known = {**key, "owner": key["owner_name"], "owner_id": key["user_id"]}
        rows.writerow([_cell(known[name]) for name in _COLUMNS] + [_cell(_joined(known[name])) for name in _LISTS])
    return written.getvalue()


def _joined(items: list[str] | None) -> str | None:
    # No scope at all is not the same as no limit.
    return " ".join(items) or "(none)" if items is not None else None


def _cell(value: str | None) -> str:
    return "" if value is None else f"'{value}" if value.startswith(_FORMULA) else value
