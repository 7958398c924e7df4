"""Compares what Kafka holds, what the archive in PostgreSQL holds, and what was signed: three who should say the same.

The log is read whole and sorted by the chain rule, in a store of its own that nobody else wrote.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, Final

from psycopg.rows import tuple_row

from schemas.events import Envelope
from schemas.topics import LIFECYCLE, PARTITIONS
from services.auditor import checkpoints
from services.auditor.checkpoints import Session
from services.auditor.verify_bundle import read_lines
from services.ledger.chain import Applied, Foreign, Sorted, Void
from services.ledger.fold import Folder
from services.ledger.lmdb_chain import LmdbChain
from services.ledger.log import Log, LogUnavailable
from services.ledger.records import Record, TopicPartition
from services.ledger.seal import LedgerKeys
from services.ledger.store import Store

MOST_FAULTS: Final = 100
"""So many are named; all are counted."""
_ASK_S: Final = 10.0
_POLL_MS: Final = 1000
_SILENT_POLLS: Final = 60
_AT_ONCE: Final = 2000
_ROWS: Final = """
    SELECT "offset", org_id, revision, outcome, hash, value FROM read.ledger_records WHERE partition = %s ORDER BY "offset"
"""
_OUTCOMES: Final[dict[type[Sorted], str]] = {Applied: "applied", Void: "void"}
_COUNTED: Final = {"applied": "applied", "void": "void", "foreign": "foreign", "broken": "halting"}
Row = tuple[int, str, int, str, str, bytes]


class LiveReport:
    """`counts`: records by outcome, `behind` those that the archive has not read yet, `agreeing` signed lines that the log
    bears out. `faults` are sentences, each with the place; `fault_count` counts also those that were too many to name.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.fault_count = 0
        self.checkpoints = 0

    def fault(self, sentence: str) -> None:
        """Something is wrong."""
        self.fault_count += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(sentence)

    def lines(self) -> list[str]:
        """For a person."""
        counts = self.counts
        unnamed = self.fault_count - len(self.faults)
        return [
            *self.faults,
            *([f"and {unnamed} more"] if unnamed else []),
            "in the log: " + ", ".join(f"{counts[what]} {name}" for what, name in _COUNTED.items()),
            f"the archive is {counts['behind']} records behind",
            f"{counts['agreeing']} signed heads of {self.checkpoints} checkpoints are in the log",
            "VERIFIED" if not self.fault_count else "NOT VERIFIED",
        ]


class _Judge:
    """The Fold of who judges chains only, and the Archive that compares what is applied with what was signed."""

    def __init__(self, signed: Mapping[tuple[str, int], tuple[str, str]], report: LiveReport) -> None:
        self._signed, self._report = signed, report

    def evolve(self, envelope: Envelope, offset: int) -> None:
        """See Fold."""

    def sorted(self, record: Record, outcome: Sorted) -> None:
        """See Archive."""
        self._compare(outcome)

    def resorted(self, org: str, offset: int, outcome: Applied | Void) -> None:
        """See Archive."""
        self._compare(outcome)

    def _compare(self, outcome: Sorted) -> None:
        link = outcome.link if isinstance(outcome, Applied) else None
        if link is None or (link.org, link.revision) not in self._signed:
            return
        hash_, when = self._signed[link.org, link.revision]
        if hash_ == link.hash:
            self._report.counts["agreeing"] += 1
        else:
            self._report.fault(
                f"contradiction: {link.org} revision {link.revision} was signed at {when} as {hash_}, and is {link.hash}"
            )


def compare(
    log: Log,
    session: Session,
    store: Store,
    keys: LedgerKeys,
    public_keys: str | None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> LiveReport:
    """Read the log to its end; `store` must be empty. Without `public_keys` no checkpoint is looked at.

    Raises LogUnavailable, Unverified for a checkpoint that was not signed by them, and psycopg.Error.
    """
    report = LiveReport()
    signed = _signed_heads(session, public_keys, report) if public_keys else {}
    partitions = [TopicPartition(LIFECYCLE, partition) for partition in range(PARTITIONS)]
    first, ends = log.first_offsets(partitions, _ASK_S), log.end_offsets(partitions, _ASK_S)
    places, judge = _places(session), _Judge(signed, report)
    total = sum(ends[at] - first[at] for at in partitions)
    done = 0
    for at in partitions:
        with store.write() as txn:
            folder = Folder(keys, LmdbChain(txn), judge, judge)
            rows = _Rows(session, at.partition, report)
            for record in _records(log, at, first[at], ends[at]):
                outcome = folder.take(record)
                rows.compare(record, outcome, places.get(at, 0))
                done += 1
                if done % _AT_ONCE == 0:
                    tell(done, total)
            # What came while we read is not looked at; what no log holds is.
            rows.finish(max(ends[at], log.end_offsets([at], _ASK_S)[at]))
            report.counts.update(folder.counts)
    _check_ends(store, signed, report)
    return report


def _records(log: Log, at: TopicPartition, first: int, end: int) -> Iterator[Record]:
    if first >= end:
        return
    with closing(log.reader({at: first})) as reader:
        silent = 0
        while (reader.positions()[at]) < end:
            found = reader.poll(_POLL_MS)
            silent = 0 if found else silent + 1
            if silent > _SILENT_POLLS:
                raise LogUnavailable(f"no record came from {at.topic}/{at.partition}, which ends at {end}")
            yield from (record for record in found if record.offset < end)


class _Rows:
    """The archive's rows of a partition, walked beside its records."""

    def __init__(self, session: Session, partition: int, report: LiveReport) -> None:
        self._report, self._at = report, f"{LIFECYCLE}/{partition}"
        self._rows = self._read(session, partition)
        self._row: Row | None = next(self._rows, None)

    @staticmethod
    def _read(session: Session, partition: int) -> Iterator[Row]:
        with session.transaction(), session.cursor(f"rows{partition}", row_factory=tuple_row) as cursor:
            cursor.itersize = _AT_ONCE
            yield from cursor.execute(_ROWS, [partition])

    def compare(self, record: Record, outcome: Sorted, projected: int) -> None:
        """A record beside its row. `projected` is the offset that the projector reads next."""
        self._skip_to(record.offset)
        if isinstance(outcome, Foreign):
            return
        row, where = self._row, f"{self._at} offset {record.offset}"
        if row is None or row[0] != record.offset:
            if record.offset >= projected:
                self._report.counts["behind"] += 1
            else:
                self._report.fault(f"gap in the archive: {where} ({outcome.link.org}) is only in the log")
            return
        self._row = next(self._rows, None)
        _, org, revision, told, hash_, value = row
        link = outcome.link
        if value != record.value or hash_ != hashlib.sha256(value).hexdigest():
            self._report.fault(f"changed: {where}, {link.org} revision {link.revision}, has other bytes in the archive")
        elif (org, revision) != (link.org, link.revision):
            self._report.fault(
                f"changed: {where} is {link.org} revision {link.revision}; the archive says {org} {revision}"
            )
        elif type(outcome) in _OUTCOMES and told != _OUTCOMES[type(outcome)]:
            self._report.fault(
                f"changed: {where}, {org} revision {revision}, is {_OUTCOMES[type(outcome)]}; the archive says {told}"
            )

    def finish(self, end: int) -> None:
        """No record comes any more before offset `end`."""
        while self._row is not None and self._row[0] < end:
            self._row = next(self._rows, None)
        self._skip_to(2**63)

    def _skip_to(self, offset: int) -> None:
        while self._row is not None and self._row[0] < offset:
            at, org, revision, *_ = self._row
            self._report.fault(
                f"gap in the log: {self._at} offset {at} ({org} revision {revision}) is only in the archive"
            )
            self._row = next(self._rows, None)


def _signed_heads(session: Session, public_keys: str, report: LiveReport) -> dict[tuple[str, int], tuple[str, str]]:
    """By organisation and revision: the hash that was signed, and when first."""
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for signed in checkpoints.all_of(session, public_keys):
        report.checkpoints += 1
        for org, head in read_lines(signed.lines).items():
            known = found.setdefault((org, head.revision), (head.hash, signed.time))
            if known[0] != head.hash:
                report.fault(f"fork: {org} revision {head.revision} was signed as {known[0]} and as {head.hash}")
    return found


def _check_ends(store: Store, signed: Mapping[tuple[str, int], tuple[str, str]], report: LiveReport) -> None:
    """What was signed and is past the end of its ledger, and who is halted."""
    with store.read() as txn:
        chain = LmdbChain(txn)
        heads = dict(chain.heads())
        for org in chain.halted():
            halt = chain.halt(org)
            report.fault(f"halted: {org}: {halt.why}: {halt.detail}" if halt else f"halted: {org}")
    for (org, revision), (_, when) in signed.items():
        reached = heads[org].revision if org in heads else 0
        if reached < revision:
            report.fault(f"truncated: {org} ends at revision {reached}; {revision} was signed at {when}")


def _places(session: Session) -> dict[TopicPartition, int]:
    cursor: Any = session.cursor(row_factory=tuple_row)
    cursor.execute("SELECT partition, next_offset FROM read.checkpoints WHERE topic = %s", [LIFECYCLE])
    return {TopicPartition(LIFECYCLE, partition): next_offset for partition, next_offset in cursor.fetchall()}
