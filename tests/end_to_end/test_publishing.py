"""The examples of docs/publishing.md work when pasted: all three ways of publishing end up in the counts of the key."""

import json
import re
import sys
from pathlib import Path

import pytest

from schemas.topics import EXTERNAL_USAGE, PARTITIONS
from services.ledger.kafka_log import KafkaLog
from services.ledger.records import TopicPartition
from tests.end_to_end.pasting import ROOT, paste
from tests.end_to_end.system import System
from tests.unit.test_schemas_asyncapi import check
from tests.waiting import eventually

BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "docs/publishing.md").read_text(), re.DOTALL)


def script(system: System) -> str:
    """All blocks as one shell script, for the ports of this system; the last one, which looks, five times."""
    parts = [text if language == "sh" else f"\"{sys.executable}\" - <<'END'\n{text}END\n" for language, text in BLOCKS]
    pasted = "\n".join([*parts[:-1], f"for again in 1 2 3 4 5; do\n{parts[-1]}done\n"])
    return re.sub(
        r"127\.0\.0\.1:80([0-9]{2})", lambda found: f"127.0.0.1:{system.config.base_port + int(found[1])}", pasted
    )


@pytest.fixture
def folder(system: System, tmp_path: Path) -> Path:
    """A folder with the system's `var`, as a checkout has it."""
    (tmp_path / "var").symlink_to(system.config.var)
    return tmp_path


def test_the_examples_work_as_printed_and_every_use_is_counted_once(system: System, folder: Path) -> None:
    assert [language for language, _ in BLOCKS] == ["sh", "python", "sh", "python", "sh"]
    done = paste(script(system), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.splitlines()
    assert "{'waiting': 0, 'sent': 2, 'failures': 0}" in printed
    assert '{"accepted":2}' in [line.replace(" ", "") for line in printed]
    assert len([line for line in printed if line.startswith("at offset")]) == 2
    items = json.loads(printed[-1])["items"]
    counts = {"VALID": 0, "INSUFFICIENT_SCOPE": 0}
    for item in items:  # The examples may run while a day ends.
        counts[item["outcome"]] += item["count"]
    assert counts == {"VALID": 7, "INSUFFICIENT_SCOPE": 1}, items
    for value in reported(system):
        check(value)  # What HTTP wrote is as the AsyncAPI document says.


def reported(system: System) -> list[bytes]:
    """The two uses that were reported over HTTP, as they stand in Kafka."""
    log = KafkaLog(system.urls["kafka"][0], "test-publishing")
    reader = log.reader(log.first_offsets([TopicPartition(EXTERNAL_USAGE, at) for at in range(PARTITIONS)], 10))
    found: list[bytes] = []

    def both() -> bool:
        found.extend(
            record.value or b"" for record in reader.poll(100) if b'"keyledger/usage/' in (record.value or b"")
        )
        return len(found) == 2

    try:
        eventually(both, 20, "the uses that were reported over HTTP")
    finally:
        reader.close()
        log.close()
    return found
