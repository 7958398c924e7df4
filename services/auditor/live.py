"""Compares what Kafka holds, what the archive in PostgreSQL holds, and what was signed: three who should say the same.

The log is read whole and sorted by the chain rule, in a store of its own that nobody else wrote.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from psycopg.rows import tuple_row

from schemas.topics import LIFECYCLE, PARTITIONS, partition_of
from services.auditor import checkpoints
from services.auditor.checkpoints import Session
from services.auditor.sorting import Sorting, records_of
from services.auditor.verify_bundle import read_lines
from services.ledger.chain import Applied, Foreign, Sorted, Void
from services.ledger.log import Log
from services.ledger.records import Record, TopicPartition
from services.ledger.seal import LedgerKeys
from services.ledger.store import Store

MOST_FAULTS: Final = 100
"""So many are named; all are counted."""
_ASK_S: Final = 10.0
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


def compare(
    log: Log,
    session: Session,
    store: Store,
    keys: LedgerKeys,
    public_keys: str | None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> LiveReport:
    """Read the log to its end; `store` is for this alone: it is emptied. Without `public_keys` no checkpoint is looked at.

    Raises LogUnavailable, Unverified for a checkpoint that was not signed by them, and psycopg.Error.
    """
    report = LiveReport()
    signed = _signed_heads(session, public_keys, report) if public_keys else {}
    partitions = [TopicPartition(LIFECYCLE, partition) for partition in range(PARTITIONS)]
    first, ends = log.first_offsets(partitions, _ASK_S), log.end_offsets(partitions, _ASK_S)
    places = _places(session)
    done, total = 0, sum(ends[at] - first[at] for at in partitions)
    for at in partitions:
        with store.write() as txn:
            sorting, rows = Sorting(txn, keys, signed.keys()), _Rows(session, at.partition, report)
            for record in records_of(log, at, ends[at], first[at]):
                rows.compare(record, sorting.take(record), places.get(at, 0))
                done += 1
                if done % _AT_ONCE == 0:
                    tell(done, total)
            # What came while we read is not looked at; what no log holds is.
            rows.finish(max(ends[at], log.end_offsets([at], _ASK_S)[at]))
            report.counts.update(sorting.counts)
            _check_ledgers(at.partition, sorting, signed, report)
    return report


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


def _check_ledgers(
    partition: int, sorting: Sorting, signed: Mapping[tuple[str, int], tuple[str, str]], report: LiveReport
) -> None:
    """Who is halted in a partition, and what was signed and is another record there, or none."""
    for org in sorting.halted():
        report.fault(f"halted: {org}: {sorting.why_halted(org)}")
    for (org, revision), (hash_, when) in signed.items():
        if partition_of(org) != partition:
            continue
        found = sorting.applied(org, revision)
        if found == hash_:
            report.counts["agreeing"] += 1
        elif found is not None:
            report.fault(f"contradiction: {org} revision {revision} was signed at {when} as {hash_}, and is {found}")
        else:
            report.fault(
                f"truncated: {org} ends at revision {sorting.head(org).revision}; {revision} was signed at {when}"
            )


def _places(session: Session) -> dict[TopicPartition, int]:
    cursor: Any = session.cursor(row_factory=tuple_row)
    cursor.execute("SELECT partition, next_offset FROM read.checkpoints WHERE topic = %s", [LIFECYCLE])
    return {TopicPartition(LIFECYCLE, partition): next_offset for partition, next_offset in cursor.fetchall()}
