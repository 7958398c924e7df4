"""Two command APIs on a real broker, eight threads, two organisations: every rule holds though they race."""

import hashlib
import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from schemas.codec import canonical
from services.ledger.kafka_log import KafkaLog
from services.ledger.preflight import prepare
from services.ledger.seal import new_keys
from tests.integration.command_log import events_of
from tests.integration.command_parts import CommandWorld, running_command_api
from tests.integration.pulsing import floors_of, pulsing
from tests.waiting import eventually

THREADS, COMMANDS_EACH, MOST_KEYS = 8, 80, 4
NAMES = ["a", "b", "c", "d", "e", "f"]


@pytest.fixture
def pair(kafka_bootstrap: str, tmp_path: Path) -> Iterator[tuple[CommandWorld, CommandWorld]]:
    """Two command APIs with stores and connections of their own, and people whom both know.

    With ledger keys of their own, all that others wrote to these topics is foreign to them.
    """
    prepare(kafka_bootstrap)
    keys = new_keys()
    with ExitStack() as opened:
        worlds = []
        for name in ("one", "two"):
            log = KafkaLog(kafka_bootstrap, name)
            opened.callback(log.close)
            worlds.append(opened.enter_context(running_command_api(tmp_path / name, log, keys, MOST_KEYS)))
        one, two = worlds
        two.beside.signing = one.beside.signing
        yield one, two


def test_two_command_apis_race_and_every_answer_is_an_applied_event(pair: tuple[CommandWorld, CommandWorld]):
    teams = [Team(pair[0], f"race-{token_hex(6)}") for _ in range(2)]
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")

    def work(number: int) -> set[tuple[str, int]]:
        chance, answered = random.Random(seed + number), set()
        for _ in range(COMMANDS_EACH):
            team = chance.choice(teams)
            revision = team.act(pair[number % 2], chance)
            if revision is not None:
                answered.add((team.org, revision))
        return answered

    with ThreadPoolExecutor(THREADS) as pool:
        answered = set().union(*pool.map(work, range(THREADS)))
    voids = 0
    for team in teams:
        events = events_of(pair[0].log, team.org)
        applied = chain(events)
        voids += len(events) - len(applied)
        check_invariants(applied)
        commanded = {event["revision"] for event in applied} - team.prepared
        assert {revision for org, revision in answered if org == team.org} - team.prepared == commanded
        for world in pair:
            eventually(lambda: world.head(team.org).revision == len(applied), 10, "all is applied")  # noqa: B023
            assert world.head(team.org).hash == digest(applied[-1])
    races_lost = pair[0].appender.races_lost + pair[1].appender.races_lost
    print(f"{len(answered)} revisions answered, {voids} void")
    assert voids == races_lost
    assert voids >= 20, "they did not race, so this run shows nothing"


class Team:
    """An organisation, the token of its admin, and the ids of its keys as they become known."""

    def __init__(self, world: CommandWorld, org: str) -> None:
        self.org, self.keys, self.admin = org, ["x" * 22], world.org(org)
        self.prepared = set(range(1, world.head(org).revision + 1))

    def act(self, world: CommandWorld, chance: random.Random) -> int | None:
        """One command by chance; the revision it was answered with, None for a refusal by a rule."""
        path, name = f"/v1/orgs/{self.org}/keys", chance.choice(NAMES)
        key = f"{path}/{chance.choice(self.keys[-8:])}"
        method, path, body = chance.choice(
            [("POST", path, {"name": name}), ("PATCH", key, {"name": name}), ("DELETE", key, {})]
        )
        answer = world.call(method, path, self.admin, body)
        assert answer.status_code in (200, 201, 404, 409), answer.get_data(as_text=True)
        if answer.status_code == 201:
            self.keys.append(answer.get_json()["key_id"])
        return answer.get_json()["revision"] if answer.status_code < 300 else None


def digest(event: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(event)).hexdigest()


def chain(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events that extend the head, in the order of the log; the others lost a race."""
    applied: list[dict[str, Any]] = []
    for event in events:
        parent = digest(applied[-1]) if applied else "0" * 64
        if (event["revision"], event["parent"]) == (len(applied) + 1, parent):
            applied.append(event)
    return applied


def check_invariants(applied: list[dict[str, Any]]) -> None:
    """Names are unique among active keys, nobody has too many, and a key is revoked once."""
    names: dict[str, str] = {}
    for event in applied:
        data = event["data"]
        if event["type"] in ("KeyCreated", "KeyRenamed"):
            names[data["key_id"]] = data["name"]
        elif event["type"] == "KeyRevoked":
            del names[data["key_id"]]
        assert len(names) == len(set(names.values())) <= MOST_KEYS


def test_with_a_real_broker_a_revocation_is_in_effect_within_moments(kafka_bootstrap: str, tmp_path: Path):
    prepare(kafka_bootstrap)
    keys, log = new_keys(), KafkaLog(kafka_bootstrap, "effects")
    with closing(log), running_command_api(tmp_path, log, keys) as world, pulsing(log, keys):
        org = f"effects-{token_hex(6)}"
        admin, took_s = world.org(org), []
        for number in range(20):
            key = world.key(org, admin, f"key {number}")["key_id"]
            begun = time.monotonic()
            answer = world.done("DELETE", f"/v1/orgs/{org}/keys/{key}", admin)
            took_s.append(time.monotonic() - begun)
            assert answer["effective"] is True
            assert world.done("GET", f"/v1/orgs/{org}/effects/{answer['revision']}", admin)["effective"] is True
        print(
            f"{1000 * statistics.median(took_s):.1f} ms from request to effective, median; {1000 * max(took_s):.1f} at most"
        )
        assert statistics.median(took_s) < 1
        assert [floor.number for floor in floors_of(log, keys)] == list(range(1, 21))
