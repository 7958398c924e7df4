"""The projector as a process: `python -m services.projector`. The only place that constructs things.

This process follows the log and holds the locks; granian's worker process serves the reads.
With `rebuild` it makes all tables again beside the live ones instead, and switches to them.
"""

import argparse
import functools
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

import psycopg
import structlog
from granian.constants import Interfaces
from granian.server import Server

from schemas.times import wall_clock_ms
from schemas.topics import TOPICS
from services.ledger import seal
from services.ledger.follow import Follower
from services.ledger.kafka_log import KafkaLog
from services.ledger.preflight import PreflightFailed, prepare_patiently
from services.ledger.records import TopicPartition
from services.projector import rebuild_command
from services.projector.catch_up import tell_catch_up
from services.projector.checkpoints import Checkpoints, known_topic_ids
from services.projector.config import BadConfig, Config
from services.projector.database import SCHEMA, Writer, connect, make_tables
from services.projector.judge import Judge
from services.projector.locks import PartitionLocks, PartitionsHeld
from services.projector.progress import terminal
from services.projector.projector import MOST_RECORDS, PROJECTED, Projector
from services.projector.rebuild_options import Options, add_options
from services.projector.retention import forget_hourly, forget_old
from services.projector.status import Reporter
from services.projector.worker import THREADS, load_app, log_json

_DATABASE_WAIT_S = 60.0
_BAD_START, _NOT_ALONE = 2, 3
_log = structlog.get_logger("keyledger.projector")


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.projector", description=__doc__)
    add_options(parser.add_subparsers(dest="command").add_parser("rebuild", help="make all tables again from the log"))
    arguments = parser.parse_args()
    log_json()
    # A batch makes tens of thousands of objects that go with it; the collector looking at them took a third of the time.
    gc.set_threshold(100_000)
    return rebuild_command.run(Options.of(arguments)) if arguments.command else _serve()


def _serve() -> int:
    """Run until SIGTERM or SIGINT; the exit code: 2 for what must be repaired, 3 when another projector is at work."""
    multiprocessing.set_start_method("spawn")
    try:
        config = Config.from_env(os.environ)
        keys = seal.load_or_make(config.ledger_keys)
        config.state_dir.mkdir(parents=True, exist_ok=True)
        config.metrics_file.unlink(missing_ok=True)
        open_session = functools.partial(_open_session, config, "keyledger-projector")
        session = _patiently(open_session)
        make_tables(session)
        locks = PartitionLocks(open_session, config.partitions)
        locks.hold()
        _refuse_taken_port(config)
        topic_ids = prepare_patiently(config.kafka, TOPICS, known_topic_ids(session))
        session.close()
    except (BadConfig, seal.BadKeyFile, PreflightFailed, psycopg.Error, OSError) as error:
        _log.error("cannot_start", why=str(error))
        return _BAD_START
    except PartitionsHeld as error:
        _log.error("not_alone", why=str(error))
        return _NOT_ALONE
    return _run(config, keys, open_session, locks, topic_ids)


def _run(
    config: Config,
    keys: seal.LedgerKeys,
    open_session: Callable[[], Writer],
    locks: PartitionLocks,
    topic_ids: dict[str, str],
) -> int:
    partitions = [TopicPartition(topic, partition) for topic in PROJECTED for partition in config.partitions]
    log = KafkaLog(config.kafka, "projector", MOST_RECORDS)
    tolerance_ms = config.usage_tolerance_ms
    checkpoints = Checkpoints(partitions, topic_ids)
    projector = Projector(open_session, keys, checkpoints, config.partitions, locks.hold, tolerance_ms)
    judge = Judge(open_session, log, config.partitions, tolerance_ms)
    follower = Follower(log, partitions, projector, "projector")
    reporter = Reporter(follower, projector, open_session, config.metrics_file, wall_clock_ms, lambda: judge.counts)
    follower.start()
    reporter.start()
    judge.start()
    threading.Thread(target=_stop_when_not_alone, args=(projector,), daemon=True).start()
    stopping = threading.Event()
    telling = threading.Thread(target=tell_catch_up, args=(follower, stopping, terminal(sys.stderr)), daemon=True)
    telling.start()
    forgetting = (functools.partial(_open_session, config, "keyledger-projector"), functools.partial(_forget, config))
    threading.Thread(target=forget_hourly, args=forgetting, daemon=True).start()
    server = Server(
        "projector",
        address=config.host,
        port=config.port,
        interface=Interfaces.WSGI,
        blocking_threads=THREADS,
        log_enabled=False,
    )
    _log.info("projector", host=config.host, port=config.port, partitions=config.partitions)
    server.serve(target_loader=functools.partial(load_app, config), wrap_loader=False)
    stopping.set()
    telling.join()
    judge.stop()
    reporter.stop()
    follower.stop()
    projector.close()
    locks.release()
    log.close()
    return 0 if projector.stopped is None else _NOT_ALONE


def _refuse_taken_port(config: Config) -> None:
    try:
        socket.create_server((config.host, config.port)).close()
    except OSError as error:
        raise BadConfig(f"The projector cannot listen on {config.host}:{config.port}: {error.strerror}.") from error


def _stop_when_not_alone(projector: Projector) -> None:
    while projector.stopped is None:
        time.sleep(0.1)
    _log.error("not_alone", why=str(projector.stopped))
    os.kill(os.getpid(), signal.SIGTERM)  # granian stops its worker, and `_run` goes on.


def _open_session(config: Config, name: str, schema: str = SCHEMA) -> Writer:
    return connect(config.database_url, f"{name} {socket.gethostname()}:{os.getpid()}", schema)


def _forget(config: Config, session: Writer) -> None:
    forget_old(session, wall_clock_ms(), config.address_days, config.usage_days)


def _patiently(open_session: Callable[[], Writer]) -> Writer:
    deadline = time.monotonic() + _DATABASE_WAIT_S
    while True:
        try:
            return open_session()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise
            _log.warning("waiting_for_postgresql", error=str(error).strip())
            time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
