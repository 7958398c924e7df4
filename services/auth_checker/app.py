"""The Flask app: everything but the plain questions of the fast lane, and all that is said about bad requests."""

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from schemas.problems import MAX_BODY_BYTES, MEDIA_TYPE, Problem
from services.auth_checker.routes import Service, routes

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_log = structlog.get_logger("keyledger.auth_checker")


def create_app(service: Service) -> Flask:
    """A WSGI app around these collaborators."""
    app = Flask("keyledger-auth-checker", static_folder=None)
    app.url_map.merge_slashes = False  # `//` in a path is an id of the wrong shape, a 404, and no redirection.
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES, PROVIDE_AUTOMATIC_OPTIONS=False)
    app.extensions["auth_checker"] = service
    app.register_blueprint(routes)
    app.register_error_handler(Problem, _problem)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _bug)

    @app.before_request
    def take_in_body() -> None:
        # To answer before all of a request was read makes the server close the connection without a word,
        # and the next request that its client sends there fails.
        request.get_data()

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return app


def _problem(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, problem.headers, content_type=MEDIA_TYPE)


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    problem = Problem(status, _CODES.get(status, "malformed"), error.description or error.name)
    problem.headers.update({name: value for name, value in error.get_headers() if name == "Allow"})
    return _problem(problem)


def _bug(error: Exception) -> Response:
    _log.error("unexpected_error", exc_info=error)
    return _problem(Problem(500, "internal_error", "this should not have happened; it is in the log"))
