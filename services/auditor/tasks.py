"""What `keyledger audit` does: each task opens what it needs, does it, and says what came of it."""

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, NoReturn

import psycopg
from tqdm import tqdm

from schemas.times import wall_clock_ms
from services.auditor.checkpoints import Session
from services.auditor.export import CannotExport, export
from services.auditor.live import compare
from services.auditor.notary import Contradiction, Notary
from services.auditor.signing_key import BadKeyFile, open_signing_key
from services.auditor.verify_bundle import Unverified, lines_of, read_keys, verify
from services.ledger import seal
from services.ledger.kafka_log import KafkaLog
from services.ledger.lmdb_chain import CHAIN_TABLES
from services.ledger.store import Store

_KEY_FILE: Final = "signing-key"
_PUBLIC_FILE: Final = "notary.pub"


class Told(NamedTuple):
    """The outcome in words; `is_good` is false where somebody must look."""

    text: str
    is_good: bool


def public_keys(state: Path) -> str:
    """The public keys of the notary of this folder, one a line; its key is made when there is none. Raises ValueError."""
    try:
        return open_signing_key(state / _KEY_FILE).public_keys()
    except BadKeyFile as error:
        raise ValueError(str(error)) from error


def take_checkpoint(database_url: str, bootstrap: str, ledger_keys: Path, state: Path) -> Told:
    """Sign where every ledger stands, and keep it in `state`/checkpoints too; the public keys go to `state`/notary.pub,
    where the read API of this machine may look for them.

    Raises ValueError for what must be set right, ConnectionError and LogUnavailable for what is away.
    """
    try:
        key, keys = open_signing_key(state / _KEY_FILE), read_ledger_keys(ledger_keys)
    except BadKeyFile as error:
        raise ValueError(str(error)) from error
    (state / _PUBLIC_FILE).write_text(key.public_keys())
    with (
        open_session(database_url) as session,
        closing(KafkaLog(bootstrap, "notary")) as log,
        closing(Store(state / "ledger", CHAIN_TABLES)) as store,
        progress("reading the ledgers") as tell,
    ):
        try:
            signed, file = Notary(log, store, keys, session, key, state / "checkpoints", wall_clock_ms, tell).sign()
        except (Contradiction, Unverified) as error:
            return Told(f"NOT SIGNED: {error}", False)
    return Told(f"signed at {signed.time}: {len(signed.heads)} organisations by {key.origin}; {file}", True)


def export_bundle(database_url: str, folder: Path, orgs: Collection[str], key_file: Path) -> Told:
    """Write a bundle and verify it at once. Raises ValueError for what must be set right, and ConnectionError."""
    try:
        keys = key_file.read_text()
        with open_session(database_url) as session, progress("exporting") as tell:
            export(session, folder, orgs, keys, tell)
        report = verify(folder, read_keys(keys), [])
    except (CannotExport, Unverified) as error:
        return Told(f"NOT EXPORTED: {error}", False)
    except ConnectionError:
        raise
    except OSError as error:  # A file that is not there, a folder that is, a full disk.
        raise ValueError(str(error)) from error
    return Told("\n".join(lines_of(report)), not report.faults)


def verify_live(database_url: str, bootstrap: str, ledger_keys: Path, key_file: Path | None) -> Told:
    """Compare Kafka, the archive and the checkpoints. Raises ValueError, ConnectionError and LogUnavailable."""
    try:
        keys, public = read_ledger_keys(ledger_keys), None if key_file is None else key_file.read_text()
    except OSError as error:
        raise ValueError(str(error)) from error
    with (
        TemporaryDirectory(prefix="keyledger-verify.") as folder,
        open_session(database_url) as session,
        closing(KafkaLog(bootstrap, "verify")) as log,
        closing(Store(Path(folder), CHAIN_TABLES)) as store,
        progress("reading the log and the archive") as bar,
    ):
        try:
            report = compare(log, session, store, keys, public, bar)
        except Unverified as error:
            return Told(f"NOT VERIFIED: {error}", False)
    return Told("\n".join(report.lines()), not report.fault_count)


def read_ledger_keys(path: Path) -> seal.LedgerKeys:
    """The services' ledger keys; none are made, because a fresh one seals nothing that was written. Raises ValueError."""
    if not path.exists():
        raise ValueError(f"{path} does not exist: restore the ledger-keys file first")
    try:
        return seal.load_or_make(path)
    except seal.BadKeyFile as error:
        raise ValueError(str(error)) from error


@contextmanager
def open_session(database_url: str) -> Iterator[Session]:
    """A session with PostgreSQL. Raises ConnectionError when it is away, ValueError when it has no tables of ours."""
    try:
        with closing(psycopg.connect(database_url, autocommit=True, application_name="keyledger-audit")) as session:
            yield session
    except psycopg.OperationalError as error:
        raise ConnectionError(f"PostgreSQL does not answer: {' '.join(str(error).split())}") from error
    except psycopg.ProgrammingError as error:
        raise ValueError(f"DATABASE_URL leads to no tables of a projector: {error}") from error


class _Bar:
    """A bar on standard error, where a person looks at it."""

    def __init__(self, text: str) -> None:
        self._bar: tqdm[NoReturn] = tqdm(desc=text, unit=" records", unit_scale=True, leave=False, disable=None)

    def __call__(self, done: int, of: int) -> None:
        self._bar.total = of
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take it away."""
        self._bar.close()


@contextmanager
def progress(text: str) -> Iterator[_Bar]:
    """A bar for the length of a `with`, to be told how many records are done, and of how many."""
    with closing(_Bar(text)) as bar:
        yield bar
