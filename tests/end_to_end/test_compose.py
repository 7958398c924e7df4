"""`docker compose up --wait` brings up the system of compose.yaml from images, and the main job works there."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from services.embedded.kafka_jars import docker_answers
from services.embedded.ports import free_ports
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
UP_S = 900.0
_HTTP = urllib3.PoolManager(timeout=urllib3.Timeout(15.0), retries=False)
PORTS = {"console": "CONSOLE_PORT", "command": "COMMAND_PORT", "read": "READ_PORT", "checker": "CHECKER_PORT"}


class Composed:
    """One project of docker compose, on ports of its own."""

    def __init__(self) -> None:
        self.project = f"keyledger-test-{secrets.token_hex(4)}"
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))

    def compose(self, *words: str, within_s: float = 120.0) -> str:
        """What a compose command printed; AssertionError with all of it when it failed."""
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.project, *words],
            cwd=ROOT,
            # The classic builder needs no plugin, and both make the same image of this Dockerfile.
            env=os.environ | {PORTS[name]: str(port) for name, port in self.ports.items()} | {"DOCKER_BUILDKIT": "0"},
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {' '.join(words)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def call(self, service: str, method: str, path: str, body: Any = None, token: str = "") -> Any:
        """The JSON of an answer, which must be a success."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        response = _HTTP.request(method, f"http://127.0.0.1:{self.ports[service]}{path}", json=body, headers=headers)
        assert response.status in {200, 201}, response.data
        return response.json()

    def first_people(self) -> list[Any]:
        """The entries of the console's log that hold the first passwords."""
        lines = self.compose("logs", "--no-log-prefix", "--no-color", "console").splitlines()
        # Some versions of compose write terminal codes before each line, asked not to colour or not.
        entries = [json.loads(line[line.index("{") :]) for line in lines if line.endswith("}")]
        return [entry for entry in entries if "demo" in entry and "operator" in entry]


@pytest.fixture
def composed() -> Iterator[Composed]:
    """The system, up and healthy; afterwards nothing of it is left."""
    if not docker_answers():
        pytest.skip("no Docker engine answers, and compose.yaml needs one; in CI a skip is a failure")
    made = Composed()
    try:
        made.compose("up", "--wait", "--build", "--quiet-pull", within_s=UP_S)
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "20")


def test_the_main_job_works_on_the_composed_system(composed: Composed) -> None:
    (people,) = eventually(composed.first_people, 60, "the first passwords to be in the console's log")
    demo = people["demo"]
    tokens = {
        role: composed.call(
            "console", "POST", "/v1/sessions", {name: demo[role][name] for name in ("email", "password")}
        )["token"]
        for role in ("member", "admin")
    }
    created = composed.call("command", "POST", "/v1/orgs/demo/keys", {"name": "nightly import"}, tokens["member"])
    assert _code(composed, created) == "VALID"
    eventually(lambda: _row(composed, tokens["admin"], created)["last_used_at"], 15, "the last use to be listed")
    composed.call("command", "DELETE", f"/v1/orgs/demo/keys/{created['key_id']}", token=tokens["admin"])
    assert eventually(lambda: (code := _code(composed, created)) != "VALID" and code, 10, "a refusal") == "REVOKED"
    path = f"/v1/orgs/demo/keys/{created['key_id']}/history"

    def told() -> list[tuple[str, str | None]]:
        items = composed.call("read", "GET", path, token=tokens["admin"])["items"]
        return [(item["type"], item["data"].get("outcome")) for item in items]

    whole = [("KeyCreated", None), ("KeyUsed", "VALID"), ("KeyRevoked", None), ("KeyUsed", "REVOKED")]
    eventually(lambda: told() == whole, 15, f"the history to be {whole}, not {told()}")


def _code(composed: Composed, created: Any) -> str:
    question = {"key": created["key"], "min_revision": f"demo:{created['revision']}"}
    headers = {"Authorization": f"Bearer {os.environ.get('CHECKER_TOKEN', 'for-demonstration')}"}
    url = f"http://127.0.0.1:{composed.ports['checker']}/v1/validations"
    return str(_HTTP.request("POST", url, json=question, headers=headers).json()["code"])


def _row(composed: Composed, token: str, created: Any) -> Any:
    items = composed.call("read", "GET", f"/v1/orgs/demo/keys?min_revision={created['revision']}", token=token)["items"]
    return next(item for item in items if item["key_id"] == created["key_id"])
