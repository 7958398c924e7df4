"""The Flask app of the read API: errors become problems, and no answer is cached."""

import psycopg
import structlog
from flask import Flask, Response, request
from psycopg_pool import PoolTimeout
from werkzeug.exceptions import HTTPException

from schemas.problems import MAX_BODY_BYTES, MEDIA_TYPE, Problem
from services.projector.archive import BrokenArchive
from services.projector.audit_routes import audit_routes
from services.projector.routes import Parts, routes

_log = structlog.get_logger("keyledger.projector")
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def create_app(parts: Parts) -> Flask:
    """A WSGI app around these parts."""
    app = Flask("keyledger-reads", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # `//` in a path is an id of the wrong shape, a 404, and no redirection.
    app.extensions["reads"] = parts
    app.register_blueprint(routes)
    app.register_blueprint(audit_routes)
    app.register_error_handler(Problem, _problem)
    app.register_error_handler(HTTPException, _http_error)
    for away in (psycopg.OperationalError, psycopg.errors.UndefinedTable, PoolTimeout):
        app.register_error_handler(away, _database_unavailable)
    app.register_error_handler(psycopg.errors.QueryCanceled, _too_slow)
    app.register_error_handler(BrokenArchive, _broken_archive)
    app.register_error_handler(Exception, _bug)

    @app.before_request
    def take_in_body() -> None:
        # To answer before all of a request was read makes the server close the connection without a word,
        # and the next request that its client sends there fails.
        request.get_data()

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        return response

    return app


def _problem(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, problem.headers, content_type=MEDIA_TYPE)


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    problem = Problem(status, _CODES.get(status, "malformed"), error.description or error.name)
    problem.headers.update({name: value for name, value in error.get_headers() if name == "Allow"})
    return _problem(problem)


def _database_unavailable(error: Exception) -> Response:
    _log.warning("database_unavailable", route=str(request.url_rule), error=str(error))
    return _problem(Problem(503, "database_unavailable", "PostgreSQL does not answer right now", retry_after_s=1))


def _broken_archive(error: BrokenArchive) -> Response:
    _log.error("archive_broken", route=str(request.url_rule), why=str(error))
    return _problem(Problem(500, "archive_broken", str(error)))


def _too_slow(_error: Exception) -> Response:
    _log.warning("too_slow", route=str(request.url_rule))
    return _problem(Problem(503, "too_slow", "this takes too long; ask for less, such as a shorter period"))


def _bug(error: Exception) -> Response:
    _log.error("internal_error", route=str(request.url_rule), exc_info=error)
    return _problem(Problem(500, "internal_error", "this should not have happened; it is in the log"))
