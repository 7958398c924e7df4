"""The command `keyledger projector rebuild`: the read tables made again beside the live ones, and the way back."""

import argparse

from services.projector.rebuild_options import Options, add_options


def add_rebuild(projector: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register it below `projector`. All that it needs to know is read from the environment of a projector."""
    rebuild = projector.add_parser(
        "rebuild", help="make all read tables again beside the live ones, compare them, and switch"
    )
    add_options(rebuild)
    rebuild.set_defaults(run=_rebuild)


def _rebuild(arguments: argparse.Namespace) -> int:
    # Only here: who installed Keyledger to publish or to ask has no PostgreSQL client.
    from services.projector.rebuild_command import run  # noqa: PLC0415

    return run(Options.of(arguments))
