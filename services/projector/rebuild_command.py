"""What `projector rebuild` does, whoever is asked for it: `python -m services.projector` or `keyledger`."""

import functools
import gc
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Final

import psycopg

from schemas.times import wall_clock_ms
from schemas.topics import LIFECYCLE, TOPICS
from services.ledger import seal
from services.ledger.kafka_log import KafkaLog
from services.ledger.log import LogUnavailable
from services.ledger.preflight import PreflightFailed, prepare
from services.projector.archive_log import ArchiveLog
from services.projector.checkpoints import known_topic_ids
from services.projector.config import BadConfig, Config
from services.projector.database import SCHEMA, Writer, connect, make_tables
from services.projector.locks import PartitionsHeld
from services.projector.progress import Progress, terminal
from services.projector.projector import MOST_RECORDS
from services.projector.rebuild import AnotherRebuild, CannotRebuild, Rebuild, Records, RowsDiffer
from services.projector.rebuild_options import Options
from services.projector.retention import forget_old
from services.projector.rollback import drop_old, undo

_DIFFERENT, _BAD_START, _NOT_ALONE = 1, 2, 3
# It serves nobody and asks nobody who is calling.
_UNUSED: Final = {"KEYLEDGER_STATE_DIR": os.devnull, "CHECKER_URL": "http://127.0.0.1:9"}


def run(options: Options) -> int:
    """Do it, with the environment of a projector; the exit code: 1 when rows differ, 2 for what must be repaired, 3 when
    another rebuild is at work, or a projector where none may be.
    """
    # A batch makes tens of thousands of objects that go with it; the collector looking at them took a third of the time.
    gc.set_threshold(100_000)
    try:
        config = Config.from_env(_UNUSED | os.environ)
        if options.undo:
            _undo(config)
        elif options.drop_old:
            _drop_old(config)
        else:
            _rebuild(config, options)
    except RowsDiffer as error:
        return _refused(f"Not switched: {error}", _DIFFERENT)
    except (AnotherRebuild, PartitionsHeld) as error:
        return _refused(f"Not {_done(options)}: {error}", _NOT_ALONE)
    except (
        *(BadConfig, CannotRebuild, seal.BadKeyFile, PreflightFailed),
        *(LogUnavailable, psycopg.Error, OSError),
    ) as error:
        return _refused(f"Not {_done(options)}, the live tables are as they were: {error}", _BAD_START)
    return 0


def _rebuild(config: Config, options: Options) -> None:
    open_session = functools.partial(_open_session, config)
    with open_session() as session:
        make_tables(session)
        topic_ids = _topic_ids(config, known_topic_ids(session), options.from_archive)
    keys = seal.load_or_make(config.ledger_keys)
    with ExitStack() as stack:
        log: Records = stack.enter_context(closing(KafkaLog(config.kafka, "rebuild", MOST_RECORDS)))
        if options.from_archive:
            log = stack.enter_context(closing(ArchiveLog(open_session, log, options.accept_differences)))
        progress = stack.enter_context(Progress(functools.partial(print, flush=True), terminal=terminal(sys.stderr)))
        forget = functools.partial(_forget, config)
        rebuild = Rebuild(open_session, log, keys, topic_ids, forget, progress, config.usage_tolerance_ms)
        rebuild.run(options.accept_differences)


def _topic_ids(config: Config, known: Mapping[str, str], from_archive: bool) -> dict[str, str]:
    """The incarnations of the topics. From the archive `key-lifecycle` may be damaged, made again or gone: the tables go on
    belonging to the one that they were made from, so that no projector goes on with another.
    """
    if not from_archive:
        return prepare(config.kafka, TOPICS, known)
    others = [topic for topic in TOPICS if topic.name != LIFECYCLE]
    return {**known, **prepare(config.kafka, others, known)}


def _undo(config: Config) -> None:
    with closing(KafkaLog(config.kafka, "rebuild")) as kafka:
        undo(functools.partial(_open_session, config), kafka)
    sys.stdout.write("The tables from before are live again: start the projectors, which catch up from there.\n")


def _drop_old(config: Config) -> None:
    with closing(_open_session(config)) as session:
        found = drop_old(session)
    sys.stdout.write(f"Dropped: {', '.join(found)}.\n" if found else "No tables from before are kept.\n")


def _refused(sentence: str, code: int) -> int:
    sys.stderr.write(f"{sentence}\n")
    return code


def _done(options: Options) -> str:
    if options.undo:
        return "undone"
    return "dropped" if options.drop_old else "rebuilt"


def _open_session(config: Config, schema: str = SCHEMA) -> Writer:
    return connect(config.database_url, f"keyledger-rebuild {socket.gethostname()}:{os.getpid()}", schema)


def _forget(config: Config, session: Writer) -> None:
    forget_old(session, wall_clock_ms(), config.address_days, config.usage_days)
