"""What the readers of the log know of each ledger: how far it went, whatever the log says now.

A restore must not make anybody forget that. LMDB readers that find a cut log begin anew, so their stores have to be
asked before they are started.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from schemas.fields import HASH, ID
from services.auditor import checkpoints
from services.auditor.checkpoints import Session
from services.ledger.lmdb_chain import LmdbChain
from services.ledger.store import Store

_HEADS: Final = """
    SELECT org_id, revision, hash FROM read.heads WHERE revision > 0
    UNION SELECT org_id, revision, hash FROM read.halting_records
"""
_STORES: Final = ("", "ledger", "index")
"""Where a folder of a service has its chain: a command API's, or the notary's, in `ledger`, a checker's in `index`."""
_TABLES: Final = ("heads", "halts", "broken")
_SHAPE: Final = re.compile(f"{ID} {HASH}")


class Known(NamedTuple):
    """A reader has seen a sealed record of this revision and hash."""

    reader: str
    org: str
    revision: int
    hash: str


def known_heads(session: Session, public_keys: str | None, states: Sequence[Path]) -> list[Known]:
    """What PostgreSQL, the newest checkpoint and the stores in `states` know; without `public_keys` no checkpoint counts.

    Raises Unverified for a checkpoint that none of the keys signed, ValueError for a folder without a store, psycopg.Error.
    """
    found = [*_projected(session), *(_signed(session, public_keys) if public_keys else ())]
    for state in states:
        found += _stored(state)
    for known in found:
        if not _SHAPE.fullmatch(f"{known.org} {known.hash}"):
            raise ValueError(f"{known.reader} holds what is no head: {known.org!r}, {known.hash!r}")
    return found


def _projected(session: Session) -> Iterator[Known]:
    if session.execute("SELECT to_regclass('read.heads') IS NULL").fetchone() == (True,):
        return
    for org, revision, hash_ in session.execute(_HEADS).fetchall():
        yield Known("the projector", org, revision, hash_)


def _signed(session: Session, public_keys: str) -> Iterable[Known]:
    signed = checkpoints.newest(session, public_keys)
    if signed is None:
        return []
    where = f"the checkpoint of {signed.time}"
    return [Known(where, org, head.revision, head.hash) for org, head in signed.heads.items()]


def _stored(state: Path) -> list[Known]:
    """The heads in a store, and its halting records: these were seen too, and are sealed."""
    folders = [folder for name in _STORES if (folder := state / name).joinpath("data.mdb").exists()]
    if not folders:
        raise ValueError(
            f"{state} holds no store of a reader: name a KEYLEDGER_STATE_DIR of a command API or a checker"
        )
    found = []
    for folder in folders:
        store = Store(folder, _TABLES, read_only=True)
        try:
            with store.read() as txn:
                chain = LmdbChain(txn)
                found += [
                    Known(str(state), org, head.revision, head.hash) for org, head in chain.heads() if head.revision
                ]
                for org in chain.halted():
                    found += [Known(str(state), org, one.link.revision, one.link.hash) for one in chain.broken(org)]
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ValueError(f"{folder} cannot be read: {error}") from error
        finally:
            store.close()
    return found
