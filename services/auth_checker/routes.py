"""One view per call. The door is passed before a body is read."""

from dataclasses import dataclass, replace
from typing import Any, Final

from flask import Blueprint, Response, current_app, request

from schemas import validation
from schemas.codec import canonical
from schemas.fields import SCOPE
from schemas.openapi import Operation, document
from schemas.problems import Problem, malformed
from services.auth_checker import bodies, forward_auth, introspection, metrics
from services.auth_checker.callers import Callers
from services.auth_checker.doors import Door
from services.auth_checker.forward_auth import ForwardAuth
from services.auth_checker.handler import Checker
from services.auth_checker.index_reader import IndexReader
from services.auth_checker.metrics import Metrics

routes = Blueprint("auth_checker", __name__)
_LEAST_ROOM_BYTES: Final = 128 * 1024
"""About what a worker puts into the spool at once: with less room it is as good as full."""
_ASKED_REFUSALS: Final = (400, 401, 413, 415, 503)
OPERATIONS: Final = (
    Operation(
        "POST",
        "/v1/validations",
        "Is this key good?",
        {200: validation.ValidationAnswer},
        _ASKED_REFUSALS,
        validation.ValidationRequest,
    ),
    Operation(
        "POST",
        "/v1/validations/batch",
        "At most 100 validations from one moment",
        {200: validation.BatchAnswer},
        _ASKED_REFUSALS,
        validation.BatchRequest,
    ),
    Operation(
        "POST",
        "/v1/callers",
        "Who is behind this bearer token?",
        {200: validation.CallerAnswer},
        _ASKED_REFUSALS,
        validation.CallerRequest,
    ),
    Operation(
        "GET",
        forward_auth.PATH,
        "Forward auth: may this request pass?",
        {204: None, **dict.fromkeys((400, 401, 403, 503))},
        (),
        query={"scope": {"type": "array", "items": {"type": "string", "pattern": f"^{SCOPE}$"}, "maxItems": 50}},
        headers={"X-API-Key": {"type": "string"}, "Keyledger-Caller": {"type": "string"}},
    ),
    Operation(
        "POST",
        "/introspect",
        "Describe a key, RFC 7662",
        {200: validation.IntrospectionAnswer},
        _ASKED_REFUSALS,
        validation.IntrospectionRequest,
        body_type=introspection.MEDIA_TYPE,
    ),
    Operation("GET", "/healthz", "Alive", {200: None}, (), secured=False),
    Operation("GET", "/readyz", "Caught up with the ledger", {200: None}, (503,), secured=False),
    Operation("GET", "/metrics", "Figures for Prometheus", {200: None}, (), secured=False),
    Operation("GET", "/openapi.json", "This document", {200: None}, (), secured=False),
)


@dataclass(frozen=True, slots=True)
class Service:
    """All that the views use, made in `__main__`."""

    reader: IndexReader
    checker: Checker
    callers: Callers
    door: Door
    metrics: Metrics
    forward_auth: ForwardAuth


@routes.post("/v1/validations")
def validate() -> Response:
    """Judge one key; `fast_lane` answers most of these before they come here."""
    home = _enter()
    asked = bodies.question(*_body())
    _stay_home(home, asked)
    return _answer(_service().checker.validate(asked))


@routes.post("/v1/validations/batch")
def validate_batch() -> Response:
    """Judge up to 100 keys at one moment of the ledger."""
    home = _enter()
    asked = bodies.questions(*_body())
    for one in asked:
        _stay_home(home, one)
    return _answer(bodies.BatchOfAnswers(_service().checker.validate_all(asked)))


@routes.post("/v1/callers")
def caller() -> Response:
    """Tell who sent a request to one of our services."""
    home = _enter()
    asked = bodies.caller_question(*_body())
    _stay_home(home, asked)
    return _answer(_service().callers.caller(asked))


@routes.get(forward_auth.PATH)
def authorize() -> Response:
    """Judge the request that a reverse proxy holds; `fast_lane` answers it before it comes here."""
    status, headers = _service().forward_auth(request.environ)
    response = Response(status=status, headers=headers)
    del response.headers["Content-Type"]  # There is no body that it could tell about.
    return response


@routes.post("/introspect")
def introspect() -> Response:
    """Describe a key to a service that speaks RFC 7662."""
    _enter()
    asked = introspection.question(*_body())
    return _json(canonical(introspection.description(_service().checker.validate(asked))))


@routes.get("/healthz")
def alive() -> Response:
    """The process answers."""
    return _json(canonical({"status": "alive"}))


@routes.get("/readyz")
def ready() -> Response:
    """The index may be believed, and uses find room. Raises Problem 503 with the reason; both tell what the spool holds."""
    spool = _service().metrics.spool()
    records, bytes_, age_ms = int(spool["records"]), int(spool["bytes"]), round(spool["age_s"] * 1000)
    why = _service().reader.why_stale()
    if why is None and spool["room"] < _LEAST_ROOM_BYTES:
        why = "the spool is full: uses are kept in memory, and answers will be refused when that is full too"
    if why is not None:
        if records:
            why += f"; {records} records of {bytes_} bytes wait in the spool, the oldest for {age_ms} ms"
        raise Problem(503, "not_ready", why, retry_after_s=1)
    return _json(canonical({"status": "ready", "spool": {"records": records, "bytes": bytes_, "age_ms": age_ms}}))


@routes.get("/metrics")
def figures() -> Response:
    """Figures for Prometheus."""
    return Response(_service().metrics.text(), content_type=metrics.MEDIA_TYPE)


@routes.get("/openapi.json")
def openapi() -> Response:
    """What this service can be asked; on loopback nothing asks for a credential, and the document says so."""
    guarded = _service().door.is_guarded
    operations = [replace(operation, secured=operation.secured and guarded) for operation in OPERATIONS]
    return _json(canonical(document("Keyledger auth checker", operations)))


def _enter() -> str | None:
    return _service().door.enter(request.headers.get("Authorization"))


def _stay_home(home: str | None, asked: bodies.Asked | bodies.AskedCaller) -> None:
    """Whoever came in by an organisation's API key learns nothing about how far another one's ledger is."""
    if home is None or home == validation.PLATFORM or asked.min_revision is None:
        return
    if bodies.place(asked.min_revision)[0] != home:
        raise malformed("min_revision names another organisation", ("/min_revision", "is not of this organisation"))


def _body() -> tuple[bytes, str]:
    return request.get_data(cache=False), request.mimetype


def _answer(answer: Any) -> Response:
    return _json(bodies.encode(answer))


def _json(body: bytes) -> Response:
    return Response(body, content_type="application/json")


def _service() -> Service:
    service: Service = current_app.extensions["auth_checker"]
    return service
