"""Text for a terminal."""

from collections.abc import Sequence
from itertools import zip_longest

Cell = str | int | float | None


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """The rows under their headings: numbers to the right, `-` where there is nothing. No line at all without rows."""
    if not rows:
        return ""
    texts = [list(headings), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip_longest(*texts, fillvalue="")]
    are_numbers = [all(not isinstance(row[at], str) for row in rows) for at in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, are_numbers, strict=True)
        ).rstrip()
        for line in texts
    )


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.1f}"
    # Other services choose their names: nothing in them may steer somebody's terminal.
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(cell))
