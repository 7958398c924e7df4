"""What the checker says on `checker-status`, what it reads there, and when that becomes a lease."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from schemas import checker_status, events
from schemas.checker_status import Floor, Pulse
from schemas.topics import partition_of
from services.auth_checker import status
from services.auth_checker.lease import Lessee
from services.auth_checker.pulses import TOPIC, Listener, Pulses, stored_floors
from services.auth_checker.status import IndexHandler
from services.ledger.log import LogWasCut, Message
from services.ledger.records import Batch, Place
from services.ledger.seal import new_keys
from tests.unit.checker_story import BEGINNING, M_MS, Asking, Index, asking, created, key_id

__all__ = ["asking"]  # A fixture, asked for by its name.
AT = partition_of("org")
REVOKED = events.KeyRevoked(key_id=key_id(), reason="unused")


def say(index: Index, said: Floor | Pulse) -> None:
    value = checker_status.encode(said)
    index.log.append(Message(*TOPIC, checker_status.message_key(said), value, index.teller.keys.seal(value)), 1)


def said(index: Index) -> list[checker_status.Said]:
    """All that was said on the topic."""
    return [checker_status.decode(record.value) for record in index.log.reader({TOPIC: 0}).poll(0)]


def floor(offset: int) -> Floor:
    return Floor("api", 1, {AT: offset})


def test_a_pulse_tells_what_is_in_the_store_and_counts_when_it_is_read_back(asking: Asking) -> None:
    index = asking.index
    index.teller.tell("org", *BEGINNING, created())
    index.fold()
    assert index.pulses.beat()
    assert asking.code() == "STALE", "sent, and not read back"
    index.listen()
    assert asking.code() == "VALID"
    pulse = said(index)[-1]
    assert isinstance(pulse, Pulse)
    assert pulse.positions[AT] == 4
    assert index.pulses.counts == {"sent": 1, "failed": 0, "counted": 1, "foreign": 0}


def test_a_pulse_behind_a_floor_that_it_is_not_past_counts_for_nothing(asking: Asking) -> None:
    index = asking.index
    index.tell("org", *BEGINNING, created())
    index.clock.advance(M_MS // 2)
    say(index, floor(4))
    assert index.pulses.beat()
    index.listen()
    index.clock.advance(M_MS // 2)
    assert asking.code() == "STALE", "the lease of before ended as if nothing had been said"
    index.tell("org", REVOKED)
    assert asking.code() == "REVOKED"


def test_what_is_not_sealed_or_cannot_be_read_is_foreign_and_changes_nothing(asking: Asking) -> None:
    index = asking.index
    value = checker_status.encode(floor(1000))
    index.log.append(Message(*TOPIC, b"api", value), 1)
    index.log.append(Message(*TOPIC, b"api", value, new_keys().seal(value)), 1)
    index.log.append(Message(*TOPIC, b"api", b"{}", index.teller.keys.seal(b"{}")), 1)
    index.tell("org", *BEGINNING, created())
    assert asking.code() == "VALID"
    assert index.pulses.counts["foreign"] == 3
    assert stored_floors(index.store) == {}


def test_floors_and_the_place_in_the_topic_outlive_the_process(asking: Asking) -> None:
    index = asking.index
    say(index, floor(4))
    index.tell("org", *BEGINNING, created())
    assert asking.code() == "STALE", "the floor is not reached"
    assert stored_floors(index.store) == {AT: 4}
    assert index.listener.resume_from()[TOPIC].next_offset == 2


def test_a_pulse_counts_only_while_the_store_holds_what_it_said(asking: Asking) -> None:
    index = asking.index
    index.teller.tell("org", *BEGINNING, created())
    index.fold()
    assert index.pulses.beat()
    with pytest.raises(LogWasCut):
        index.handler.log_was_cut("truncated")
    index.listen()
    with index.store.read() as txn:
        assert status.read(txn) is None


def test_the_first_act_of_a_follower_takes_the_lease_away_and_the_store_from_who_had_it(asking: Asking) -> None:
    index = asking.index
    index.tell("org", *BEGINNING, created())
    status.claim(index.store, "the next one")
    assert asking.code() == "STALE"
    index.teller.tell("org", REVOKED)
    with pytest.raises(LogWasCut):
        index.fold()
    assert index.pulses.beat()
    with pytest.raises(LogWasCut):
        index.listen()
    with index.store.read() as txn:
        assert status.read(txn) is None
        assert status.positions(txn)[AT] == 4


def test_the_index_tells_which_events_took_rights_away(tmp_path: Path) -> None:
    told: list[Mapping[int, int]] = []
    index = Index(tmp_path)
    index.handler = IndexHandler(index.store, index.teller.keys, on_applied=told.append)
    story: list[events.LedgerEvent] = [*BEGINNING, created(), events.OrgKeysDisabled()]
    story += [events.UserRoleChanged(user_id="ann", role="member"), REVOKED, events.UserDisabled(user_id="ann")]
    story += [events.PersonErased(user_id="ann"), events.OrgKeysEnabled()]
    for event in story:
        index.teller.tell("org", event)
        index.fold()
    index.store.close()
    assert told == [{}] * 4 + [{AT: 4}, {AT: 5}, {AT: 6}, {AT: 7}, {AT: 8}] + [{}]


def test_a_thread_pulses_at_once_for_an_event_that_takes_rights_away_and_for_a_floor_it_is_past(asking: Asking) -> None:
    index = asking.index
    lessee = Lessee("checker", "another", "this boot", M_MS, {})
    pulses = Pulses(index.log, index.store, index.teller.keys, lessee, index.clock.clocks(), 3600, 1.0)
    listener = Listener(index.store, index.teller.keys, pulses, "")
    index.handler = IndexHandler(index.store, index.teller.keys, on_applied=pulses.applied)
    index.teller.tell("org", *BEGINNING, created())
    index.fold()
    reader = index.log.reader({TOPIC: 0})

    def next_pulse() -> int:
        (record,) = reader.poll(5000)
        pulse = checker_status.decode(record.value)
        assert isinstance(pulse, Pulse)
        return pulse.positions[AT]

    pulses.start()
    try:
        assert next_pulse() == 4, "the first one is due at the start"
        index.teller.tell("org", REVOKED)
        index.fold()
        assert next_pulse() == 5
        index.teller.tell("org", events.KeyRenamed(key_id=key_id(), name="another"))
        index.fold()
        value = checker_status.encode(floor(5))
        index.log.append(Message(*TOPIC, b"api", value, index.teller.keys.seal(value)), 1)
        records = tuple(reader.poll(5000))
        listener.apply(Batch(records, {TOPIC: Place(records[-1].offset + 1, b"")}))
        assert next_pulse() == 6
    finally:
        pulses.stop()


def test_a_broker_that_is_away_fails_the_pulse_and_not_its_thread(asking: Asking) -> None:
    index = asking.index
    index.log.away = True
    assert not index.pulses.beat()
    assert not index.pulses.beat()
    index.log.away = False
    assert index.pulses.beat()
    assert index.pulses.counts["failed"] == 2
