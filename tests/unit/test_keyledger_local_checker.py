"""The checker inside another process answers as the one that is asked over HTTP, from the same store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyledger.checker import CheckerUnavailable, Validation
from keyledger.local_checker import LocalChecker
from schemas import events
from schemas.times import to_text
from services.auth_checker import status
from services.auth_checker.lease import Lease
from services.auth_checker.spool import Spool
from services.auth_checker.status import FOLLOWED, IndexHandler, Status, machine_clocks
from services.ledger.memory_log import MemoryLog
from services.ledger.records import Batch, Place
from services.ledger.seal import new_keys
from tests.unit.checker_story import BEGINNING, Teller, created, key_id, key_of

M_MS = 60_000
TOLD = (
    created(1),
    created(2, scopes=("a",)),
    created(3),
    events.KeyRevoked(key_id=key_id(3), reason="unused"),
    created(4, cidrs=("192.0.2.0/24",)),
)


def fold(folder: Path) -> Lease:
    """What a checker leaves on its disk: the index, and a lease of this boot that began now."""
    teller = Teller(MemoryLog(), new_keys())
    teller.tell("org", *BEGINNING, *TOLD)
    store = status.open_index(folder)
    records = tuple(teller.log.reader(dict.fromkeys(FOLLOWED, 0)).poll(0))
    IndexHandler(store, teller.keys).apply(Batch(records, {records[-1].at: Place(len(records), b"")}))
    clocks = machine_clocks()
    now = clocks.now()
    lease = Lease(
        clocks.boot_id, "incarnation", now.boot_ns, now.boot_ns + M_MS * 10**6, now.wall_ms, now.wall_ms + M_MS
    )
    with store.write() as txn:
        status.write(txn, Status(lease))
    store.close()
    return lease


@pytest.fixture
def local(tmp_path: Path) -> Iterator[tuple[LocalChecker, Lease]]:
    lease = fold(tmp_path)
    with LocalChecker(tmp_path) as checker:
        yield checker, lease


def test_a_good_key_is_described_as_over_http(local) -> None:
    checker, lease = local
    as_of = to_text(lease.begun_wall_ms)
    assert checker.validate(key_of(2), ["a"]) == Validation(
        True, "VALID", key_id(2), "org", "ann", "admin", "person", "nightly import", ("a",), None, 8, as_of, M_MS
    )


@pytest.mark.parametrize(
    ("number", "scopes", "ip", "code"),
    [
        (1, [], None, "VALID"),
        (2, ["b"], None, "INSUFFICIENT_SCOPE"),
        (3, [], None, "REVOKED"),
        (4, [], "192.0.3.1", "IP_NOT_ALLOWED"),
        (4, [], "192.0.2.1", "VALID"),
        (5, [], None, "NOT_FOUND"),
    ],
)
def test_the_codes_are_the_checkers(local, number, scopes, ip, code) -> None:
    answer = local[0].validate(key_of(number), scopes, ip, "test/1")
    assert (answer.code, answer.valid) == (code, code == "VALID")
    assert local[0].validate("no key") == Validation(False, "MALFORMED")


def test_each_use_is_in_the_spool_when_it_is_closed(tmp_path: Path) -> None:
    fold(tmp_path)
    with LocalChecker(tmp_path) as checker:
        for number in (1, 1, 2, 5):
            checker.validate(key_of(number))
    spool = Spool(tmp_path / "spool")
    assert spool.figures()["records"] == 2
    spool.close()


def test_without_a_lease_everything_well_formed_is_stale(tmp_path: Path) -> None:
    status.open_index(tmp_path).close()
    with LocalChecker(tmp_path) as checker:
        assert checker.validate(key_of()) == Validation(False, "STALE")


def test_a_folder_without_an_index_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(CheckerUnavailable, match="no auth checker"):
        LocalChecker(tmp_path)
