"""The records of `key-usage` and `key-usage-external` in one transaction."""

from collections import Counter
from collections.abc import Mapping, Sequence

import structlog

from schemas.decoder import UndecodableEvent, decode_usage
from schemas.events import UsageEnvelope
from schemas.fields import MAX_INTEGER
from schemas.topics import USAGE
from services.ledger.records import Record, TopicPartition
from services.projector.database import Writer
from services.projector.read_models.usage import UsageRows, unseen
from services.projector.read_models.usage_sources import UsageSources

_log = structlog.get_logger("keyledger.projector")


def project_usage(session: Writer, records: Sequence[Record], whole: Mapping[TopicPartition, bool]) -> Counter[str]:
    """Count each use once; counts by outcome. `whole`: is every record of the partition, from offset 0 on, read?

    Raises psycopg.Error.
    """
    decoded = [(record, envelope) for record in records if (envelope := _decoded(record)) is not None]
    own = [(record.partition, envelope) for record, envelope in decoded if record.topic == USAGE]
    external = [(record, envelope) for record, envelope in decoded if record.topic != USAGE]
    rows = UsageRows()
    counts = Counter({"foreign": len(records) - len(decoded)})
    if own:
        counts += _count_own(session, own, {at.partition: whole[at] for at in whole if at.topic == USAGE}, rows)
    if external:
        counts += _count_external(session, external, rows)
    rows.write(session)
    return counts


def _count_own(
    session: Writer,
    found: Sequence[tuple[int, UsageEnvelope]],
    whole: Mapping[int, bool],
    rows: UsageRows,
) -> Counter[str]:
    sources = UsageSources(session, ((envelope.source, partition) for partition, envelope in found))
    for partition, envelope in found:
        if sources.take((envelope.source, partition), envelope.sequence or 0, whole[partition]):
            rows.add(envelope.event)
    sources.write()
    uses = len(found) - sources.duplicates
    return Counter(usage=uses, duplicates=sources.duplicates, gaps=sources.gaps)


def _count_external(session: Writer, found: Sequence[tuple[Record, UsageEnvelope]], rows: UsageRows) -> Counter[str]:
    # Of copies the first one tells the time, however they fall into batches.
    take = unseen(session, {(envelope.source, envelope.id): record.time_ms for record, envelope in reversed(found)})
    uses = 0
    for _, envelope in found:
        if take((envelope.source, envelope.id)):
            rows.add(envelope.event)
            uses += 1
    return Counter(usage=uses, duplicates=len(found) - uses)


def _decoded(record: Record) -> UsageEnvelope | None:
    """The KeyUsed of a record; None, and a line in the log, when it is none of ours."""
    why = "a checker's KeyUsed has a sequence from 1 on"
    try:
        envelope = decode_usage(record.value or b"")
        if record.topic != USAGE or 1 <= (envelope.sequence or 0) <= MAX_INTEGER:
            return envelope
    except UndecodableEvent as error:
        why = str(error)[:200]
    _log.warning("foreign", why=why, topic=record.topic, partition=record.partition, offset=record.offset)
    return None
