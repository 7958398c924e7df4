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

from keyledger.checker import Checker, CheckerUnavailable
from keyledger.publish import Publisher
from schemas.times import wall_clock_ms
from schemas.validation import Code
from services.ledger.log import LogUnavailable

GOOD, NOT_GOOD, MISUSED, AWAY = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; 0 done or valid, 1 not valid, 2 wrong arguments, 3 the checker or Kafka is away."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (CheckerUnavailable, LogUnavailable) as error:
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
    publish.set_defaults(run=_publish)
    checker = commands.add_parser("checker", help="the auth checker of this machine")
    snapshot = checker.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "snapshot", help="copy the index of a checker that runs, to seed a new one"
    )
    snapshot.add_argument("state_dir", type=Path, help="KEYLEDGER_STATE_DIR of the checker that runs")
    snapshot.add_argument("target", type=Path, help="KEYLEDGER_STATE_DIR of the new one: a folder that does not exist")
    snapshot.set_defaults(run=_snapshot)
    return parser


def _validate(arguments: argparse.Namespace) -> int:
    key = os.environ.get("KEYLEDGER_KEY") or sys.stdin.readline().strip()
    answer = Checker(arguments.url, os.environ.get("CHECKER_TOKEN")).validate(key, arguments.scope, arguments.ip)
    print(json.dumps({name: value for name, value in answer._asdict().items() if value is not None}))
    return GOOD if answer.valid else NOT_GOOD


def _publish(arguments: argparse.Namespace) -> int:
    with Publisher(arguments.bootstrap, arguments.source) as publisher:
        use_id = publisher.publish(
            key_id=arguments.key_id,
            org_id=arguments.org_id,
            user_id=arguments.user_id,
            outcome=arguments.outcome,
            at_ms=wall_clock_ms() if arguments.at_ms is None else arguments.at_ms,
            ip=arguments.ip,
            user_agent=arguments.user_agent,
            count=arguments.count,
        )
    print(use_id)
    return GOOD


def _snapshot(arguments: argparse.Namespace) -> int:
    # Only here: who installed Keyledger to publish or to ask has no LMDB.
    from services.auth_checker.snapshot import snapshot  # noqa: PLC0415

    snapshot(arguments.state_dir, arguments.target)
    return GOOD


if __name__ == "__main__":
    sys.exit(main())
