"""The Flask app: errors become problems, every answer is counted and, unless it says otherwise, never cached."""

import psycopg
import structlog
from flask import Flask, Response, g, request
from psycopg_pool import PoolTimeout
from werkzeug.exceptions import HTTPException

from schemas.problems import MAX_BODY_BYTES, MEDIA_TYPE, Problem
from services.console.pages import (
    account,
    history,
    key,
    key_revoking,
    keys,
    orgs,
    rendering,
    sign_in,
    statics,
    user,
    user_rights,
    users,
)
from services.console.pages.blueprint import pages
from services.console.parts import Console
from services.console.routes import routes

_log = structlog.get_logger()
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_JSON = ("/v1/", "/.well-known/")
# Each adds its views to the blueprint when it is imported.
_VIEWS = (account, history, key, key_revoking, keys, orgs, sign_in, statics, user, user_rights, users)
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def create_app(console: Console) -> Flask:
    """A WSGI app around these collaborators."""
    app = Flask("keyledger-console", static_folder=None)
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    app.url_map.merge_slashes = False  # `//` in a path is an id of the wrong shape, a 404, and no redirection.
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.extensions["console"] = console
    app.register_blueprint(routes)
    app.register_blueprint(pages)
    app.register_error_handler(Problem, _problem)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(psycopg.OperationalError, _database_away)
    app.register_error_handler(PoolTimeout, _database_away)
    app.register_error_handler(Exception, _bug)

    @app.before_request
    def take_in_body() -> None:
        # To answer before all of a request was read makes the server close the connection without a word,
        # and the next request that its client sends there fails.
        request.get_data()

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "no-store")
        route = str(request.url_rule) if request.url_rule else "none"
        console.metrics.count(_known_method(), route, response.status_code, g.get("outcome", "ok"))
        return response

    return app


def _problem(problem: Problem) -> Response:
    g.outcome = problem.code
    return Response(problem.body(), problem.status, problem.headers, content_type=MEDIA_TYPE)


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    problem = Problem(status, _CODES.get(status, "http_error"), error.description or error.name)
    problem.headers.update({name: value for name, value in error.get_headers() if name == "Allow"})
    if (
        not request.path.startswith(_JSON)
        and request.accept_mimetypes.best_match([MEDIA_TYPE, "text/html"]) == "text/html"
    ):
        return rendering.finish(rendering.not_done(problem))
    return _problem(problem)


def _database_away(_error: Exception) -> Response:
    _log.warning("PostgreSQL is away", route=str(request.url_rule))
    return _problem(Problem(503, "database_away", "PostgreSQL does not answer right now", retry_after_s=1))


def _bug(error: Exception) -> Response:
    _log.error("unexpected error", route=str(request.url_rule), exc_info=error)
    return _problem(Problem(500, "internal_error", "this should not have happened; it is in the log"))


def _known_method() -> str:
    # A caller can invent methods; each would be a time series of its own for ever.
    return request.method if request.method in _METHODS else "other"
