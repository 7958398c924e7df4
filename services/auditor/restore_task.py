"""What `keyledger ledger restore` does: it opens what a restore needs, and says what came of it and what comes next."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from schemas.times import to_text, wall_clock_ms
from schemas.topics import LIFECYCLE
from services.auditor.checkpoints import Session
from services.auditor.known_heads import known_heads
from services.auditor.read_tables import ReadTables
from services.auditor.restore import CannotRestore, Restore, Restored
from services.auditor.stored_records import Archive, Bundle
from services.auditor.tasks import Told, open_session, progress, read_ledger_keys
from services.auditor.verify_bundle import Unverified
from services.ledger import seal
from services.ledger.kafka_log import KafkaLog
from services.ledger.lmdb_chain import CHAIN_TABLES
from services.ledger.preflight import PreflightFailed, prepare
from services.ledger.store import Store


@dataclass(frozen=True)
class Wanted:
    """From where to restore: a bundle's folder, or else the archive. `states` are folders of command APIs and checkers."""

    bundle: Path | None
    key_file: Path | None
    states: Sequence[Path] = ()


def restore_ledger(database_url: str, bootstrap: str, ledger_keys: Path, wanted: Wanted) -> Told:
    """Append to Kafka what it has lost. Raises ValueError for what must be set right, ConnectionError and LogUnavailable."""
    try:
        keys = read_ledger_keys(ledger_keys)
        public = wanted.key_file.read_text() if wanted.key_file else None
        with open_session(database_url) as session:
            return _restore(session, bootstrap, keys, wanted, public)
    except (CannotRestore, Unverified) as error:
        return Told(f"{error}\nNOT RESTORED: nothing was appended", False)
    except ConnectionError:
        raise
    except (PreflightFailed, OSError) as error:
        raise ValueError(str(error)) from error


def _restore(session: Session, bootstrap: str, keys: seal.LedgerKeys, wanted: Wanted, public: str | None) -> Told:
    if wanted.bundle is None:
        source: Archive | Bundle = Archive(session)
    elif public is None:
        raise ValueError("a bundle is verified before it is believed: give the file of public keys with --key")
    else:
        source = Bundle(wanted.bundle, public)
    known = known_heads(session, public, wanted.states)
    tables, topic_ids = ReadTables(session), prepare(bootstrap)
    again = tables.made_again(topic_ids)
    if LIFECYCLE in again and not tables.keep_projectors_away():
        raise ValueError(f"{LIFECYCLE} was made again and a projector runs: stop it first")
    with (
        TemporaryDirectory(prefix="keyledger-restore.") as folder,
        closing(KafkaLog(bootstrap, "restore")) as log,
        closing(Store(Path(folder), CHAIN_TABLES)) as store,
        progress("restoring") as tell,
        _quiet(),
    ):
        restored = Restore(log, store, keys, source, known, wall_clock_ms, tables.places, tell).run()
    told = [*told_of(restored, source.name), *_next_steps(tables, again, restored, source)]
    if LIFECYCLE in again or not tables.topic_ids:
        told += _told_of_stores(wanted.states)
    return Told("\n".join(told), not restored.refused and not restored.halted)


def told_of(restored: Restored, source: str) -> list[str]:
    """What came of a restore, for a person."""
    lines = [f"{org}: REFUSED, nothing of it was appended: {why}" for org, why in sorted(restored.refused.items())]
    for org, why in sorted(restored.halted.items()):
        closed = " by a marker" if org in restored.marked else ""
        lines.append(f"{org}: HALTED{closed}: {why}")
    appended = sum(restored.appended.values())
    lines.append(
        f"appended {appended} records of {len(restored.appended)} organisations from {source}, and"
        f" {len(restored.marked)} markers; {restored.present} sealed records were there"
    )
    return lines


def _next_steps(tables: ReadTables, again: Sequence[str], restored: Restored, source: Archive | Bundle) -> list[str]:
    """Empty the projector's tables where they do not fit the log any more, if that loses nothing."""
    if LIFECYCLE not in again and tables.places.keys() <= restored.unmoved:
        return []
    if isinstance(source, Bundle):
        return ["the projector's tables do not fit the log: now run this with --from archive, which also empties them"]
    if restored.refused:
        return [
            "the projector's tables do not fit the log and were left, for the archive has what was refused: see operations.md"
        ]
    if not tables.keep_projectors_away():
        return ["the projector's tables do not fit the log: stop the projectors and run this again"]
    kept = f"read_before_{to_text(wall_clock_ms())}".replace(":", "").replace("-", "").replace(".", "").lower()
    tables.empty(list(again), kept)
    return [
        f"the projector's tables were emptied, and will be made again; the archive as it was is {kept}.ledger_records"
    ]


def _told_of_stores(states: Sequence[Path]) -> list[str]:
    named = [
        f"  rm -r {state}/{what}"
        for state in states
        for what in ("ledger", "index", "topic-ids.json")
        if (state / what).exists()
    ]
    return [
        f"{LIFECYCLE} is a new topic: before its start, each command API and each checker must forget the old one (`ledger`, or"
        " `index` and `topic-ids.json`, in its KEYLEDGER_STATE_DIR)" + (":" if named else ""),
        *named,
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """No log lines meanwhile: they would say that organisations are halted, where one only looks whether they would be."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
