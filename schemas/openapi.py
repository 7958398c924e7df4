"""OpenAPI 3.1 documents made from marshmallow schemas, so that what is documented is what is checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from schemas import problems


@dataclass(frozen=True, slots=True)
class Operation:
    """One call. `path` is in OpenAPI's form, `/v1/orgs/{org}`; path parameters are texts.

    `answers` maps a status to its schema, None for no body; `refusals` are the statuses answered as problems;
    `query` maps a query parameter to its JSON schema; `headers` likewise for request headers. `body_type` is the media
    type of the body.
    """

    method: str
    path: str
    summary: str
    answers: dict[int, type[Schema] | Schema | None]
    refusals: Sequence[int] = (400, 401, 403, 404, 503)
    body: type[Schema] | Schema | None = None
    body_is_list: bool = False
    body_type: str = "application/json"
    query: dict[str, dict[str, Any]] = field(default_factory=dict)
    headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    secured: bool = True


_JSON: Final = "application/json"


def document(title: str, operations: Sequence[Operation], version: str = "1") -> dict[str, Any]:
    """The OpenAPI document of a service."""
    spec = APISpec(
        title=title,
        version=version,
        openapi_version="3.1.0",
        plugins=[MarshmallowPlugin(schema_name_resolver=_name)],
    )
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    for path, by_method in paths.items():
        spec.path(path=path, operations=by_method)
    return spec.to_dict()


def _name(schema: Any) -> str:
    name = schema.__name__ if isinstance(schema, type) else type(schema).__name__
    return str(name)


def _operation(operation: Operation) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        content = {} if answer is None else {"content": {_JSON: {"schema": answer}}}
        answers[str(status)] = {"description": "done", **content}
    for status in operation.refusals:
        content = {"content": {problems.MEDIA_TYPE: {"schema": problems.ProblemBody}}}
        answers[str(status)] = {"description": problems.TITLES[status], **content}
    made: dict[str, Any] = {"summary": operation.summary, "responses": answers, "parameters": _parameters(operation)}
    if operation.body is not None:
        schema: Any = {"type": "array", "items": operation.body} if operation.body_is_list else operation.body
        made["requestBody"] = {"required": False, "content": {operation.body_type: {"schema": schema}}}
    if operation.secured:
        made["security"] = [{"bearer": []}]
    return made


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    steps = [step[1:-1] for step in operation.path.split("/") if step.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": step, "in": "path", "required": True, "schema": {"type": "string"}} for step in steps
    ]
    for place, named in (("query", operation.query), ("header", operation.headers)):
        parameters += [{"name": name, "in": place, "schema": schema} for name, schema in named.items()]
    return parameters
