"""given(events).when(caller, command): the rules of the command API on plain dicts."""

from dataclasses import dataclass, field
from typing import Any

from schemas.events import Envelope, KeyCreated, KeyRenamed, KeyRevoked, LedgerEvent, LedgerResumed
from services.command_api import key, organisation
from services.command_api.commands import Caller, Command, CreateKey, RenameKey, RevokeKey
from services.command_api.errors import Refused
from services.command_api.state import DictView

ORG = "acme"
NOW = "2030-01-01T00:00:00.000Z"
LATER = "2031-01-01T00:00:00.000Z"
OPERATOR = Caller("platform", "op", operator_revision=7)
BOOTSTRAP = Caller("platform", "bootstrap", bootstrap=True)
STRANGER = Caller("other", "eve")


def person(user_id: str, org: str = ORG) -> Caller:
    """A signed-in user."""
    return Caller(org, user_id)


def api_key(user_id: str, *scopes: str, org: str = ORG) -> Caller:
    """An API key of a user."""
    return Caller(org, user_id, key_id="K" * 22, scopes=scopes)


def key_id(number: int) -> str:
    """A well-formed key id."""
    return f"{number:022d}"


def created(number: int, owner: str, name: str, expires_at: str | None = None) -> KeyCreated:
    """The event of a key that was created."""
    return KeyCreated(key_id(number), owner, name, "d" * 64, "last", expires_at)


def create(
    number: int,
    name: str,
    user_id: str | None = None,
    expires_at: str | None = None,
    scopes: tuple[str, ...] | None = None,
) -> CreateKey:
    """The command to create a key."""
    return CreateKey(key_id(number), user_id, name, "d" * 64, "last", expires_at, scopes, None)


@dataclass
class World:
    """One organisation's state, a View that can be written; `when` decides, `then` folds."""

    org: str = ORG
    view: Any = field(default_factory=DictView)
    revision: int = 0

    def then(self, event: LedgerEvent, time: str = NOW) -> None:
        """Fold an event as the service does. Raises BrokenTransition."""
        self.revision += 1
        link = ("0" * 64, "u", "user", "c" * 36, "h" * 64)
        envelope = Envelope("id", "test", self.org, time, self.org, self.revision, *link, event)  # type: ignore[arg-type]
        match event:
            case LedgerResumed():
                return
            case KeyCreated() | KeyRenamed() | KeyRevoked():
                self.view.write(key.evolve(self.view, envelope, event))
            case _:
                self.view.write(organisation.evolve(self.view, envelope, event))

    def when(
        self, caller: Caller, command: Command, now: str = NOW, most_keys: int = 100, *, halted: bool = False
    ) -> LedgerEvent | type[Refused] | None:
        """The event, None, or the class of the refusal."""
        try:
            if isinstance(command, CreateKey | RenameKey | RevokeKey):
                return key.decide(self.view, self.org, caller, command, now=now, most_keys=most_keys)
            return organisation.decide(self.view, self.org, caller, command, halted=halted)
        except Refused as refused:
            return type(refused)


def given(*events: LedgerEvent, org: str = ORG) -> World:
    """An organisation in which this happened."""
    world = World(org)
    for event in events:
        world.then(event)
    return world
