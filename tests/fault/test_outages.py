"""Kafka or PostgreSQL goes away and comes back, none of our processes is restarted; and projectors in each other's way."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from subprocess import Popen
from threading import Event

import pytest
import urllib3

from schemas.topics import PARTITIONS, partition_of
from services.embedded.ports import free_ports
from services.embedded.processes import Program
from tests.end_to_end.system import Answer, System
from tests.fault.organisation import FULL, Org
from tests.fault.readers import Ledgers, all_agree
from tests.fault.running import kill_all, pids, restart
from tests.waiting import eventually

MAX_STALENESS_S = 2.0
OUTAGES = 5 if FULL else 1
THREADS = 4


def test_commands_and_validations_recover_alone_when_kafka_was_killed(system: System) -> None:
    """503 with a code and Retry-After while it is away, VALID for M and then STALE; each command is done exactly once."""
    org = Org(system, "kafka-away")
    keys = [org.create("admin", f"key {number}") for number in range(THREADS)]
    before, stop, refused, renamed = pids(system), Event(), Counter[str](), Counter[str]()

    def keep_renaming(thread: int) -> None:
        path, numbers = f"{org.path}/keys/{keys[thread]['key_id']}", count()
        while not stop.is_set():
            name = f"name-{thread}.{next(numbers)}"

            def attempt(name: str = name) -> bool:
                answer = org.call("admin", "PATCH", path, {"name": name}, thread % 2, Idempotency_Key=name)
                if answer.status == 503:
                    assert int(answer.headers["Retry-After"]) >= 1, answer
                    refused[answer.json["code"]] += 1
                elif answer.status != 200:
                    raise RuntimeError(answer)
                return answer.status == 200

            eventually(attempt, 60, f"{name} to be accepted")
            renamed[name] += 1

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(keep_renaming, thread) for thread in range(THREADS)]
        try:
            for number in range(OUTAGES):
                eventually(partial(_more_than, renamed, 20 * (number + 1)), 30, "commands to be under way")
                _one_kafka_outage(system, org, keys[0]["key"])
        finally:
            stop.set()
        for done in running:
            done.result()
    assert pids(system) == before, "no process was restarted"
    assert refused.keys() <= {"log_unavailable", "outcome_unknown", "busy"}
    assert refused, "no command was refused: Kafka was not away for them"
    events = Ledgers(system).events(org.id)
    names = Counter(event["data"]["name"] for event in events if event["type"] == "KeyRenamed")
    assert names == renamed, "each rename is in the ledger once"
    assert org.answered == {event["revision"] for event in events}
    all_agree(system)
    print(f"kafka: {len(renamed)} commands, each once, over {OUTAGES} outages; refused meanwhile: {dict(refused)}")


def _more_than(renamed: Counter[str], number: int) -> bool:
    return len(renamed) > number


def _one_kafka_outage(system: System, org: Org, key: str) -> None:
    system.validates_as(key, "VALID")
    system.broker.kill()
    away_at, last_valid_s, valid = time.monotonic(), 0.0, 0
    while True:
        asked_s = time.monotonic() - away_at
        code = system.validate(key)["code"]
        if code == "STALE":
            break
        assert code == "VALID"
        assert asked_s <= MAX_STALENESS_S, f"VALID to a question {asked_s:.2f} s after Kafka went away"
        last_valid_s, valid = asked_s, valid + 1
    assert valid, "no validation was answered VALID while Kafka was away"
    for service, at in (("command", 0), ("command", 1), ("checker", 0)):
        eventually(partial(_is_unready, system, service, at), 15, f"{service} to say it is not ready")
    refused = eventually(lambda: _refused(org), 15, "a command to be refused")
    system.broker.start()
    back_at = time.monotonic()
    system.validates_as(key, "VALID")
    valid_again_s = time.monotonic() - back_at
    eventually(lambda: _renamed(org, 0) and _renamed(org, 1), 30, "both command APIs to work again")
    print(
        f"\nkafka killed: VALID {valid} times, last {last_valid_s:.2f} s after; then STALE; commands {refused};"
        f" back: VALID after {valid_again_s:.1f} s, both command APIs after {time.monotonic() - back_at:.1f} s"
    )


def _is_unready(system: System, service: str, at: int) -> bool:
    answer = system.call(service, "GET", "/readyz", at=at)
    return answer.status == 503 and bool(answer.json["code"])


def _refused(org: Org) -> str:
    answer = org.call("admin", "PUT", f"{org.path}/keys-enabled", {"enabled": True})
    return str(answer.json["code"]) if answer.status == 503 else ""


def _renamed(org: Org, at: int) -> bool:
    return org.call("admin", "PUT", f"{org.path}/keys-enabled", {"enabled": True}, at).status == 200


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_only_reads_suffer_while_postgresql_is_away(system: System, how: str) -> None:
    """Commands and validations go on, reads answer 503, and afterwards the projector catches up by itself."""
    org = Org(system, f"postgres-{how}")
    first = org.create("admin", "before")
    system.validates_as(first["key"], "VALID")
    before = pids(system)
    getattr(system.database, how)()
    began = time.monotonic()
    try:
        read = eventually(lambda: _is_503(org.read()), 15, "reads to be refused")
        console = eventually(lambda: _is_503(_account(system, org)), 15, "the console to say so")
        made = [org.create("admin", f"meanwhile {number}", at=number % 2) for number in range(20)]
        for key in made:
            system.validates_as(key["key"], "VALID")
        gone = org.made("admin", "DELETE", f"{org.path}/keys/{first['key_id']}")
        system.validates_as(first["key"], "REVOKED")
    finally:
        away_s = time.monotonic() - began
        system.database.start()
    back_at = time.monotonic()
    listed = eventually(lambda: _listed(org, gone["revision"]), 30, "reads to work again")
    assert listed == {key["key_id"] for key in made}
    assert pids(system) == before, "no process was restarted"
    all_agree(system)
    print(
        f"\npostgresql away ({how}) for {away_s:.1f} s: reads {read}, console {console}; 20 creates and a revoke"
        f" meanwhile, read {time.monotonic() - back_at:.1f} s after it came back"
    )


def _is_503(answer: Answer) -> str:
    assert answer.status in {200, 503}, answer
    return f"503 {answer.json['code']}" if answer.status == 503 else ""


def _account(system: System, org: Org) -> Answer:
    return system.call("console", "PATCH", "/v1/me", {"name": "Ada"}, org.token("admin"))


def _listed(org: Org, revision: int) -> set[str]:
    answer = org.read(f"/keys?limit=200&min_revision={revision}")
    assert answer.status in {200, 503}, answer
    return {key["key_id"] for key in answer.json["items"]} if answer.status == 200 else set()


@contextmanager
def _another_projector(system: System, name: str, partitions: str) -> Iterator[Popen[bytes]]:
    """One more projector for a while, with its own port, state and log."""
    system.add(Program(name, "projector", free_ports()[0]))
    try:
        yield system.spawn(name, KEYLEDGER_PARTITIONS=partitions)
    finally:
        if name in system.processes:
            system.end(name, signal.SIGTERM)
        del system.programs[name]


def _refused_start(system: System, name: str, partitions: str) -> str:
    """Start a projector that must not run; the last line it wrote."""
    with _another_projector(system, name, partitions) as process:
        assert process.wait(timeout=60) == 3
        return system.log(name).read_text().strip().splitlines()[-1]


def test_a_second_projector_started_by_mistake_ends_with_3_and_names_the_holder(system: System) -> None:
    said = _refused_start(system, "projector_by_mistake", f"0-{PARTITIONS - 1}")
    print(f"\nsecond projector: exit 3: {said}")
    assert "keyledger-projector" in said
    assert f":{system.processes['projector'].pid}" in said
    org = Org(system, "second-projector")
    assert _listed(org, org.create("admin", "still projected")["revision"])


def test_two_projectors_share_the_partitions(system: System) -> None:
    """Each projects its half, both read all of it, a third one is refused, and one that comes back alone takes all over."""
    ids = {
        half: next(name for name in _names() if (partition_of(name) < 6) == (half == "low")) for half in ("low", "high")
    }
    orgs = [Org(system, org_id) for org_id in ids.values()]
    restart(system, "projector", KEYLEDGER_PARTITIONS="0-5")
    with _another_projector(system, "projector_2", "6-11"):
        system.wait_ready("projector_2")
        for org in orgs:
            key = org.create("admin", "shared")
            eventually(partial(_listed, org, key["revision"]), 15, "the key to be listed")
            found = _read_from(system, "projector_2", f"{org.path}/keys/{key['key_id']}?min_revision={key['revision']}")
            assert found == 200
        said = _refused_start(system, "projector_3", "5-6")
        assert f":{system.processes['projector'].pid}" in said
        assert f":{system.processes['projector_2'].pid}" in said
        all_agree(system)
        kill_all(system, "projector_2")
    late = [org.create("admin", "while nobody projects the upper half") for org in orgs]
    restart(system, "projector")
    for org, key in zip(orgs, late, strict=True):
        assert key["key_id"] in eventually(partial(_listed, org, key["revision"]), 15, "all to be read")
    all_agree(system)
    print(f"\ntwo projectors: {ids}; a third: exit 3: {said}")


def _names() -> Iterator[str]:
    return (f"shared-{number}" for number in count())


def _read_from(system: System, name: str, path: str) -> int:
    headers = {"Authorization": f"Bearer {system.token('operator')}"}
    return urllib3.request("GET", system.programs[name].url + path, headers=headers, timeout=10.0, retries=False).status
