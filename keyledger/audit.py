"""The commands `keyledger audit`: what auditors ask of the archive, and proofs.

All ask PostgreSQL at DATABASE_URL, so that its password is in no argument. The same reads are calls of the read API, for
admins and auditors who have no way to the database.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from keyledger.history_formats import FORMATS
from keyledger.telling import database_url, ledger_keys, tell

_FILTERS: Final = {
    "key": "about this key",
    "user": "about this user or its keys",
    "actor": "done by this user",
    "type": "of this type",
    "since": "RFC 3339, from then on",
    "until": "RFC 3339, up to then",
}
_LOOK_S: Final = 0.5
_SEND_S: Final = 30.0


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `audit` and what is below it."""
    audit = commands.add_parser("audit", help="the history, and proofs of it")
    below = audit.add_subparsers(required=True, metavar="COMMAND")
    _add_reads(below)
    _add_proofs(below)


def _add_reads(audit: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    history = audit.add_parser("history", help="what happened, event by event")
    history.add_argument("org", metavar="ORG")
    for name, what in _FILTERS.items():
        history.add_argument(f"--{name}", help=what)
    history.add_argument("--format", default="table", choices=FORMATS)
    history.add_argument("--uses", action="store_true", help="uses too: by hour, outcome and address")
    history.add_argument("--void", action="store_true", help="lost races and copies too")
    as_of = audit.add_parser("as-of", help="which keys there were at a moment, whose, and whether they were good")
    as_of.add_argument("org", metavar="ORG")
    as_of.add_argument("at", metavar="TIME", help="RFC 3339")
    around = audit.add_parser("blast-radius", help="everything that a leaked key could have touched, as JSON")
    around.add_argument("org", metavar="ORG")
    around.add_argument("key", metavar="KEY_ID")
    replay = audit.add_parser("replay", help="the events as stored (CloudEvents), in order, one a line")
    replay.add_argument("org", metavar="ORG")
    replay.add_argument("--after-revision", type=int, default=0)
    replay.add_argument("--since", help="RFC 3339, from then on")
    replay.add_argument("--follow", action="store_true", help="go on with what comes, until interrupted")
    replay.add_argument("--to-topic", help="a topic of your own instead of standard output")
    replay.add_argument("--partition", type=int, default=0, help="of that topic (0)")
    replay.add_argument("--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    for command, run in ((history, _history), (as_of, _as_of), (around, _blast_radius), (replay, _replay)):
        command.set_defaults(run=partial(_read, run))
    as_of.add_argument("--json", action="store_true", help="for programs")


def _add_proofs(audit: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    checkpoint = audit.add_parser("checkpoint", help="sign where every organisation's ledger stands")
    checkpoint.add_argument("--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    checkpoint.set_defaults(run=_checkpoint)
    public_key = audit.add_parser("public-key", help="print what others verify with")
    public_key.set_defaults(run=_public_key)
    for command in (checkpoint, public_key):
        state = Path(os.environ.get("KEYLEDGER_STATE_DIR", "var/auditor"))
        command.add_argument(
            "--state", type=Path, default=state, help=f"the notary's folder, signing key included ({state})"
        )
    export = audit.add_parser("export", help="write a bundle that proves itself, as of the newest checkpoint")
    export.add_argument("folder", type=Path, help="a folder that does not exist")
    export.add_argument("--org", action="append", default=[], help="may be given several times (all organisations)")
    export.add_argument("--key", type=Path, required=True, help="the file of public keys")
    export.set_defaults(run=_export)
    # A bundle's is parsed by the stand-alone verifier itself, so that the two cannot differ; see `keyledger.cli.main`.
    verify = audit.add_parser("verify", help="verify a bundle offline; with --live what Kafka and PostgreSQL hold")
    verify.add_argument("--live", action="store_true", required=True)
    verify.add_argument("--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    verify.add_argument("--key", type=Path, help="the file of public keys; without it checkpoints are not looked at")
    verify.set_defaults(run=_verify_live)


def _read(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    from services.projector.local_reads import Refused  # noqa: PLC0415

    try:
        return run(arguments)
    except Refused as error:
        print(f"keyledger: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # The only end of --follow.
        return 0


def _history(arguments: argparse.Namespace) -> int:
    from services.projector.local_reads import history  # noqa: PLC0415

    asked = {name: value for name in _FILTERS if (value := getattr(arguments, name)) is not None}
    asked |= {name: "include" for name in ("uses", "void") if getattr(arguments, name)}
    found = history(database_url(), arguments.org, asked, arguments.format == "cloudevents")
    for line in FORMATS[arguments.format](found):
        print(line)
    return 0


def _as_of(arguments: argparse.Namespace) -> int:
    from services.projector.local_reads import as_of  # noqa: PLC0415

    at, keys = as_of(database_url(), arguments.org, arguments.at)
    if arguments.json:
        print(json.dumps({"at": at, "items": [key.document() for key in keys]}))
        return 0
    for key in keys:
        rights = "unrestricted" if key.scopes is None else " ".join(key.scopes) or "(no scope)"
        networks = "" if key.cidrs is None else f" from {' '.join(key.cidrs)}"
        print(f"{key.code:<18} {key.key_id}  {key.user_id} ({key.role})  {json.dumps(key.name)}  {rights}{networks}")
    print(f"{len(keys)} keys at {at}, {sum(key.code == 'VALID' for key in keys)} of them good")
    return 0


def _blast_radius(arguments: argparse.Namespace) -> int:
    from services.projector.local_reads import around  # noqa: PLC0415

    print(json.dumps(around(database_url(), arguments.org, arguments.key), indent=1))
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    from services.projector.local_reads import replayed  # noqa: PLC0415

    after = arguments.after_revision
    with _taker(arguments) as take:
        while True:
            found = replayed(database_url(), arguments.org, after, arguments.since)
            if found:
                take([value for _, value in found])
                after = found[-1][0]
            elif arguments.follow:
                time.sleep(_LOOK_S)
            else:
                return 0


@contextmanager
def _taker(arguments: argparse.Namespace) -> Iterator[Callable[[list[bytes]], object]]:
    """Where events go, some at a time: standard output, or a topic."""
    from schemas.topics import TOPICS  # noqa: PLC0415
    from services.ledger.kafka_log import KafkaLog  # noqa: PLC0415
    from services.ledger.log import Message  # noqa: PLC0415

    if arguments.to_topic is None:
        yield lambda values: print(b"\n".join(values).decode(), flush=True)
        return
    if arguments.to_topic in {topic.name for topic in TOPICS}:
        raise ValueError(f"{arguments.to_topic} is a topic of Keyledger's own: name one of yours")
    place = (arguments.to_topic, arguments.partition, arguments.org.encode())
    with closing(KafkaLog(arguments.bootstrap, "replay")) as log:
        yield lambda values: log.append_all([Message(*place, value) for value in values], _SEND_S)


def _checkpoint(arguments: argparse.Namespace) -> int:
    from services.auditor.tasks import take_checkpoint  # noqa: PLC0415

    return tell(take_checkpoint(database_url(), arguments.bootstrap, ledger_keys(), arguments.state))


def _public_key(arguments: argparse.Namespace) -> int:
    from services.auditor.tasks import public_keys  # noqa: PLC0415

    print(public_keys(arguments.state), end="")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from services.auditor.tasks import export_bundle  # noqa: PLC0415

    return tell(export_bundle(database_url(), arguments.folder, arguments.org, arguments.key))


def _verify_live(arguments: argparse.Namespace) -> int:
    from services.auditor.tasks import verify_live  # noqa: PLC0415

    return tell(verify_live(database_url(), arguments.bootstrap, ledger_keys(), arguments.key))
