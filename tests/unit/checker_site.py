"""The whole app of the checker over an index of the tests, as a worker process puts it together."""

from collections.abc import Sequence
from pathlib import Path

from flask import Flask

from schemas.tokens import KeySet
from services.auth_checker.app import create_app
from services.auth_checker.callers import Callers
from services.auth_checker.config import Network
from services.auth_checker.doors import Door
from services.auth_checker.fast_lane import FastLane
from services.auth_checker.forward_auth import ForwardAuth
from services.auth_checker.metrics import Metrics
from services.auth_checker.routes import Service
from tests.unit.checker_story import Asking


def lanes(
    asking: Asking, folder: Path, token: str | None = None, trusted_proxies: Sequence[Network] = ()
) -> tuple[FastLane, Flask]:
    """The app with the fast lane in front, and the Flask app alone."""
    door = Door(token, asking.checker)
    forward_auth = ForwardAuth(asking.checker, door, trusted_proxies)
    callers = Callers(asking.reader, asking.checker, KeySet(dict))
    metrics = Metrics(folder, "test", asking.uses, asking.reader, asking.spool)
    app = create_app(Service(asking.reader, asking.checker, callers, door, metrics, forward_auth))
    return FastLane(app, asking.checker, door, forward_auth), app
