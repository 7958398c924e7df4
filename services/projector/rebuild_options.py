"""What is typed behind `projector rebuild`. Imports nothing, so that `keyledger` may know it without PostgreSQL's client."""

import argparse
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Options:
    """What to do: rebuild, or one of `undo` and `drop_old`."""

    from_archive: bool = False
    accept_differences: bool = False
    undo: bool = False
    drop_old: bool = False

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Those that were typed."""
        return cls(arguments.source == "archive", arguments.accept_differences, arguments.undo, arguments.drop_old)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let them be typed."""
    source = "from where lifecycle is read: Kafka, or the archive in PostgreSQL where Kafka's is damaged (kafka)"
    parser.add_argument("--from", dest="source", choices=["kafka", "archive"], default="kafka", help=source)
    parser.add_argument("--accept-differences", action="store_true", help="switch though rows differ")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--undo", action="store_true", help="instead: back to the tables from before; stop the projectors first"
    )
    instead.add_argument("--drop-old", action="store_true", help="instead: drop the tables from before")
