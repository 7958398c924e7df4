"""What runs in granian's worker process: the app, and the first start beside it.

It is a module of its own because a spawned process cannot load anything from a package's `__main__`.
"""

import logging
import multiprocessing
import multiprocessing.util
import os
import sys
import threading
import uuid
from typing import Any, Final

import structlog
import urllib3
from argon2 import PasswordHasher
from psycopg_pool import ConnectionPool

from schemas.times import Clock, wall_clock_ms
from services.console.adding import Adding
from services.console.api_clients import COMMAND_TIMEOUT, Api, Checker, CommandApi, ReadApi
from services.console.app import create_app
from services.console.bootstrap import Bootstrap, Readiness, Result
from services.console.config import Config
from services.console.members import Members
from services.console.metrics import Metrics
from services.console.oidc import Oidc
from services.console.parts import Console
from services.console.passwords import Passwords
from services.console.people import People
from services.console.sessions import Sessions
from services.console.sign_in import SignIn
from services.console.signing_keys import open_signing_keys
from services.console.sso import SingleSignOn
from services.console.throttle import Throttle

THREADS: Final = 16
"""Requests served at once, and connections to PostgreSQL."""


def load_app(config: Config) -> Any:
    """Make the app, in granian's worker process, and start what runs beside it."""
    log_json()
    _end_with_parent()
    console, bootstrap = build(config, PasswordHasher(), wall_clock_ms)
    stop = threading.Event()
    threading.Thread(target=bootstrap.run, args=(stop, console.readiness), name="first-start", daemon=True).start()

    def finish() -> None:
        stop.set()
        console.pool.close()

    multiprocessing.util.Finalize(None, finish, exitpriority=10)
    return create_app(console)


def build(config: Config, hasher: PasswordHasher, clock: Clock) -> tuple[Console, Bootstrap]:
    """All parts of a console, not started yet."""
    # Opened without waiting: PostgreSQL may come later, and until then `/readyz` says so.
    pool = ConnectionPool(
        config.database_url,
        # A host that vanished without a word is noticed in seconds, not when the kernel gives up.
        kwargs={"tcp_user_timeout": 10_000, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3},
        min_size=1,
        max_size=THREADS,
        timeout=5.0,
        open=True,
        check=ConnectionPool.check_connection,
    )
    http = urllib3.PoolManager(maxsize=THREADS)
    command_api = CommandApi(Api("command API", config.command_url, http, COMMAND_TIMEOUT))
    checker = Checker(Api("auth checker", config.checker_url, http), config.checker_token)
    people, passwords, keys = People(pool, clock), Passwords(hasher), open_signing_keys(config.state_dir)
    sessions = Sessions(pool, clock)
    sso = SingleSignOn(pool, configured=config.oidc is not None)
    sign_in = SignIn(people, passwords, Throttle(pool, clock), checker, keys, clock, sso)
    adding = Adding(people, command_api, lambda: str(uuid.uuid4()))
    result = Result(config.first_start, config.urls)
    bootstrap = Bootstrap(
        pool, people, passwords, adding, sign_in, keys, command_api, checker, clock, result, config.demo
    )
    console = Console(
        pool=pool,
        people=people,
        passwords=passwords,
        members=Members(people, passwords, adding, sign_in, sso, sessions),
        sessions=sessions,
        sign_in=sign_in,
        keys=keys,
        command_api=command_api,
        read_api=ReadApi(Api("read API", config.read_url, http)),
        checker=checker,
        readiness=Readiness(),
        metrics=Metrics(),
        sso=sso,
        oidc=Oidc(config.oidc, config.public_url + "/sign-in/sso/callback", clock) if config.oidc else None,
        sso_name=config.oidc.name if config.oidc else "",
        is_https=config.public_url.startswith("https://"),
    )
    return console, bootstrap


def log_json() -> None:
    """Everything that is logged, by us or by a library, is one JSON line on standard error."""
    stamps: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    lines = structlog.processors.JSONRenderer()
    structlog.configure([*stamps, lines], logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    # What libraries say goes the same way, such as the pool when PostgreSQL is away.
    handler = logging.StreamHandler()
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=lines, foreign_pre_chain=stamps))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    os.setpgrp()  # Ctrl-C goes to a whole group; told twice to stop, by it and by the parent, the server hangs.

    def watch() -> None:
        parent.join()
        os._exit(1)  # A killed parent must not leave an orphan on the port.

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
