"""The rules of keys: given events, when a command comes, then an event or a refusal."""

from dataclasses import replace

import pytest

from schemas.events import (
    KeyCreated,
    KeyRenamed,
    KeyRevoked,
    LedgerEvent,
    OrgKeysDisabled,
    OrgKeysEnabled,
    OrgRegistered,
    UserAdded,
    UserDisabled,
    UserRoleChanged,
)
from services.command_api import errors
from services.command_api.commands import Caller, Command, RenameKey, RevokeKey
from services.ledger.fold import BrokenTransition
from tests.unit.command_given import (
    BOOTSTRAP,
    LATER,
    NOW,
    OPERATOR,
    STRANGER,
    World,
    api_key,
    create,
    created,
    given,
    key_id,
    person,
)

USERS = (
    OrgRegistered("Acme"),
    UserAdded("ann", "person", "admin"),
    UserAdded("bob", "person", "member"),
    UserAdded("cid", "person", "member"),
    UserAdded("aud", "person", "auditor"),
    UserAdded("bot", "service_account", "member"),
)
ENDS = "2030-06-01T00:00:00.000Z"
COMMANDS: list[Command] = [create(1, "ci"), RenameKey(key_id(9), "n"), RevokeKey(key_id(9), None, None)]


def acme(*events: LedgerEvent) -> World:
    return given(*USERS, OrgKeysEnabled(), *events)


def revoke(number: int) -> RevokeKey:
    return RevokeKey(key_id(number), None, None)


def test_a_user_creates_a_key_for_itself():
    assert acme().when(person("bob"), create(1, "ci", scopes=("a",))) == KeyCreated(
        key_id(1), "bob", "ci", "d" * 64, "last", None, ("a",), None
    )
    assert acme().when(person("bob"), create(1, "ci", "bob")) == created(1, "bob", "ci")


def test_an_admin_creates_keys_for_service_accounts_and_for_no_other_person():
    assert acme().when(person("ann"), create(1, "ci", "bot")) == created(1, "bot", "ci")
    assert acme().when(person("ann"), create(1, "ci", "bob")) is errors.Forbidden
    assert acme().when(person("ann"), create(1, "ci", "nobody")) is errors.NotFound


@pytest.mark.parametrize("target", ["bot", "cid", "nobody"])
def test_a_member_creates_keys_for_nobody_else(target: str):
    assert acme().when(person("bob"), create(1, "ci", target)) is errors.Forbidden


@pytest.mark.parametrize("caller", [OPERATOR, person("aud")])
def test_operators_and_auditors_have_no_keys_here(caller: Caller):
    assert acme().when(caller, create(1, "ci")) is errors.Forbidden
    assert acme().when(caller, create(1, "ci", "bot")) is errors.Forbidden


@pytest.mark.parametrize("command", COMMANDS)
def test_strangers_and_the_bootstrap_find_nothing(command: Command):
    world = acme(created(9, "bob", "old"))
    assert world.when(STRANGER, command) is errors.NotFound
    assert world.when(BOOTSTRAP, command) is errors.NotFound


@pytest.mark.parametrize("command", COMMANDS)
def test_the_bootstrap_may_nothing_about_keys_of_platform(command: Command):
    key_of_admin = (UserAdded("op", "person", "admin"), OrgKeysEnabled(), created(9, "op", "old"))
    platform = given(OrgRegistered(None), *key_of_admin, org="platform")
    assert platform.when(BOOTSTRAP, command) is errors.Forbidden


@pytest.mark.parametrize("command", COMMANDS)
def test_disabled_callers_and_api_keys_without_the_scope_are_refused(command: Command):
    world = acme(created(9, "bob", "old"))
    assert world.when(api_key("bob", "keys:read", "usage:write"), command) is errors.InsufficientScope
    world.then(UserDisabled("bob"))
    assert world.when(person("bob"), command) is errors.CallerDisabled


def test_an_api_key_makes_no_key_with_scopes_it_lacks():
    key = api_key("bob", "keys:write", "a")
    assert isinstance(acme().when(key, create(1, "ci", scopes=("a", "keys:write"))), KeyCreated)
    assert isinstance(acme().when(key, create(1, "ci", scopes=())), KeyCreated)
    assert acme().when(key, create(1, "ci", scopes=("a", "b"))) is errors.ScopeExceedsCaller
    assert acme().when(key, create(1, "ci", scopes=None)) is errors.ScopeExceedsCaller


def test_an_api_key_bound_to_networks_makes_keys_only_inside_them():
    own = replace(created(9, "bob", "own"), key_id="K" * 22, cidrs=("10.0.0.0/8", "2001:db8::/32"))
    key = api_key("bob", "keys:write")
    inside: list[tuple[str, ...]] = [("10.1.0.0/16",), ("10.0.0.0/8", "2001:db8::1/128"), ()]
    for cidrs in inside:
        assert isinstance(acme(own).when(key, replace(create(1, "ci", scopes=()), cidrs=cidrs)), KeyCreated)
    outside: list[tuple[str, ...] | None] = [None, ("0.0.0.0/0",), ("10.1.0.0/16", "192.0.2.0/24"), ("::/0",)]
    for beyond in outside:
        assert acme(own).when(key, replace(create(1, "ci", scopes=()), cidrs=beyond)) is errors.NetworkExceedsCaller


def test_a_revoked_api_key_makes_no_key_even_where_the_checker_does_not_know_yet():
    own = replace(created(9, "bob", "own"), key_id="K" * 22)
    world = acme(own, KeyRevoked("K" * 22, "key_compromise"))
    assert world.when(api_key("bob", "keys:write"), create(1, "ci", scopes=())) is errors.CallerDisabled


def test_keys_are_made_only_while_the_organisation_has_them_on():
    assert given(*USERS).when(person("bob"), create(1, "ci")) is errors.OrgKeysAreDisabled
    assert acme(OrgKeysDisabled()).when(person("bob"), create(1, "ci")) is errors.OrgKeysAreDisabled


def test_keys_are_made_only_for_an_active_owner():
    assert acme(UserDisabled("bot")).when(person("ann"), create(1, "ci", "bot")) is errors.OwnerDisabled


def test_names_are_unique_per_owner_among_active_keys_and_case_matters():
    world = acme(created(1, "bob", "ci"))
    assert world.when(person("bob"), create(2, "ci")) is errors.NameTaken
    assert isinstance(world.when(person("bob"), create(2, "CI")), KeyCreated)
    assert isinstance(world.when(person("cid"), create(2, "ci")), KeyCreated)
    world.then(KeyRevoked(key_id(1), "unused"))
    assert isinstance(world.when(person("bob"), create(2, "ci")), KeyCreated)


def test_an_owner_has_no_more_active_keys_than_the_limit():
    world = acme(created(1, "bob", "a"), created(2, "bob", "b"))
    assert world.when(person("bob"), create(3, "c"), most_keys=2) is errors.KeyLimit
    assert isinstance(world.when(person("cid"), create(3, "c"), most_keys=2), KeyCreated)
    world.then(KeyRevoked(key_id(1), "unused"))
    assert isinstance(world.when(person("bob"), create(3, "c"), most_keys=2), KeyCreated)


def test_an_expired_key_frees_its_name_and_its_slot_at_the_very_moment():
    world = acme(created(1, "bob", "ci", ENDS))
    assert world.when(person("bob"), create(2, "ci"), now="2030-05-31T23:59:59.999Z") is errors.NameTaken
    assert isinstance(world.when(person("bob"), create(2, "ci"), now=ENDS, most_keys=1), KeyCreated)


def test_expiry_must_be_in_the_future():
    assert acme().when(person("bob"), create(1, "ci", expires_at=NOW)) is errors.ExpiryInPast
    assert isinstance(acme().when(person("bob"), create(1, "ci", expires_at="2030-01-01T00:00:00.001Z")), KeyCreated)


def test_a_key_id_is_never_used_twice():
    world = acme(created(1, "bob", "a"), KeyRevoked(key_id(1), "unused"))
    assert world.when(person("bob"), create(1, "b")) is errors.KeyIdTaken


def test_owner_and_admin_rename_a_key_and_nobody_else():
    world = acme(created(1, "bob", "ci"))
    for caller in (person("bob"), person("ann"), api_key("bob", "keys:write")):
        assert world.when(caller, RenameKey(key_id(1), "cd")) == KeyRenamed(key_id(1), "cd")
    for other in (person("cid"), person("aud"), OPERATOR):
        assert world.when(other, RenameKey(key_id(1), "cd")) is errors.Forbidden
    assert world.when(person("ann"), RenameKey(key_id(2), "cd")) is errors.NotFound


def test_a_new_name_must_be_free_and_the_same_one_changes_nothing():
    world = acme(created(1, "bob", "a"), created(2, "bob", "b"), created(3, "bob", "c", ENDS), created(4, "cid", "d"))
    assert world.when(person("bob"), RenameKey(key_id(1), "b")) is errors.NameTaken
    assert world.when(person("bob"), RenameKey(key_id(1), "c")) is errors.NameTaken
    assert world.when(person("bob"), RenameKey(key_id(1), "a")) is None
    assert world.when(person("bob"), RenameKey(key_id(1), "d")) == KeyRenamed(key_id(1), "d")
    assert world.when(person("bob"), RenameKey(key_id(1), "c"), now=LATER) == KeyRenamed(key_id(1), "c")


def test_a_key_that_is_over_is_not_renamed():
    world = acme(created(1, "bob", "a", ENDS), created(2, "bob", "b"), KeyRevoked(key_id(2), "unused"))
    assert world.when(person("bob"), RenameKey(key_id(1), "c"), now=ENDS) is errors.KeyInactive
    assert world.when(person("bob"), RenameKey(key_id(2), "c")) is errors.KeyInactive


@pytest.mark.parametrize(
    ("caller", "reason"),
    [
        (person("bob"), "user_request"),
        (api_key("bob", "keys:write"), "user_request"),
        (person("ann"), "admin"),
        (OPERATOR, "operator"),
    ],
)
def test_owner_admin_and_operator_revoke_and_the_reason_says_who_asked(caller: Caller, reason: str):
    world = acme(created(1, "bob", "ci"))
    assert world.when(caller, revoke(1)) == KeyRevoked(key_id(1), reason)  # type: ignore[arg-type]
    given_reason = RevokeKey(key_id(1), "key_compromise", "seen in a log")
    assert world.when(caller, given_reason) == KeyRevoked(key_id(1), "key_compromise", "seen in a log")


@pytest.mark.parametrize("caller", [person("cid"), person("aud")])
def test_nobody_else_revokes(caller: Caller):
    assert acme(created(1, "bob", "ci")).when(caller, revoke(1)) is errors.Forbidden


def test_a_key_is_revoked_once_and_an_unknown_one_is_not_found():
    world = acme(created(1, "bob", "ci"), KeyRevoked(key_id(1), "unused"))
    assert world.when(person("bob"), revoke(1)) is None
    assert world.when(person("cid"), revoke(1)) is errors.Forbidden
    assert world.when(person("bob"), revoke(2)) is errors.NotFound


def test_keys_can_be_revoked_when_expired_disabled_or_without_an_active_owner():
    world = acme(created(1, "bob", "ci", ENDS), UserDisabled("bob"), OrgKeysDisabled())
    assert world.when(person("ann"), revoke(1), now=LATER) == KeyRevoked(key_id(1), "admin")


def test_a_member_who_became_an_auditor_can_still_stop_the_own_key():
    world = acme(created(1, "bob", "ci"), UserRoleChanged("bob", "auditor"))
    assert world.when(person("bob"), revoke(1)) == KeyRevoked(key_id(1), "user_request")
    assert world.when(person("bob"), create(2, "new")) is errors.Forbidden


@pytest.mark.parametrize(
    ("past", "event"),
    [
        ((), created(1, "nobody", "ci")),
        ((created(1, "bob", "ci"),), created(1, "bob", "other")),
        ((), KeyRenamed(key_id(1), "x")),
        ((), KeyRevoked(key_id(1), "unused")),
        ((created(1, "bob", "ci"), KeyRevoked(key_id(1), "unused")), KeyRevoked(key_id(1), "unused")),
        ((created(1, "bob", "ci"), KeyRevoked(key_id(1), "unused")), KeyRenamed(key_id(1), "x")),
    ],
)
def test_an_event_that_the_state_forbids_breaks_the_fold(past: tuple[LedgerEvent, ...], event: LedgerEvent):
    with pytest.raises(BrokenTransition):
        acme(*past).then(event)
