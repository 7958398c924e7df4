"""The same create with the same Idempotency-Key: at once, at two command APIs, and after a kill -9 between send and answer."""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import lmdb
import pytest
import urllib3

from tests.end_to_end.system import Answer, System
from tests.fault.organisation import FULL, Org
from tests.fault.readers import Ledgers, all_agree
from tests.fault.running import kill_all
from tests.waiting import eventually

AT_ONCE = 20
ROUNDS, KILLS = (40, 20) if FULL else (5, 2)
APIS = ("command_api", "command_api_2")
_MAP_BYTES = 64 * 1024**3


@pytest.fixture(scope="module")
def org(system: System) -> Org:
    made = Org(system, "repeating")
    made.add("member")
    return made


def test_the_same_create_twenty_times_at_once_makes_one_key(system: System, org: Org) -> None:
    """One answer has the text, nineteen have the same key_id without it, and the ledger has one KeyCreated."""
    for number in range(ROUNDS):
        create = _creates(org, f"at once {number}")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(create, [at % 2 for at in range(AT_ONCE)]))
        assert sorted(answer.status for answer in answers) == [200] * (AT_ONCE - 1) + [201], answers
        _is_one_key(system, org, answers, f"at once {number}")
        assert len([answer for answer in answers if answer.json["key"]]) == 1
    print(f"\nidempotency: {ROUNDS} × {AT_ONCE} at once at two command APIs: each one key, one text")


def test_a_create_repeated_after_a_kill_between_send_and_answer_makes_one_key(system: System, org: Org) -> None:
    """The event is in the log, the command API is killed before it can answer, and the repeats find that one event.

    The moment is made, not hoped for: while the test holds the writer's lock of the command API's LMDB, its follower
    cannot apply the event, so no answer can leave before the kill.
    """
    delivered = 0
    for number in range(KILLS):
        at, name = number % 2, f"killed {number}"
        create = _creates(org, name)
        # All at the one that is killed, or half of them at the other one meanwhile.
        asked = [at] * AT_ONCE if number % 4 in {0, 3} else [at, 1 - at] * (AT_ONCE // 2)
        # A command that changes nothing is answered at the end of the log: on an older head the create would be void.
        org.made("admin", "PUT", f"{org.path}/keys-enabled", {"enabled": True}, at=at)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            with _cannot_apply(system, APIS[at]):
                first = [pool.submit(_or_none, create, where) for where in asked]
                eventually(partial(_created, system, org, name), 4, "the event to be in the log")
                stuck = [future for future, where in zip(first, asked, strict=True) if where == at]
                kill_all(system, APIS[at])
            before = [answer for future in first if (answer := future.result()) is not None]
            system.spawn(APIS[at])
            system.wait_ready(APIS[at])
            after = list(pool.map(create, [where % 2 for where in range(AT_ONCE)]))
        assert all(_got_nothing(future.result()) for future in stuck), "it answered before it could have applied"
        answers = [answer for answer in [*before, *after] if answer.status != 503]
        _is_one_key(system, org, answers, name)
        texts = {answer.json["key"] for answer in answers} - {None}
        assert len(texts) == len([answer for answer in before if answer.status == 201]) <= 1
        delivered += len(texts)
        assert {answer.status for answer in after} == {200}, after
        made = org.made("member", "DELETE", f"{org.path}/keys/{answers[0].json['key_id']}", at=at)
        assert made["revoked_at"], "whoever never got the text can revoke the key"
    print(f"\nidempotency: {KILLS} kills between send and answer: one key each, {delivered} texts delivered")
    all_agree(system)


def _creates(org: Org, name: str) -> Callable[[int], Answer]:
    """A create with an Idempotency-Key of its own, to be sent to the command API of a number."""
    body, key = {"name": name}, secrets.token_urlsafe(16)
    org.token("member")  # So that the threads need not sign in.
    return lambda at: org.call("member", "POST", f"{org.path}/keys", body, at, Idempotency_Key=key)


def _or_none(create: Callable[[int], Answer], at: int) -> Answer | None:
    try:
        return create(at)
    except urllib3.exceptions.HTTPError:
        return None  # The connection broke: whoever asked does not know what happened.


def _got_nothing(answer: Answer | None) -> bool:
    # Of requests that wait for one another's lock some may be told after three seconds that others are busy.
    return answer is None or answer.status == 503


def _created(system: System, org: Org, name: str) -> list[str]:
    events = Ledgers(system).events(org.id)
    return [
        event["data"]["key_id"] for event in events if event["type"] == "KeyCreated" and event["data"]["name"] == name
    ]


def _is_one_key(system: System, org: Org, answers: list[Answer], name: str) -> None:
    assert {answer.status for answer in answers} <= {200, 201}, answers
    assert {answer.json["key_id"] for answer in answers} == set(_created(system, org, name))
    assert len(_created(system, org, name)) == 1
    assert len({answer.json["revision"] for answer in answers}) == 1
    for answer in answers:
        assert (answer.json["key"] is None) == answer.json.get("key_withheld", False)


@contextmanager
def _cannot_apply(system: System, api: str) -> Iterator[None]:
    folder = system.config.var / api / "ledger"
    store = lmdb.open(str(folder), max_dbs=32, map_size=_MAP_BYTES, sync=False)
    try:
        held = store.begin(write=True)
        try:
            yield
        finally:
            held.abort()
    finally:
        store.close()
