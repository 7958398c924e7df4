"""No key, password or token is stored or said anywhere, also when things go wrong around it.

The system is the one that all stories of this folder used, so what they left behind is searched too.
"""

import base64
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3
from kafka import KafkaProducer

from schemas import key_text
from schemas.topics import TOPICS
from tests.end_to_end.system import System
from tests.fault.organisation import Org
from tests.leaks import Search, files, records, search_everything, secret_part, tables
from tests.waiting import eventually

_RAW = urllib3.PoolManager(timeout=urllib3.Timeout(15.0), retries=False)


@pytest.fixture(scope="module")
def canary(system: System) -> str:
    """A text that stands in every store: plain, in base64 and in hex, brought there as any name would be."""
    text = f"canary_{secrets.token_hex(8)}"
    org = Org(system, f"leaks-{secrets.token_hex(3)}")
    for form in (text, base64.b64encode(f"x{text}".encode()).decode(), text.encode().hex()):
        made = org.create("admin", f"named {form}")
    _tell_everything_wrong(system, org)
    producer = KafkaProducer(bootstrap_servers=system.broker.bootstrap)
    for topic in (one.name for one in TOPICS):
        producer.send(topic, text.encode(), text.encode(), [("canary", text.encode())], partition=0).get(10)
    producer.close()
    for log in _logs(system):
        with log.open("a") as file:
            file.write(f'{{"event": "planted", "canary": "{text}"}}\n')
    # What was just written has to arrive everywhere before anything is searched.
    path = f"/keys/{made['key_id']}?min_revision={made['revision']}"
    eventually(lambda: org.read(path).status == 200, 60, "the reads to work again")
    eventually(lambda: ("KeyUsed", "VALID") in _used(org), 60, "the uses to be in the tables")
    return text


def test_no_secret_stands_in_any_store_record_log_or_file(system: System, canary: str) -> None:
    searched = search_everything(system)
    print(f"\n{searched}")
    assert searched.secrets >= 20
    assert searched.found == []


def test_the_search_sees_the_canary_in_every_topic(system: System, canary: str) -> None:
    found = {place for place, data in records(system.broker.bootstrap) if Search([canary]).find(data)}
    assert {f"topic {topic.name}" for topic in TOPICS} <= found


def test_the_search_sees_the_canary_in_tables_as_text_and_as_bytes(system: System, canary: str) -> None:
    found = {place for place, data in tables(system.database.url) if Search([canary]).find(data)}
    assert {"table read.keys", "table read.ledger_records"} <= found
    with psycopg.connect(system.database.url) as connection:
        kinds = connection.execute(
            "SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns"
            " WHERE table_schema = 'read'"
        ).fetchall()
    assert {("keys.name text",), ("ledger_records.value bytea",)} <= set(kinds)


def test_the_search_sees_the_canary_in_every_lmdb_and_every_log(system: System, canary: str) -> None:
    found = {
        Path(place.removeprefix("file ")) for place, data in files(system.config.var) if Search([canary]).find(data)
    }
    # Of the processes that run; a spool holds the uses that are not sent yet, so by now nothing.
    paths = [path.relative_to(system.config.var) for path in system.config.var.rglob("data.mdb")]
    stores = {path for path in paths if path.parts[0] in system.processes and path.parent.name != "spool"}
    logs = {path.relative_to(system.config.var) for path in _logs(system)}
    assert len(stores) >= 3  # Two command APIs and a checker.
    assert len(logs) > len(system.programs)
    assert stores | logs <= found


def _tell_everything_wrong(system: System, org: Org) -> None:
    """Keys and passwords in all the right places, then in all the wrong ones, then while this or that is away."""
    key = org.create("admin", "used")["key"]
    again = {"name": "again", "scopes": ["keys:read", "keys:write"]}
    for _ in range(2):
        org.call("admin", "POST", f"{org.path}/keys", again, Idempotency_Key="again")
    scoped = org.made("admin", "POST", f"{org.path}/keys", again | {"name": "scoped"})["key"]
    system.validates_as(key, "VALID")
    wrong = [key[:-1] + ("0" if key[-1] != "0" else "1"), key_text.compose(key.split("_")[1], secrets.token_bytes(32))]
    system.issued.update(wrong)
    assert [system.validate(text)["code"] for text in wrong] == ["MALFORMED", "NOT_FOUND"]
    _passwords(system, org)
    calls = [("command", "/v1/orgs"), ("read", "/v1/orgs"), ("checker", "/v1/validations"), ("console", "/v1/me")]
    for text in (key, *wrong, scoped, system.token("member")):
        for service, path in calls:
            _everywhere(system, service, path, text)
    with _away(system, "checker"):
        assert org.system.call("command", "POST", f"{org.path}/keys", {"name": "n"}, scoped).status == 503
        assert system.call("read", "GET", f"{org.path}/keys", token=scoped).status == 503
        for service, path in calls[:2]:
            _everywhere(system, service, path, scoped)
    with _away(system, "database"):
        assert system.call("read", "GET", f"{org.path}/keys", token=scoped).status == 503
        _sign_in(system, f"admin@{org.id}.test", f"not the password {secrets.token_hex(4)}")
        for service, path in (("console", "/v1/me"), ("read", org.path), ("read", f"{org.path}/keys")):
            _everywhere(system, service, path, scoped)
    with _away(system, "broker"):
        assert org.call("admin", "POST", f"{org.path}/keys", {"name": "while away"}).status == 503
        eventually(lambda: system.validate(key)["code"] == "STALE", 30, "the checker to be stale")
        for service, path in calls:
            _everywhere(system, service, path, scoped)
    system.validates_as(key, "VALID")


def _passwords(system: System, org: Org) -> None:
    """Chosen, temporary, changed, reset, wrong, and where a password does not belong."""
    admin = org.token("admin")
    person = {"name": "P", "email": f"p@{org.id}.test", "kind": "person", "role": "member"}
    added = system.call("console", "POST", f"{org.path}/users", person, admin)
    assert added.status == 201, added
    temporary = added.json["temporary_password"]
    token = eventually(lambda: _sign_in(system, person["email"], temporary), 15, "the person to sign in")
    change = {"old": temporary, "new": f"chosen-{secrets.token_hex(6)}"}
    assert system.call("console", "POST", "/v1/me/password", change, token).status == 200
    assert system.call("console", "POST", "/v1/me/password", change | {"new": "short"}, token).status == 400
    assert system.call("console", "POST", "/v1/me/password", change | {"more": 1}, token).status == 400
    assert not _sign_in(system, person["email"], f"guessed-{secrets.token_hex(6)}")
    reset = system.call("console", "POST", f"{org.path}/users/{added.json['user_id']}/password-reset", {}, admin)
    assert reset.status == 200, reset
    assert _sign_in(system, person["email"], reset.json["temporary_password"])
    for text in (change["new"], reset.json["temporary_password"]):
        _everywhere(system, "console", "/v1/sessions", text)


def _everywhere(system: System, service: str, path: str, text: str) -> None:
    """Send a secret in body, header, query and path of a call, well-formed and not; every answer is a 2xx, 4xx or 503."""
    url, json = system.urls[service][0], {"Content-Type": "application/json"}
    bearer, quoted = {"Authorization": f"Bearer {text}"}, f'"{text}"'
    requests: list[tuple[str, str, Any, dict[str, str]]] = [
        ("POST", path, f'{{"name": {quoted}, "password": {quoted}, "unknown": {quoted}, {quoted}: 1}}', json | bearer),
        ("POST", path, f'{{"key": {quoted}', json | bearer),
        ("POST", path, f'{{"key": [{quoted}]}}', json),
        ("POST", path, text, {"Content-Type": "text/plain"}),
        ("GET", f"{path}?limit={text}&{text}=1&min_revision={text}", None, bearer),
        ("GET", f"/v1/orgs/{text}/keys/{text}", None, bearer),
        ("DELETE", path, None, bearer | {"Idempotency-Key": text + " x", "X-API-Key": text, "traceparent": text}),
        ("GET", "/v1/authorize", None, {"Authorization": f"Basic {text}", "X-API-Key": text}),
    ]
    for method, target, body, headers in requests:
        response = _RAW.request(method, url + target, body=body, headers=headers)
        assert response.status in {200, 202, 204, 503} or 400 <= response.status < 500, (
            method,
            target,
            response.status,
        )


def _sign_in(system: System, email: str, password: str) -> str:
    answer = system.call("console", "POST", "/v1/sessions", {"email": email, "password": password})
    return str(answer.json["token"]) if answer.status == 201 else ""


@contextmanager
def _away(system: System, what: str) -> Iterator[None]:
    """Stop the checker, the database or the broker for the length of a `with`, and wait until all is well again."""
    if what == "checker":
        system.end("auth_checker", signal.SIGTERM)
    else:
        getattr(system, what).stop()
    try:
        yield
    finally:
        if what == "checker":
            system.spawn("auth_checker")
        else:
            getattr(system, what).start()
        for name in system.processes:
            system.wait_ready(name)


def _logs(system: System) -> list[Path]:
    """What each process wrote on standard output and standard error."""
    var = system.config.var
    return [*(var / "log").glob("*.log"), var / "kafka" / "broker.log", var / "postgres" / "server.log"]


def _used(org: Org) -> set[tuple[str, str | None]]:
    listed = org.read("/keys?limit=200").json["items"]
    key_id = next(item["key_id"] for item in listed if item["name"] == "used")
    items = org.read(f"/keys/{key_id}/history").json["items"]
    return {(item["type"], item["data"].get("outcome")) for item in items}


def test_what_is_searched_for_is_the_secret_part(system: System, canary: str) -> None:
    keys = [text for text in system.issued if text.startswith("kl_")]
    assert keys
    assert {len(secret_part(text)) for text in keys} == {43}
