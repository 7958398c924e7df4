"""No key is accepted after its revoke was answered `effective: true`: three checkers under load, one fault after the other.

`make prove-revocation` is the full form. Every test prints what it did and saw, and ends only when all serves again.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from schemas.checker_status import PARTITION, margin_ms
from schemas.topics import CHECKER_STATUS, LIFECYCLE, partition_of
from tests.end_to_end.system import Answer, System, running
from tests.fault.asking import Prey
from tests.fault.cable import Cable, listeners, ports
from tests.fault.field import Command, Field
from tests.fault.hunter import Hunt, hunting, spread
from tests.fault.organisation import FULL
from tests.fault.own_apis import using
from tests.fault.running import follower_of, kill_all, restart, signal_all, workers_of
from tests.fault.three_brokers import Cluster, clustered
from tests.waiting import eventually

MAX_STALENESS_MS = 2000
BOUND_MS = MAX_STALENESS_MS + margin_ms(MAX_STALENESS_MS)
SLACK_MS = 3000
"""For everything beside the wait: two cores, and three checkers asked all the time."""
IN_A_ROW = 1000 if FULL else 50
FAULT_S = 10.0 if FULL else 3.0
CLUSTER_STALENESS_MS, CUT_S = 15_000, 30.0
CASCADE = 10_000 if FULL else 300
KEYS = 6000 if FULL else 1500
CHECKERS = ("auth_checker", "auth_checker_2", "auth_checker_3")
VICTIM = "auth_checker_2"
BEHIND_CABLE = "auth_checker_3"
Hunting = Callable[[str], AbstractContextManager[Hunt]]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Three checkers and two command APIs; the broker has a second door, for who comes through a cable."""
    with running(tmp_path_factory.mktemp("revocation"), checkers=3, command_apis=2, kafka=listeners) as made:
        yield made


@pytest.fixture(scope="module")
def cable(system: System) -> Iterator[Cable]:
    """What the third checker reaches Kafka through."""
    far, near = ports(system.config.kafka_port)
    made = Cable(near, far)
    made.start()
    restart(system, BEHIND_CABLE, KAFKA_BOOTSTRAP_SERVERS=made.bootstrap)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def field(system: System, cable: Cable) -> Field:
    return Field(system, KEYS)


@pytest.fixture
def hunt(system: System, field: Field) -> Hunting:
    """Starts a hunt of a name over the three checkers."""
    return lambda name: hunting(field, name, _ports(system))


def test_without_a_fault_every_revoke_is_effective_soon(hunt: Hunting) -> None:
    with hunt("no fault") as hunted:
        began = time.monotonic()
        for number in range(IN_A_ROW):
            hunted.revoke(at=number)
        hunted.serves(time.monotonic())
        codes = sum((hunted.codes(checker, began) for checker in CHECKERS), Counter())
    waited = sorted(done.effective_ms for done in hunted.commands)
    print(f"  {IN_A_ROW} in a row, as seen by the caller: ms {spread(_seen(hunted))}")
    _check_hardly_stale(codes)
    assert waited[len(waited) // 2] < BOUND_MS / 4, "live checkers are not waited for until their leases end"


@pytest.mark.parametrize("part", ["all of it", "its worker", "its follower"])
def test_a_checker_that_stands_still_and_goes_on_accepts_nothing_revoked(
    system: System, hunt: Hunting, part: str
) -> None:
    main = system.processes[VICTIM].pid
    chosen = {
        "all of it": [main, *workers_of(system, VICTIM), follower_of(system, VICTIM)],
        "its worker": workers_of(system, VICTIM),
        "its follower": [follower_of(system, VICTIM)],
    }[part]
    with hunt(f"a checker stopped for {FAULT_S:g} s, {part}") as hunted:
        hunted.keep_revoking()
        stopped_at = time.monotonic()
        signal_all(chosen, signal.SIGSTOP)
        try:
            _let_pass(FAULT_S)
        finally:
            signal_all(chosen, signal.SIGCONT)
        hunted.mended()
        others = sum((hunted.codes(one, stopped_at) for one in CHECKERS if one != VICTIM), Counter())
    _check_the_bound(hunted)
    _check_hardly_stale(others)
    if part == "its follower":
        late = hunted.codes(VICTIM, stopped_at + MAX_STALENESS_MS / 1000, stopped_at + FAULT_S)
        assert late["STALE"], "nobody vouches for its tables"
        assert not late["VALID"], "a lease that ended was believed"


def test_a_checker_killed_and_started_again_accepts_nothing_revoked(system: System, hunt: Hunting) -> None:
    with hunt("a checker killed with -9") as hunted:
        hunted.keep_revoking()
        kill_all(system, VICTIM)
        _let_pass(FAULT_S / 2)
        system.spawn(VICTIM)
        hunted.mended()
    _check_the_bound(hunted)


@pytest.mark.parametrize("part", ["worker", "follower"])
def test_a_part_of_a_checker_that_is_killed_comes_back_by_itself(system: System, hunt: Hunting, part: str) -> None:
    main = system.processes[VICTIM].pid
    victims = workers_of(system, VICTIM) if part == "worker" else [follower_of(system, VICTIM)]
    with hunt(f"the {part} of a checker killed with -9") as hunted:
        hunted.keep_revoking()
        signal_all(victims, signal.SIGKILL)
        hunted.mended()
    _check_the_bound(hunted)
    assert system.processes[VICTIM].poll() is None
    assert system.processes[VICTIM].pid == main


def test_a_checker_cut_off_from_kafka_ends_its_answers_in_time(hunt: Hunting, cable: Cable) -> None:
    with hunt(f"a checker cut off from Kafka for {FAULT_S:g} s") as hunted:
        hunted.keep_revoking()
        cut_at = time.monotonic()
        cable.cut()
        try:
            _let_pass(FAULT_S)
        finally:
            cable.mend()
        mended_at = time.monotonic()
        hunted.mended()
        late = hunted.codes(BEHIND_CABLE, cut_at + MAX_STALENESS_MS / 1000, mended_at)
        early = hunted.codes(BEHIND_CABLE, cut_at, cut_at + 0.5)
        others = sum((hunted.codes(one, cut_at) for one in CHECKERS if one != BEHIND_CABLE), Counter())
    _check_the_bound(hunted)
    assert early["VALID"], "it vouches for its tables until the lease ends"
    assert late["STALE"], "nobody was asked while it was cut off"
    assert not late["VALID"], "a lease that ended was believed"
    _check_hardly_stale(others)


@pytest.mark.parametrize("how", ["stop", "kill"] if FULL else ["stop"])
def test_a_broker_that_is_restarted_leaves_no_revoke_behind(system: System, hunt: Hunting, how: str) -> None:
    with hunt(f"the broker restarted ({how})") as hunted:
        hunted.keep_revoking()
        getattr(system.broker, how)()
        _let_pass(FAULT_S / 2)
        system.broker.start()
        hunted.mended()
    assert hunted.commands, "something was revoked"


def test_a_revoke_whose_command_api_died_before_the_answer_is_effective_when_repeated(
    system: System, hunt: Hunting, field: Field
) -> None:
    """A checker that stands still keeps the answer from coming, so the process is killed between append and answer."""
    victim, [prey] = system.processes[VICTIM].pid, field.take(1)
    chosen = [victim, *workers_of(system, VICTIM), follower_of(system, VICTIM)]
    with hunt("a command API killed between append and answer") as hunted, ThreadPoolExecutor(1) as pool:
        signal_all(chosen, signal.SIGSTOP)
        try:
            caller = pool.submit(hunted.revoke, prey)
            eventually(lambda: _says(system, prey.text) == "REVOKED", 5, "the event to be in the log")
            assert not caller.done(), "it was answered before anybody was killed"
            kill_all(system, "command_api")
            done = caller.result()
        finally:
            signal_all(chosen, signal.SIGCONT)
        system.spawn("command_api")
        system.wait_ready("command_api")
        hunted.mended()
        again = field.revoke(prey.key_id)
    assert done.repeats, "the caller saw that its command API died"
    assert again.revision == done.revision, "one command, one event"
    print(f"  the caller repeated because of {dict(done.repeats)}, effective after {_ms(done):.0f} ms")


if FULL:

    def test_a_deposed_leader_that_goes_on_answering_makes_no_revoke_effective_too_soon(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Three brokers; the leader of both topics is parted from the controller and the others, not from its clients."""
        monkeypatch.setenv("KEYLEDGER_MAX_STALENESS_MS", str(CLUSTER_STALENESS_MS))
        with clustered(tmp_path / "var", len(CHECKERS), 2) as (system, cluster):
            leader = cluster.leader_of(CHECKER_STATUS, PARTITION)
            field = _led_by(system, cluster, leader)
            with hunting(field, f"the leader of both topics cut off for {CUT_S:g} s", _ports(system)) as hunted:
                hunted.keep_revoking()
                cluster.cut(leader)
                try:
                    _let_pass(CUT_S)
                    followed = cluster.leader_of(CHECKER_STATUS, PARTITION, besides=leader)
                finally:
                    cluster.mend(leader)
                hunted.mended()
        assert followed != leader, "nobody took over"
        assert hunted.commands, "something was revoked"


def _led_by(system: System, cluster: Cluster, leader: int) -> Field:
    """An organisation whose partition this broker leads."""
    while True:
        field = Field(system, KEYS)
        if cluster.leader_of(LIFECYCLE, partition_of(field.org)) == leader:
            return field


@pytest.mark.parametrize("whose", ["user", "organisation"])
def test_disabling_who_has_many_keys_is_one_event_and_refuses_each_of_them(
    system: System, cable: Cable, whose: str
) -> None:
    field = Field(system, CASCADE, one_owner=True)
    keys, path, code = {
        "user": (field.keys, f"/users/{field.users[0]}/enabled", "OWNER_DISABLED"),
        "organisation": (field.keys + field.witnesses, "/keys-enabled", "ORG_KEYS_DISABLED"),
    }[whose]
    revoked, others = keys[:5], {prey.key_id for prey in keys[5:]}
    with hunting(field, f"{len(keys)} keys of one {whose} disabled", _ports(system)) as hunted:
        _everywhere(hunted, keys, "VALID")
        hunted.aim(*keys[:: len(keys) // 20])
        done = hunted.take_away(keys, "PUT", path, {"enabled": False})
        first_sweep = hunted.sweep(keys)
        refused_s = time.monotonic() - done.sent_at
        for prey in revoked:
            hunted.revoke(prey)
        for key_id in others:
            hunted.record.permit(key_id, time.monotonic())
        back = field.call("PUT", path, {"enabled": True})
        assert back.status == 200, back
        _everywhere(hunted, keys[5:], "VALID")
        second_sweep = hunted.sweep(revoked)
    last_valid_s = hunted.record.last_valid({prey.key_id for prey in keys}, before=done.answered_at) - done.sent_at
    print(
        f"  one event; the last VALID began {last_valid_s * 1000:.0f} ms after it was sent, effective after {_ms(done):.0f}"
        f" ms, all {len(keys)} refused by all checkers, each asked once more, {refused_s * 1000:.0f} ms after it was sent"
    )
    assert first_sweep == Counter({code: len(CHECKERS) * len(keys)})
    assert second_sweep == Counter({"REVOKED": len(CHECKERS) * len(revoked)})
    assert done.revision == field.head + 1, "it is one event"
    assert back.json["revision"] == done.revision + len(revoked) + 1


@pytest.mark.parametrize("database", ["there", "away"])
@pytest.mark.parametrize("credential", ["key", "token"])
def test_keyledgers_own_apis_accept_no_credential_whose_end_was_effective(
    system: System, field: Field, credential: str, database: str
) -> None:
    """An API key that is revoked, and the signed token of an admin who is disabled."""
    who = f"{credential}-{database}"
    user_id = field.add(who, "admin")
    token, end = field.token(who), ("PUT", f"/users/{user_id}/enabled", {"enabled": False})
    if credential == "key":
        made = field.call("POST", "/keys", {"name": who, "scopes": ["keys:read", "keys:write"]}, who=who)
        token, end = made.json["key"], ("DELETE", f"/keys/{made.json['key_id']}", {})
    calls = {f"command API {at + 1}": partial(_command, system, field, token, at) for at in range(2)}
    if database == "there":
        calls["read API"] = partial(system.call, "read", "GET", f"{field.path}/keys?limit=1", token=token)
    else:
        system.database.stop()
    try:
        with using(calls) as use:
            use.wait(accepted=True)
            done = field.take_away(*end)
            use.wait(accepted=False, since=done.answered_at)
    finally:
        if database == "away":
            system.database.start()
    eventually(lambda: field.read().status == 200, 30, "reads to work again")
    accepted = {name: use.count(name, accepted=True, since=done.answered_at) for name in calls}
    refused = {name: use.count(name, accepted=False, since=done.answered_at) for name in calls}
    print(
        f"\na {credential} of our own, PostgreSQL {database}: effective after {done.effective_ms} ms;"
        f" accepted afterwards {accepted}, refused {refused}"
    )
    assert not any(accepted.values())


def _command(system: System, field: Field, token: str, at: int) -> Answer:
    """A command that changes nothing and needs an admin's rights."""
    return system.call("command", "PUT", f"{field.path}/keys-enabled", {"enabled": True}, token, at)


def _everywhere(hunted: Hunt, keys: Sequence[Prey], code: str) -> None:
    expected = Counter({code: len(CHECKERS) * len(keys)})
    eventually(lambda: hunted.sweep(keys) == expected, 60, f"all keys to be {code} everywhere")


def _ports(system: System) -> dict[str, int]:
    return {checker: system.programs[checker].port for checker in CHECKERS}


def _says(system: System, text: str) -> str:
    """What the first checker says about a key."""
    return str(system.validate(text)["code"])


def _let_pass(seconds: float) -> None:
    """Let the fault last for a while; the hunt goes on meanwhile."""
    over = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > over, seconds + 5, "the time to pass")


def _check_hardly_stale(codes: Counter[str]) -> None:
    """Checkers that nothing was done to serve on; one in fifty may be late where too much runs on the machine."""
    assert codes["STALE"] <= codes.total() / 50, codes


def _check_the_bound(hunted: Hunt) -> None:
    """Whatever one checker does, a revoke waits for no longer than its lease."""
    waited = [done.effective_ms for done in hunted.commands if not done.repeats]
    assert max(waited) < BOUND_MS + SLACK_MS


def _seen(hunted: Hunt) -> list[float]:
    return [_ms(done) for done in hunted.commands]


def _ms(done: Command) -> float:
    return (done.answered_at - done.sent_at) * 1000
