"""Two command APIs and eight threads on the same two organisations."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.system import System
from tests.fault import races_rules
from tests.fault.organisation import FULL, Org
from tests.fault.races_load import race
from tests.fault.readers import Ledgers, all_agree
from tests.fault.running import restart

MOST_KEYS, THREADS = 4, 8
COMMANDS, VOID = (2200, 100) if FULL else (400, 20)
APIS = ("command_api", "command_api_2")


@pytest.fixture
def tight(system: System) -> Iterator[System]:
    """Command APIs that allow few keys, so that the limit is hit."""
    restart(system, *APIS, KEYLEDGER_MOST_KEYS=str(MOST_KEYS))
    yield system
    restart(system, *APIS)


def test_no_rule_is_broken_however_two_command_apis_race(tight: System) -> None:
    """Names stay unique, limits hold, what was answered is what is applied, and every reader has the same heads."""
    seed = random.SystemRandom().randrange(10**6)
    orgs = [Org(tight, "race-one"), Org(tight, "race-two")]
    for org in orgs:
        for who, role in (("ann", "member"), ("ben", "member"), ("second", "admin")):
            org.add(who, role=role)
    began = time.monotonic()
    seen = race(orgs, THREADS, COMMANDS, seed)
    took_s = time.monotonic() - began

    log, kinds = Ledgers(tight), Counter[str]()
    for org in orgs:
        events = log.events(org.id)
        kinds += races_rules.check(events, MOST_KEYS)
        assert org.answered == {event["revision"] for event in events}, "answered is not what was applied"
    void = log.void(*(org.id for org in orgs))
    answers = sum(seen.outcomes.values())
    print(f"\nraces: seed {seed}, {answers} commands by {THREADS} threads in {took_s:.1f} s, {void} void records")
    print(f"answered: {dict(sorted(seen.outcomes.items()))}\napplied: {dict(sorted(kinds.items()))}")
    assert answers >= COMMANDS
    assert void >= VOID, "the run did not race"
    assert len(seen.made) == len(set(seen.made)), "two creates were told the same revision"
    assert not [what for what in seen.outcomes if what.endswith(("_unknown", "_unavailable", "_error"))]
    assert {"create name_taken", "create key_limit", "rename name_taken", "revoke 200"} <= seen.outcomes.keys()
    heads = all_agree(tight)
    print(f"heads agree: {', '.join(heads)}: {[heads['log'][org.id][0] for org in orgs]}")


GOOD: tuple[tuple[str, dict[str, str]], ...] = (
    ("OrgRegistered", {}),
    ("UserAdded", {"user_id": "u", "role": "admin"}),
    ("OrgKeysEnabled", {}),
    ("KeyCreated", {"user_id": "u", "key_id": "k1", "name": "one"}),
    ("KeyCreated", {"user_id": "u", "key_id": "k2", "name": "two"}),
    ("KeyRevoked", {"key_id": "k1"}),
)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("KeyCreated", {"user_id": "u", "key_id": "k3", "name": "two"}),
        ("KeyCreated", {"user_id": "u", "key_id": "k2", "name": "three"}),
        ("KeyRenamed", {"key_id": "k1", "name": "four"}),
        ("KeyRevoked", {"key_id": "k1"}),
        ("UserRoleChanged", {"user_id": "u", "role": "member"}),
        ("UserDisabled", {"user_id": "u"}),
        ("UserEnabled", {"user_id": "u"}),
    ],
)
def test_the_check_of_the_rules_finds_a_broken_one(kind: str, data: dict[str, str]) -> None:
    """The check that the races rest on is not blind."""
    assert races_rules.check(_story(*GOOD), 2)["KeyCreated"] == 2
    with pytest.raises(AssertionError, match=kind):
        races_rules.check(_story(*GOOD, (kind, data)), 2)
    with pytest.raises(AssertionError, match="over the limit"):
        races_rules.check(_story(*GOOD), 1)


def _story(*events: tuple[str, dict[str, str]]) -> list[dict[str, Any]]:
    return [{"org": "o", "revision": at, "type": kind, "data": data} for at, (kind, data) in enumerate(events, 1)]
