"""One HTTP worker process: what it is made of, and what runs in it beside the app.

It is a module of its own because a spawned process cannot load anything from a package's `__main__`.
"""

import multiprocessing
import multiprocessing.util
import os
import secrets
from typing import Final

import structlog
import urllib3

from schemas.tokens import KeySet
from services.auth_checker import status
from services.auth_checker.app import create_app
from services.auth_checker.callers import Callers, fetch_from
from services.auth_checker.config import Config
from services.auth_checker.doors import Door
from services.auth_checker.fast_lane import FastLane
from services.auth_checker.forward_auth import ForwardAuth
from services.auth_checker.handler import Checker
from services.auth_checker.index_reader import IndexReader
from services.auth_checker.metrics import Metrics
from services.auth_checker.process import end_with_parent, log_json
from services.auth_checker.routes import Service
from services.auth_checker.spool import Spool
from services.auth_checker.status import open_index
from services.auth_checker.uses import Uses

THREADS: Final = 4
_STOP_S: Final = 5.0


def load_app(config: Config) -> FastLane:
    """Make the app, in granian's worker process, and start what runs beside it."""
    log_json()
    end_with_parent()
    name = secrets.token_hex(8)
    store = open_index(config.state_dir, read_only=True)
    spool = Spool(config.state_dir / "spool", config.spool_bytes)
    uses = Uses(spool)
    reader = IndexReader(store, status.machine_clocks(), config.max_staleness_ms)
    checker = Checker(reader, uses, config.prefix)
    callers = Callers(reader, checker, KeySet(fetch_from(config.console_url, urllib3.PoolManager(maxsize=THREADS))))
    figures = Metrics(config.state_dir / "figures", name, uses, reader, spool)
    door = Door(config.checker_token, checker)
    forward_auth = ForwardAuth(checker, door, config.trusted_proxies)
    uses.start()
    figures.start()

    def finish() -> None:
        uses.stop(_STOP_S)
        figures.stop()
        spool.close()

    structlog.get_logger("keyledger.auth_checker").info("worker_serves", pid=os.getpid())
    multiprocessing.util.Finalize(None, finish, exitpriority=10)
    return FastLane(
        create_app(Service(reader, checker, callers, door, figures, forward_auth)), checker, door, forward_auth
    )
