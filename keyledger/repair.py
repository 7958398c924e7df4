"""The command `keyledger ledger`: what an operator does when the log has lost something."""

import argparse
import os
from pathlib import Path

from keyledger.telling import database_url, ledger_keys, tell


def add_ledger_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `ledger` and what is below it. DATABASE_URL and KEYLEDGER_LEDGER_KEYS are read from the environment."""
    ledger = commands.add_parser("ledger", help="repair the log").add_subparsers(required=True, metavar="COMMAND")
    restore = ledger.add_parser("restore", help="append to key-lifecycle what it has lost; stop the services first")
    restore.add_argument("--from", dest="source", required=True, choices=["archive", "bundle"], help="who kept it")
    restore.add_argument("--bundle", type=Path, metavar="FOLDER", help="the bundle; it is verified first")
    restore.add_argument("--key", type=Path, help="the file of public keys, for the bundle and the newest checkpoint")
    restore.add_argument(
        "--state",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="KEYLEDGER_STATE_DIR of a command API or checker as it was stopped: no ledger may end before what it has seen;"
        " may be given several times",
    )
    restore.add_argument("--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    restore.set_defaults(run=_restore)


def _restore(arguments: argparse.Namespace) -> int:
    # Only here: who installed Keyledger to publish or to ask has no PostgreSQL client.
    from services.auditor.restore_task import Wanted, restore_ledger  # noqa: PLC0415

    if (arguments.source == "bundle") != (arguments.bundle is not None):
        raise ValueError("--from bundle needs --bundle FOLDER, and --from archive takes none")
    wanted = Wanted(arguments.bundle, arguments.key, arguments.state)
    return tell(restore_ledger(database_url(), arguments.bootstrap, ledger_keys(), wanted))
