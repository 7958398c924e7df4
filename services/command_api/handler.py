"""Carries a command out: finds out whether it was done before, asks the rules, appends, and folds what was applied."""

from dataclasses import dataclass

from schemas.events import AuthType, Envelope, KeyCreated, KeyRenamed, KeyRevoked, LedgerEvent, LedgerResumed
from schemas.topics import LIFECYCLE, partition_of
from services.command_api import key as key_rules
from services.command_api import organisation, state
from services.command_api.commands import Caller, Command, CreateKey, RegisterOrg, RenameKey, ResumeLedger, RevokeKey
from services.command_api.errors import IdempotencyKeyReused, NotFound, OrgHalted
from services.command_api.state import LmdbView
from services.ledger import command_ids
from services.ledger.append import WAIT_S, Appended, Appender, Cause
from services.ledger.command_ids import CommandIds, Remembered
from services.ledger.follow import Follower
from services.ledger.lmdb_chain import LmdbChain
from services.ledger.records import TopicPartition
from services.ledger.store import Store, Transaction

TABLES = (*state.TABLES, *command_ids.TABLES)


class CommandFold:
    """Folds applied events into the command API's tables, inside one LMDB transaction."""

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn

    def evolve(self, envelope: Envelope, offset: int) -> None:
        """See Fold. Raises BrokenTransition, and then nothing is written."""
        view, event = LmdbView(self._txn, envelope.org), envelope.event
        match event:
            case LedgerResumed():
                changes = None
            case KeyCreated() | KeyRenamed() | KeyRevoked():
                changes = key_rules.evolve(view, envelope, event)
            case _:
                changes = organisation.evolve(view, envelope, event)
        if changes is not None:
            view.write(changes)
        CommandIds(self._txn, envelope.org).remember(envelope)


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a command the same command: its id, and the hash of its body."""

    commandid: str
    commandhash: str
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a command: `appended` now, or `repeated` from an earlier time; neither when it was so already."""

    appended: Appended | None
    repeated: Remembered | None


class CommandHandler:
    """Handles commands of all organisations. Thread-safe."""

    def __init__(self, appender: Appender, store: Store, follower: Follower, most_keys: int) -> None:
        self._appender, self._store, self._follower, self._most_keys = appender, store, follower, most_keys

    def handle(self, org: str, caller: Caller, command: Command, identity: Identity) -> Done:
        """Carry a command out. Raises Refused, Busy, OutcomeUnknown and LogUnavailable."""
        # A stranger learns nothing, not even that the organisation is halted, and costs no look at the log.
        organisation.admit(org, caller, registering=isinstance(command, RegisterOrg))
        repeated: Remembered | None = None

        def decide(txn: Transaction, now: str) -> LedgerEvent | None:
            nonlocal repeated
            repeated = self._done_before(txn, org, caller, command, identity)
            return None if repeated is not None else self._decide(txn, org, caller, command, now)

        appended = self._appender.execute(org, self._cause(org, caller, identity), decide)
        return Done(appended, repeated)

    def check_asking(self, org: str, caller: Caller, revision: int) -> None:
        """Whether the caller may ask about this revision's effect. Raises Refused, LogUnavailable."""
        organisation.admit(org, caller, registering=False)
        # Who may ask is ledger state, and so is how far the ledger goes: judged at its end.
        self._follower.reach_end(TopicPartition(LIFECYCLE, partition_of(org)), WAIT_S)
        with self._store.read() as txn:
            chain = LmdbChain(txn)
            if chain.halt(org) is not None:
                raise OrgHalted
            organisation.may_ask(LmdbView(txn, org), org, caller)
            if chain.head(org).revision < revision:
                raise NotFound

    def halted(self, org: str) -> tuple[bool, int]:
        """Whether the organisation is halted, and the revision of its head."""
        with self._store.read() as txn:
            chain = LmdbChain(txn)
            return chain.halt(org) is not None, chain.head(org).revision

    def _done_before(
        self, txn: Transaction, org: str, caller: Caller, command: Command, identity: Identity
    ) -> Remembered | None:
        halted = LmdbChain(txn).halt(org) is not None
        if halted and not isinstance(command, ResumeLedger):
            raise OrgHalted
        if not isinstance(command, RegisterOrg):
            organisation.acting(LmdbView(txn, org), org, caller)
        remembered = CommandIds(txn, org).find(identity.commandid)
        if remembered is not None and remembered.commandhash != identity.commandhash:
            raise IdempotencyKeyReused
        return remembered

    def _decide(self, txn: Transaction, org: str, caller: Caller, command: Command, now: str) -> LedgerEvent | None:
        view = LmdbView(txn, org)
        if isinstance(command, CreateKey | RenameKey | RevokeKey):
            return key_rules.decide(view, org, caller, command, now=now, most_keys=self._most_keys)
        halted = LmdbChain(txn).halt(org) is not None
        return organisation.decide(view, org, caller, command, halted=halted)

    def _cause(self, org: str, caller: Caller, identity: Identity) -> Cause:
        return Cause(
            authid=caller.user_id,
            authtype=self._auth_type(org, caller),
            commandid=identity.commandid,
            commandhash=identity.commandhash,
            authkey=caller.key_id,
            authrevision=caller.operator_revision or None,
            traceparent=identity.traceparent,
        )

    def _auth_type(self, org: str, caller: Caller) -> AuthType:
        if caller.key_id is not None:
            return "api_key"
        if caller.operator_revision is not None or caller.bootstrap:
            return "operator"
        with self._store.read() as txn:
            user = LmdbView(txn, org).user(caller.user_id)
        return "service_account" if user is not None and user.kind == "service_account" else "user"
