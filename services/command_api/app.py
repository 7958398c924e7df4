"""The Flask app of the command API: error handling and what every call shares; the calls are in `routes`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, generate_latest
from werkzeug.exceptions import HTTPException

from schemas import problems
from schemas.problems import MAX_BODY_BYTES, MEDIA_TYPE, Problem
from services.command_api import routes
from services.command_api.callers import Callers
from services.command_api.effects import Effects
from services.command_api.errors import Refused
from services.command_api.handler import CommandHandler
from services.command_api.minting import Sources
from services.command_api.usage_intake import UsageIntake
from services.ledger.append import Busy
from services.ledger.log import LogUnavailable, OutcomeUnknown
from services.ledger.store import Store

_log = structlog.get_logger("keyledger.command_api")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the app is made of; constructed in `__main__`. `not_ready` gives the reason, None when ready."""

    handler: CommandHandler
    callers: Callers
    usage: UsageIntake
    effects: Effects
    store: Store
    sources: Sources
    registry: CollectorRegistry
    key_prefix: str
    not_ready: Callable[[], str | None]


def create_app(parts: Parts) -> Flask:
    """The WSGI app."""
    app = Flask("keyledger.command_api", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES, PROVIDE_AUTOMATIC_OPTIONS=False)
    app.url_map.merge_slashes = False  # `//` in a path is an id of the wrong shape, a 404, and no redirection.
    app.json.sort_keys = False  # type: ignore[attr-defined]
    outcomes = Counter(
        "keyledger_commands_total", "Commands by call and outcome.", ("call", "outcome"), registry=parts.registry
    )
    _register_errors(app)

    @app.before_request
    def take_in_body() -> None:
        g.arrived_ns = parts.effects.now_ns()
        # To answer before all of a request was read makes the server close the connection without a word,
        # and the next request that its client sends there fails.
        request.get_data()

    @app.after_request
    def count(response: Response) -> Response:
        outcome = response.headers.pop("X-Outcome", None) or str(response.status_code)
        if request.endpoint not in routes.NOT_COUNTED:
            outcomes.labels(request.endpoint or "none", outcome).inc()
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(parts.registry), mimetype="text/plain")

    app.register_blueprint(routes.calls(parts))
    return app


def respond(problem: Problem) -> Response:
    """A problem as a response."""
    headers = {**problem.headers, "X-Outcome": problem.code}
    return Response(problem.body(), problem.status, headers, MEDIA_TYPE)


def _register_errors(app: Flask) -> None:
    handlers: dict[type[Exception], Callable[[Any], Problem]] = {
        Problem: lambda error: error,
        Refused: _refused,
        HTTPException: _from_http,
        Busy: lambda error: Problem(503, "busy", "others write to this organisation all the time", retry_after_s=1),
        OutcomeUnknown: _outcome_unknown,
        LogUnavailable: lambda error: Problem(
            503, "log_unavailable", "the log is away; nothing was done", retry_after_s=1
        ),
        Exception: _unexpected,
    }
    for kind, problem_of in handlers.items():
        app.register_error_handler(kind, lambda error, problem_of=problem_of: respond(problem_of(error)))


def _refused(error: Refused) -> Problem:
    errors = ((error.pointer, error.message),) if error.pointer is not None else ()
    headers = {"WWW-Authenticate": 'Bearer realm="keyledger"'} if error.status == 401 else None
    retry = 5 if error.status == 503 else None
    return Problem(error.status, error.code, error.message, errors, retry_after_s=retry, headers=headers)


def _from_http(error: HTTPException) -> Problem:
    status = error.code if error.code in problems.TITLES else 400
    title = problems.TITLES[status or 400]
    headers = {"Allow": ", ".join(error.valid_methods)} if getattr(error, "valid_methods", None) else None  # type: ignore[attr-defined]
    return Problem(status or 400, title.lower().replace(" ", "_"), title, headers=headers)


def _outcome_unknown(error: OutcomeUnknown) -> Problem:
    _log.warning("outcome_unknown", error=str(error))
    detail = "the log did not confirm in time; repeat with the same Idempotency-Key to learn what happened"
    return Problem(503, "outcome_unknown", detail, retry_after_s=1)


def _unexpected(error: Exception) -> Problem:
    _log.error("unexpected", exc_info=error)
    return Problem(500, "internal_error", "an error on our side; it was logged")
