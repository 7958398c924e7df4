"""The rules of organisations and their users: given events, when a command comes, then an event or a refusal."""

import pytest

from schemas.events import (
    LedgerEvent,
    LedgerResumed,
    OrgKeysDisabled,
    OrgKeysEnabled,
    OrgRegistered,
    PersonErased,
    UserAdded,
    UserDisabled,
    UserEnabled,
    UserRoleChanged,
)
from services.command_api import errors
from services.command_api.commands import (
    AddUser,
    Caller,
    ChangeRole,
    Command,
    ErasePerson,
    RegisterOrg,
    ResumeLedger,
    SwitchKeys,
    SwitchUser,
)
from services.ledger.fold import BrokenTransition
from tests.unit.command_given import BOOTSTRAP, OPERATOR, STRANGER, World, api_key, given, person

REGISTERED = OrgRegistered("Acme")
ANN = UserAdded("ann", "person", "admin")
BOB = UserAdded("bob", "person", "member")
AUD = UserAdded("aud", "person", "auditor")
BOT = UserAdded("bot", "service_account", "member")
RESUME = ResumeLedger((3,), "looked at it")
PLATFORM_ADMIN = UserAdded("op", "person", "admin")
COMMANDS: list[Command] = [
    SwitchKeys(enabled=True, reason=None),
    AddUser("new", "person", "admin"),
    ChangeRole("bob", "auditor"),
    SwitchUser("bob", enabled=False),
    ErasePerson("bob"),
    RESUME,
]


def acme(*events: LedgerEvent) -> World:
    return given(REGISTERED, ANN, BOB, AUD, BOT, *events)


def test_an_operator_registers_an_organisation_once():
    assert given().when(OPERATOR, RegisterOrg("Acme")) == OrgRegistered("Acme")
    assert given(REGISTERED).when(OPERATOR, RegisterOrg("Acme")) is errors.OrgExists


@pytest.mark.parametrize("caller", [person("ann"), STRANGER, BOOTSTRAP, api_key("ann", "keys:write")])
def test_nobody_but_an_operator_registers_an_organisation(caller: Caller):
    assert given().when(caller, RegisterOrg(None)) is errors.Forbidden


def test_an_operators_api_key_needs_keys_write_to_register():
    key = Caller("platform", "op", key_id="K" * 22, scopes=("keys:read",), operator_revision=7)
    assert given().when(key, RegisterOrg(None)) is errors.InsufficientScope


def test_the_bootstrap_registers_platform_and_adds_its_first_admin_and_nothing_else():
    assert given(org="platform").when(BOOTSTRAP, RegisterOrg(None)) == OrgRegistered(None)
    platform = given(OrgRegistered(None), org="platform")
    assert platform.when(BOOTSTRAP, AddUser("op", "person", "admin")) == PLATFORM_ADMIN
    assert platform.when(BOOTSTRAP, AddUser("op", "person", "member")) is errors.Forbidden
    assert platform.when(BOOTSTRAP, AddUser("op", "service_account", "admin")) is errors.Forbidden
    assert platform.when(BOOTSTRAP, SwitchKeys(enabled=True, reason=None)) is errors.Forbidden


def test_the_bootstrap_may_nothing_once_platform_has_an_admin():
    platform = given(OrgRegistered(None), PLATFORM_ADMIN, org="platform")
    assert platform.when(BOOTSTRAP, AddUser("op2", "person", "admin")) is errors.Forbidden


@pytest.mark.parametrize("command", COMMANDS)
def test_the_bootstrap_is_a_stranger_in_every_other_organisation(command: Command):
    assert acme().when(BOOTSTRAP, command, halted=True) is errors.NotFound


@pytest.mark.parametrize("command", COMMANDS)
def test_operators_and_admins_command_where_members_and_auditors_may_not(command: Command):
    admins_may = command is not RESUME
    assert isinstance(acme().when(OPERATOR, command, halted=True), LedgerEvent)
    assert (acme().when(person("ann"), command, halted=True) is errors.Forbidden) is not admins_may
    assert acme().when(person("bob"), command, halted=True) is errors.Forbidden
    assert acme().when(person("aud"), command, halted=True) is errors.Forbidden


@pytest.mark.parametrize("command", COMMANDS)
def test_strangers_find_nothing_and_unknown_or_disabled_users_are_turned_away(command: Command):
    assert acme().when(STRANGER, command, halted=True) is errors.NotFound
    assert acme().when(api_key("eve", org="other"), command, halted=True) is errors.NotFound
    assert acme().when(person("nobody"), command, halted=True) is errors.CallerDisabled
    disabled = acme(UserAdded("ann2", "person", "admin"), UserDisabled("ann"))
    assert disabled.when(person("ann"), command, halted=True) is errors.CallerDisabled


@pytest.mark.parametrize("command", COMMANDS)
def test_an_api_key_needs_keys_write_whoever_owns_it(command: Command):
    assert acme().when(api_key("ann", "keys:read"), command, halted=True) is errors.InsufficientScope
    if getattr(command, "role", None) == "admin":
        return  # A key makes no admin: the test below.
    allowed = acme().when(api_key("ann", "keys:write"), command, halted=True)
    assert allowed == acme().when(person("ann"), command, halted=True)


def test_nothing_happens_in_an_organisation_that_was_never_registered():
    assert given().when(OPERATOR, SwitchKeys(enabled=True, reason=None)) is errors.NotFound


def test_keys_are_switched_on_and_off_and_a_second_time_changes_nothing():
    on, off = SwitchKeys(enabled=True, reason="pilot"), SwitchKeys(enabled=False, reason=None)
    assert acme().when(OPERATOR, on) == OrgKeysEnabled("pilot")
    assert acme().when(OPERATOR, off) is None
    assert acme(OrgKeysEnabled()).when(person("ann"), on) is None
    assert acme(OrgKeysEnabled()).when(person("ann"), off) == OrgKeysDisabled(None)


def test_only_a_halted_organisation_is_resumed_and_only_by_an_operator():
    assert acme().when(OPERATOR, RESUME) is errors.NotHalted
    assert acme().when(OPERATOR, RESUME, halted=True) == LedgerResumed((3,), "looked at it")
    platform = given(OrgRegistered(None), PLATFORM_ADMIN, org="platform")
    assert platform.when(person("op", "platform"), RESUME, halted=True) == LedgerResumed((3,), "looked at it")


def test_changes_of_a_user_make_their_events_once():
    assert acme().when(person("ann"), ChangeRole("bob", "auditor")) == UserRoleChanged("bob", "auditor")
    assert acme().when(person("ann"), ChangeRole("bob", "member")) is None
    assert acme().when(person("ann"), SwitchUser("bob", enabled=False)) == UserDisabled("bob")
    assert acme().when(person("ann"), SwitchUser("bob", enabled=True)) is None
    assert acme(UserDisabled("bob")).when(person("ann"), SwitchUser("bob", enabled=True)) == UserEnabled("bob")
    assert acme().when(person("ann"), ErasePerson("bob")) == PersonErased("bob")


def test_an_erased_person_stays_erased():
    erased = acme(PersonErased("bob"))
    assert erased.when(person("ann"), ErasePerson("bob")) is None
    assert erased.when(person("ann"), SwitchUser("bob", enabled=True)) is errors.PersonWasErased
    assert erased.when(person("ann"), ChangeRole("bob", "admin")) is errors.PersonWasErased
    assert erased.when(person("bob"), SwitchUser("bob", enabled=True)) is errors.CallerDisabled


@pytest.mark.parametrize("command", [ChangeRole("zed", "admin"), SwitchUser("zed", enabled=False), ErasePerson("zed")])
def test_an_unknown_user_is_not_found(command: Command):
    assert acme().when(person("ann"), command) is errors.NotFound


@pytest.mark.parametrize("command", [ChangeRole("ann", "member"), SwitchUser("ann", enabled=False), ErasePerson("ann")])
def test_the_last_active_admin_stays_whoever_asks(command: Command):
    assert acme().when(person("ann"), command) is errors.LastAdmin
    assert acme().when(OPERATOR, command) is errors.LastAdmin
    second_is_disabled = acme(UserAdded("ann2", "person", "admin"), UserDisabled("ann2"))
    assert second_is_disabled.when(OPERATOR, command) is errors.LastAdmin
    assert isinstance(acme(UserAdded("ann2", "person", "admin")).when(person("ann"), command), LedgerEvent)


def test_a_disabled_admin_is_not_the_last_one():
    disabled = acme(UserAdded("ann2", "person", "admin"), UserDisabled("ann2"))
    assert disabled.when(OPERATOR, ChangeRole("ann2", "member")) == UserRoleChanged("ann2", "member")
    assert disabled.when(OPERATOR, ErasePerson("ann2")) == PersonErased("ann2")


def test_an_organisation_without_an_admin_may_go_on_without_one():
    none = given(REGISTERED, BOB)
    assert none.when(OPERATOR, SwitchUser("bob", enabled=False)) == UserDisabled("bob")


@pytest.mark.parametrize(
    ("past", "event"),
    [
        ((), ANN),
        ((), OrgKeysEnabled()),
        ((REGISTERED,), REGISTERED),
        ((REGISTERED, ANN), ANN),
        ((REGISTERED,), UserDisabled("ann")),
        ((REGISTERED, ANN, PersonErased("ann")), UserEnabled("ann")),
        ((REGISTERED, ANN, PersonErased("ann")), UserRoleChanged("ann", "member")),
        ((REGISTERED, ANN, PersonErased("ann")), PersonErased("ann")),
    ],
)
def test_an_event_that_the_state_forbids_breaks_the_fold(past: tuple[LedgerEvent, ...], event: LedgerEvent):
    with pytest.raises(BrokenTransition):
        given(*past).then(event)


@pytest.mark.parametrize("command", [AddUser("new", "person", "admin"), ChangeRole("bob", "admin")])
def test_an_api_key_makes_no_admin_whoever_owns_it(command: Command):
    assert acme().when(api_key("ann", "keys:write"), command) is errors.Forbidden
    assert acme().when(person("ann"), command) is not errors.Forbidden
