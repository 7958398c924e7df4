"""Commands that get in each other's way: eight threads, few names, few slots, rights that come and go."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.end_to_end.system import Answer
from tests.fault.organisation import Org

NAMES = ("build", "deploy", "import", "report", "backup", "mirror", "search", "export", "deliver", "print")
OWNERS = ("ann", "ben", "admin")


@dataclass
class Seen:
    """What was answered: how often each outcome, which revisions made something, and each organisation's keys with their owners."""

    outcomes: Counter[str] = field(default_factory=Counter)
    made: list[tuple[str, int]] = field(default_factory=list)
    keys: dict[str, dict[str, str]] = field(default_factory=dict)


def race(orgs: list[Org], threads: int, commands: int, seed: int) -> Seen:
    """Give at least so many commands, in these threads, to both command APIs."""
    seen, tickets = Seen(keys={org.id: {} for org in orgs}), count()

    def work(thread: int) -> None:
        chance = random.Random(f"{seed}/{thread}")
        while next(tickets) < commands:
            org = chance.choice(orgs)
            what, answer = _one(org, seen, chance, at=thread % 2)
            _note(org, what, answer, seen)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, thread) for thread in range(threads)]:
            done.result()
    return seen


def _one(org: Org, seen: Seen, chance: random.Random, at: int) -> tuple[str, Answer]:
    who, name, known = chance.choice(OWNERS), chance.choice(NAMES), list(seen.keys[org.id].items())
    what = chance.choices(("create", "rename", "revoke", "role", "enabled", "keys"), (40, 20, 24, 8, 7, 1))[0]
    if what in {"rename", "revoke"} and known:
        key_id, owner = chance.choice(known)
        path = f"{org.path}/keys/{key_id}"
        if what == "rename":
            return what, org.call(owner, "PATCH", path, {"name": name}, at)
        answer = org.call(owner, "DELETE", path, None, at)
        if chance.random() < 0.8:
            seen.keys[org.id].pop(key_id, None)  # Most are left alone then; others are renamed and revoked again.
        return what, answer
    if what == "role":
        path = f"{org.path}/users/{org.users[chance.choice(('admin', 'second'))]}/role"
        return what, org.call("operator", "PUT", path, {"role": chance.choice(("admin", "admin", "member"))}, at)
    if what == "enabled":
        path = f"{org.path}/users/{org.users[chance.choice(('ben', 'second'))]}/enabled"
        return what, org.call("operator", "PUT", path, {"enabled": chance.random() < 0.7}, at)
    if what == "keys":
        return what, org.call("operator", "PUT", f"{org.path}/keys-enabled", {"enabled": chance.random() < 0.8}, at)
    return "create", org.call(who, "POST", f"{org.path}/keys", {"name": name}, at)


def _note(org: Org, what: str, answer: Answer, seen: Seen) -> None:
    code: Any = answer.status if answer.status < 300 else answer.json["code"]
    seen.outcomes[f"{what} {code}"] += 1
    if answer.status == 201:
        seen.made.append((org.id, answer.json["revision"]))
        seen.keys[org.id][answer.json["key_id"]] = _owner(org, answer.json["user_id"])


def _owner(org: Org, user_id: str) -> str:
    return next(who for who, known in org.users.items() if known == user_id)
