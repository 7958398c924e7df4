"""Whatever is asked in whatever order, the invariants of DESIGN section 5 hold, and what decide makes evolve takes."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from schemas.events import KeyCreated, KeyRevoked, LedgerEvent, OrgKeysEnabled, OrgRegistered, UserAdded
from schemas.times import to_ms, to_text
from services.command_api import commands
from services.command_api.state import TABLES, LmdbView, orgs_of_key
from services.ledger.store import Store
from tests.unit.command_given import NOW, OPERATOR, ORG, STRANGER, World, api_key, create, given, key_id, person

MOST_KEYS = 2
_USERS = st.sampled_from(["ann", "bob", "bot", "zed"])
_NUMBERS = st.integers(0, 7)
_NAMES = st.sampled_from(["a", "b", "c"])
_ROLES = st.sampled_from(["member", "admin", "auditor"])
# Most callers may do most things, and most commands are about keys; else little but refusals would happen.
_CALLERS = st.one_of(
    st.just(person("ann")),
    st.builds(person, _USERS),
    st.sampled_from([OPERATOR, STRANGER, api_key("ann", "keys:write"), api_key("ann", "keys:read")]),
)
_EXPIRY = st.one_of(st.none(), st.integers(1, 60).map(lambda second: to_text(to_ms(NOW) + second * 1000)))
_ABOUT_KEYS = st.one_of(
    st.builds(create, _NUMBERS, _NAMES, st.sampled_from([None, "bot"]), _EXPIRY, st.sampled_from([None, ()])),
    st.builds(commands.RenameKey, _NUMBERS.map(key_id), _NAMES),
    st.builds(commands.RevokeKey, _NUMBERS.map(key_id), st.none(), st.none()),
)
_ABOUT_OTHERS = st.one_of(
    st.builds(commands.SwitchKeys, st.sampled_from([True, True, False]), st.none()),
    st.builds(commands.AddUser, _USERS, st.just("person"), _ROLES),
    st.builds(commands.ChangeRole, _USERS, _ROLES),
    st.builds(commands.SwitchUser, _USERS, st.booleans()),
    st.builds(commands.ErasePerson, st.just("zed")),
)
_COMMANDS = st.one_of(_ABOUT_KEYS, _ABOUT_KEYS, _ABOUT_KEYS, _ABOUT_OTHERS)
_STEPS = st.lists(st.tuples(_CALLERS, _COMMANDS, st.integers(0, 3)), min_size=40, max_size=80)


BEGINNING = (
    OrgRegistered(None),
    OrgKeysEnabled(),
    UserAdded("ann", "person", "admin"),
    UserAdded("bot", "service_account", "member"),
)


@settings(max_examples=100, deadline=None)
@for_all(_STEPS)
def test_random_commands_keep_every_invariant_and_evolve_takes_what_decide_made(steps):
    world, revoked = given(*BEGINNING), set()
    for made, now, before in _carry_out(world, steps):
        _check_keys(world, made, now)
        _check_admins(world, before)
        if isinstance(made, KeyRevoked):
            assert made.key_id not in revoked
            revoked.add(made.key_id)
        assert {key.key_id for key in world.view.keys.values() if key.revoked_at} == revoked


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store(tmp_path_factory.mktemp("store"), TABLES)
    yield opened
    opened.close()


@settings(max_examples=50, deadline=None)
@for_all(steps=_STEPS)
def test_what_lmdb_remembers_is_what_the_dicts_remember(store: Store, steps):
    world = given(*BEGINNING)
    with store.write() as txn:
        txn.clear()
        stored = World(view=LmdbView(txn, ORG))
        for event in BEGINNING:
            stored.then(event)
        for made, now, _ in _carry_out(world, steps):
            stored.then(made, now)
            assert stored.view.org() == world.view.org()
            for user_id in world.view.users:
                assert stored.view.user(user_id) == world.view.user(user_id)
                assert _active(stored, user_id, now) == _active(world, user_id, now)
        assert {key_id: stored.view.key(key_id) for key_id in world.view.keys} == world.view.keys
        assert all(orgs_of_key(txn, key_id) == [ORG] for key_id in world.view.keys)


def _active(world: World, owner: str, now: str) -> set[tuple[str, str]]:
    return {(key.key_id, key.name) for key in world.view.owned(owner) if key.is_active(now)}


def _carry_out(world: World, steps) -> Iterator[tuple[LedgerEvent, str, int]]:
    """Give the commands one after another; each event that was made and folded, its time, and the admins before it."""
    now_ms = to_ms(NOW)
    for number, (caller, drawn, seconds) in enumerate(steps):
        command = _about_what_is_there(world, drawn, number)
        if isinstance(command, commands.AddUser) and command.user_id in world.view.users:
            continue  # Ids of users are made by the service, never twice.
        now_ms += seconds * 1000
        now = to_text(now_ms)
        made = world.when(caller, command, now, MOST_KEYS)
        if made is None or isinstance(made, type):
            continue
        assert caller is not STRANGER
        before = world.view.org()
        assert before is not None
        world.then(made, now)
        yield made, now, before.active_admins


def _about_what_is_there(world: World, command: commands.Command, number: int) -> commands.Command:
    """The command, with a fresh id for a new key, and else with that of a key that exists."""
    if isinstance(command, commands.CreateKey):
        return replace(command, key_id=key_id(number))
    if isinstance(command, commands.RenameKey | commands.RevokeKey) and world.view.keys:
        return replace(command, key_id=list(world.view.keys)[-1 - int(command.key_id) % len(world.view.keys)])
    return command


def _check_keys(world: World, made: LedgerEvent, now: str) -> None:
    for owner in world.view.users:
        active = _active(world, owner, now)
        assert len(active) == len({name for _, name in active}) <= MOST_KEYS
    if isinstance(made, KeyCreated):
        assert world.view.an_org is not None
        assert world.view.an_org.keys_enabled
        assert world.view.users[made.user_id].active


def _check_admins(world: World, before: int) -> None:
    org = world.view.an_org
    assert org is not None
    assert org.active_admins == sum(user.active and user.role == "admin" for user in world.view.users.values())
    assert org.active_admins > 0 or before == 0
    assert all(not user.active for user in world.view.users.values() if user.erased)
