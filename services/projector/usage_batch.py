"""The records of `key-usage` and `key-usage-external` in one transaction."""

from collections import Counter
from collections.abc import Mapping, Sequence

import structlog

from schemas.cloud_events import read_usage
from schemas.codec import encode_usage
from schemas.decoder import UndecodableEvent, UsageDocument, usage_document
from schemas.fields import MAX_INTEGER
from schemas.times import LATEST_MS, to_text
from schemas.topics import CHECKER_SOURCE, USAGE
from services.ledger.records import Record, TopicPartition
from services.projector.database import Writer
from services.projector.key_births import Birth, KeyBirths, OrgKey
from services.projector.quarantine import BEFORE_CREATION, FUTURE, WAITING, Held
from services.projector.read_models.usage import UsageRows, unseen
from services.projector.read_models.usage_sources import UsageSources

Found = tuple[Record, UsageDocument]
_log = structlog.get_logger("keyledger.projector")


class UsageBatch:
    """Counts each use once, and holds those that cannot have been. `tolerance_ms` is by how much clocks may disagree."""

    def __init__(self, session: Writer, births: KeyBirths, tolerance_ms: int) -> None:
        self._session, self._births, self._tolerance_ms = session, births, tolerance_ms
        self._rows, self._held = UsageRows(), Held()

    def project(self, records: Sequence[Record], whole: Mapping[TopicPartition, bool]) -> Counter[str]:
        """The counts are by outcome. `whole`: is every record of the partition, from offset 0 on, read?

        Raises psycopg.Error.
        """
        found = _read(records)
        taken, gaps = self._take(found, whole)
        births = self._births.of(self._session, {(one.data.org_id, one.data.key_id) for _, one in taken})
        self._judge(taken, births)
        self._rows.write(self._session)
        self._held.write(self._session)
        held = self._held.counts
        return Counter(
            foreign=len(records) - len(found),
            duplicates=len(found) - len(taken),
            gaps=gaps,
            usage=len(taken) - held.total(),
            **held,
        )

    def _take(self, found: Sequence[Found], whole: Mapping[TopicPartition, bool]) -> tuple[list[Found], int]:
        """Those that did not come before, by their number, or by their id where they have none; and how many gaps there are."""
        numbered = {(at.topic, one.source, at.partition) for at, one in found if one.sequence is not None}
        sources = UsageSources(self._session, numbered, whole)
        # Of copies the first one tells the time, however they fall into batches.
        others = {(one.source, one.id): at.time_ms for at, one in reversed(found) if one.sequence is None}
        is_new = unseen(self._session, others)
        taken = [
            (record, one)
            for record, one in found
            if (
                is_new((one.source, one.id))
                if one.sequence is None
                else sources.take((record.topic, one.source, record.partition), int(one.sequence))
            )
        ]
        sources.write()
        return taken, sources.gaps

    def _judge(self, taken: Sequence[Found], births: Mapping[OrgKey, Birth]) -> None:
        add, hold = self._rows.add, self._held.add
        sent_ms, latest = -1, ""
        for record, document in taken:
            used = document.data
            birth, is_own = births.get((used.org_id, used.key_id)), record.topic == USAGE
            if record.time_ms != sent_ms:  # The broker gives all records of a request the same.
                sent_ms = record.time_ms
                latest = to_text(min(sent_ms + self._tolerance_ms, LATEST_MS))
            if used.last_at > latest:
                hold(record, document, FUTURE)
            elif birth is None:
                # A checker's use can overtake the creation of its key, and is one all the same.
                add(used, document.source) if is_own else hold(record, document, WAITING)
            elif used.first_at < birth.earliest:
                hold(record, document, BEFORE_CREATION)
            else:
                # A checker says whose key it let in; of all others the ledger knows better.
                add(used, document.source, None if is_own else birth.user_id)


def _read(records: Sequence[Record]) -> list[Found]:
    """Those that are a KeyUsed, each with what it says. Of the others one line in the log tells, however many they are."""
    found: list[Found] = []
    foreign: list[tuple[Record, str]] = []
    for record in records:
        try:
            found.append(_decoded(record))
        except UndecodableEvent as error:
            foreign.append((record, str(error)[:200]))
    if foreign:
        [(first, why), *_] = foreign
        place = {"topic": first.topic, "partition": first.partition, "offset": first.offset}
        _log.warning("foreign", records=len(foreign), why=why, **place)
    return found


def _decoded(record: Record) -> Found:
    """The record in our own form, and what it says. Raises UndecodableEvent."""
    value, is_own = record.value or b"", record.topic == USAGE
    try:
        document = usage_document(value)
    except UndecodableEvent:
        if is_own:
            raise
        record = record._replace(value=encode_usage(read_usage(value, record.headers)))
        document = usage_document(record.value or b"")
    if not is_own and document.source.startswith(CHECKER_SOURCE):
        raise UndecodableEvent("nobody else may speak for a checker")
    number = document.sequence
    if (is_own or number is not None) and not 1 <= int(number or 0) <= MAX_INTEGER:
        raise UndecodableEvent("a sequence counts from 1 on, and a checker's KeyUsed has one")
    return record, document
