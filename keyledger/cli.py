"""The command `keyledger`: argument parsing only, each subcommand calls one function.

A key is read from the variable KEYLEDGER_KEY or from standard input, never from an argument, which other users of the
machine could see; the checker's credential comes from CHECKER_TOKEN.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from keyledger import audit, repair
from keyledger.checker import Checker, CheckerUnavailable
from keyledger.publish import Publisher
from keyledger.rebuild import add_rebuild
from keyledger.telling import database_url, tell
from schemas.validation import Code
from services.ledger.log import LogUnavailable

if TYPE_CHECKING:
    from services.projector.reports import Report

GOOD, NOT_GOOD, MISUSED, AWAY = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; 0 done, valid or all well, 1 not so, 2 wrong arguments, 3 the checker, Kafka or PostgreSQL is away."""
    typed = sys.argv[1:] if argv is None else argv
    if list(typed[:2]) == ["audit", "verify"] and "--live" not in typed:
        from services.auditor.verify_bundle import main as verify  # noqa: PLC0415

        return verify([*typed[2:]])
    arguments = _parser().parse_args(typed)
    # What is printed is the answer, so log lines go beside it.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    try:
        return int(arguments.run(arguments))
    except (CheckerUnavailable, LogUnavailable, ConnectionError) as error:
        print(f"keyledger: {error}", file=sys.stderr)
        return AWAY
    except ValueError as error:
        print(f"keyledger: {error}", file=sys.stderr)
        return MISUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="keyledger", description="API keys kept as a ledger of facts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    validate = commands.add_parser("validate", help="is the key in KEYLEDGER_KEY, or on standard input, good?")
    validate.add_argument("--url", default=os.environ.get("CHECKER_URL", "http://127.0.0.1:8003"))
    validate.add_argument("--scope", action="append", default=[], help="needed; may be given several times")
    validate.add_argument("--ip", help="the address the key is used from")
    validate.set_defaults(run=_validate)
    publish = commands.add_parser("publish", help="publish that a key was used")
    publish.add_argument("--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    publish.add_argument("--source", required=True, help="the service that saw the use")
    publish.add_argument("--key-id", required=True)
    publish.add_argument("--org-id", required=True)
    publish.add_argument("--user-id", required=True, help="the key's owner")
    publish.add_argument("--outcome", default=Code.VALID.value, choices=[code.value for code in Code])
    publish.add_argument("--at-ms", type=int, help="milliseconds since 1970 (now)")
    publish.add_argument("--ip")
    publish.add_argument("--user-agent")
    publish.add_argument("--count", type=int, default=1)
    publish.add_argument("--use-id", help="a use is counted once for each id of a source (a random one)")
    publish.set_defaults(run=_publish)
    checker = commands.add_parser("checker", help="the auth checker of this machine")
    snapshot = checker.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "snapshot", help="copy the index of a checker that runs, to seed a new one"
    )
    snapshot.add_argument("state_dir", type=Path, help="KEYLEDGER_STATE_DIR of the checker that runs")
    snapshot.add_argument("target", type=Path, help="KEYLEDGER_STATE_DIR of the new one: a folder that does not exist")
    snapshot.set_defaults(run=_snapshot)
    _add_reports(commands)
    audit.add_commands(commands)
    repair.add_ledger_commands(commands)
    return parser


def _add_reports(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """All ask PostgreSQL at DATABASE_URL, so that its password is in no argument; `projector status` asks Kafka too."""
    projector = commands.add_parser("projector", help="the projectors").add_subparsers(required=True, metavar="COMMAND")
    usage = commands.add_parser("usage", help="the uses of keys").add_subparsers(required=True, metavar="COMMAND")
    status = projector.add_parser("status", help="how far they are behind the log, and what was not counted")
    status.add_argument("--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    status.add_argument("--seconds", type=float, default=2.0, help="over which rates are measured (2)")
    status.add_argument("--most-behind", type=float, default=10.0, help="more seconds behind are wrong (10)")
    status.set_defaults(run=_projector_status)
    add_rebuild(projector)
    gaps = usage.add_parser("gaps", help="numbers of key use that never came, by source")
    gaps.set_defaults(run=_usage_gaps)
    quarantine = usage.add_parser("quarantine", help="uses that were not counted, by reason and source")
    quarantine.add_argument("--org", help="only those that name this organisation")
    quarantine.set_defaults(run=_usage_quarantine)
    for report in (status, gaps, quarantine):
        report.add_argument("--json", action="store_true", help="for programs")


def _validate(arguments: argparse.Namespace) -> int:
    key = os.environ.get("KEYLEDGER_KEY") or sys.stdin.readline().strip()
    answer = Checker(arguments.url, os.environ.get("CHECKER_TOKEN")).validate(key, arguments.scope, arguments.ip)
    print(json.dumps({name: value for name, value in answer._asdict().items() if value is not None}))
    return GOOD if answer.valid else NOT_GOOD


def _publish(arguments: argparse.Namespace) -> int:
    with Publisher(arguments.bootstrap, arguments.source) as publisher:
        use_id = publisher.used(
            arguments.key_id,
            org_id=arguments.org_id,
            user_id=arguments.user_id,
            outcome=arguments.outcome,
            at_ms=arguments.at_ms,
            ip=arguments.ip,
            user_agent=arguments.user_agent,
            count=arguments.count,
            use_id=arguments.use_id,
        )
    print(use_id)
    return GOOD


def _snapshot(arguments: argparse.Namespace) -> int:
    # Only here: who installed Keyledger to publish or to ask has no LMDB.
    from services.auth_checker.snapshot import snapshot  # noqa: PLC0415

    snapshot(arguments.state_dir, arguments.target)
    return GOOD


def _projector_status(arguments: argparse.Namespace) -> int:
    from services.projector.reports import projector_status  # noqa: PLC0415

    url = database_url()
    return _tell_as(
        projector_status(url, arguments.bootstrap, arguments.seconds, arguments.most_behind), arguments.json
    )


def _usage_gaps(arguments: argparse.Namespace) -> int:
    from services.projector.reports import usage_gaps  # noqa: PLC0415

    return _tell_as(usage_gaps(database_url()), arguments.json)


def _usage_quarantine(arguments: argparse.Namespace) -> int:
    from services.projector.reports import usage_quarantine  # noqa: PLC0415

    return _tell_as(usage_quarantine(database_url(), arguments.org), arguments.json)


def _tell_as(report: "Report", as_json: bool) -> int:
    if not as_json:
        return tell(report)
    print(json.dumps(report.document))
    return GOOD if report.is_good else NOT_GOOD


if __name__ == "__main__":
    sys.exit(main())
