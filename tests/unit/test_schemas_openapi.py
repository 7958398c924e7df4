"""The OpenAPI document: valid, complete, and made from the schemas that check the bodies."""

from typing import Any

import jsonschema_rs
from marshmallow import Schema
from schemathesis.specs.openapi.definitions import OPENAPI_31

from schemas import fields
from schemas.openapi import Operation, document


class NewThing(Schema):
    """What is sent."""

    name = fields.plain(100, required=True)
    scopes = fields.items(fields.text("[a-z]{1,64}", 64), 50)
    kind = fields.one_of(["a", "b"])
    count = fields.whole(1, 9)


class Thing(NewThing):
    """What is answered."""

    revision = fields.whole(1, required=True)


OPERATIONS = [
    Operation("POST", "/v1/orgs/{org}/things", "Make a thing", {201: Thing}, body=NewThing),
    Operation(
        "GET", "/v1/orgs/{org}/things", "List", {200: Thing}, query={"limit": {"type": "integer", "maximum": 200}}
    ),
    Operation("POST", "/v1/many", "Many", {202: None}, refusals=(400, 413), body=NewThing, body_is_list=True),
    Operation(
        "GET", "/healthz", "Alive", {200: None}, refusals=(), secured=False, headers={"Prefer": {"type": "string"}}
    ),
]
DOCUMENT = document("Things", OPERATIONS)


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(_references, node.values()))
    return set().union(*map(_references, node)) if isinstance(node, list) else set()


def test_the_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert [str(error) for error in jsonschema_rs.validator_for(OPENAPI_31).iter_errors(DOCUMENT)] == []


def test_every_reference_leads_to_a_valid_schema() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert _references(DOCUMENT) == {f"#/components/schemas/{name}" for name in schemas}
    assert set(schemas) == {"NewThing", "Thing", "ProblemBody", "FieldError"}
    for schema in schemas.values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_the_rules_of_the_fields_stand_in_the_document() -> None:
    properties = DOCUMENT["components"]["schemas"]["NewThing"]["properties"]
    assert properties["name"]["maxLength"] == 100
    assert properties["kind"]["enum"] == ["a", "b"]
    assert (properties["count"]["minimum"], properties["count"]["maximum"]) == (1, 9)
    assert properties["scopes"]["maxItems"] == 50
    assert properties["scopes"]["items"]["pattern"] == "^(?:[a-z]{1,64})$"
    assert DOCUMENT["components"]["schemas"]["NewThing"]["required"] == ["name"]


def test_each_call_tells_its_answers_refusals_and_parameters() -> None:
    things = DOCUMENT["paths"]["/v1/orgs/{org}/things"]
    assert set(things) == {"post", "get"}
    assert set(things["post"]["responses"]) == {"201", "400", "401", "403", "404", "503"}
    assert things["post"]["security"] == [{"bearer": []}]
    assert [(one["name"], one["in"]) for one in things["get"]["parameters"]] == [("org", "path"), ("limit", "query")]
    many = DOCUMENT["paths"]["/v1/many"]["post"]
    assert many["requestBody"]["content"]["application/json"]["schema"]["type"] == "array"
    assert set(many["responses"]) == {"202", "400", "413"}
    assert "security" not in DOCUMENT["paths"]["/healthz"]["get"]
