"""A checker seeded from one that runs goes on from there, and does not read the ledger from its beginning."""

import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from schemas import events
from schemas.times import wall_clock_ms
from tests.integration.test_checker_process import HTTP, Process, checker, teller
from tests.unit.checker_story import BEGINNING, Teller, created, key_id, key_of
from tests.waiting import eventually

__all__ = ["checker", "teller"]  # Fixtures.


def folded(process: Process) -> int:
    """How many records this checker has read from the ledger since it started."""
    text = HTTP.request("GET", f"{process.url}/metrics").data.decode()
    return int(sum(map(float, re.findall(r"keyledger_ledger_records_total{[^}]*} ([\d.]+)", text))))


def test_it_answers_right_and_reads_only_what_came_later(
    checker: Process, teller: Teller, tmp_path: Path, kafka_bootstrap: str, free_port: Callable[[], int]
) -> None:
    org, now_ms = f"org_{secrets.token_hex(4)}", wall_clock_ms()
    teller.tell(org, *BEGINNING, created(1), created(2), time_ms=now_ms)
    eventually(lambda: checker.ask(key=key_of(2))["code"] == "VALID", 10, "the keys are known")
    seed = tmp_path / "second"
    seed.mkdir()
    shutil.copy(tmp_path / "ledger-keys", seed)
    words = ["checker", "snapshot", str(tmp_path / "state"), str(seed / "state")]
    subprocess.run([sys.executable, "-m", "keyledger.cli", *words], check=True, timeout=60)
    teller.tell(org, events.KeyRevoked(key_id=key_id(1), reason="unused"), time_ms=now_ms)
    second = Process(seed, free_port(), kafka_bootstrap)
    eventually(second.is_ready, 30, "the seeded checker is ready")
    try:
        assert [second.ask(key=key_of(number))["code"] for number in (1, 2)] == ["REVOKED", "VALID"]
        assert [checker.ask(key=key_of(number))["code"] for number in (1, 2)] == ["REVOKED", "VALID"]
        eventually(lambda: folded(second) == 1, 5, "one record was read")
        assert folded(checker) >= 6
    finally:
        second.stop(signal.SIGTERM)
