"""The full text of a key is in exactly one HTTP response and nowhere else."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.key_text import digest
from schemas.topics import LIFECYCLE, partition_of
from services.command_api.minting import Sources
from tests.integration.command_log import TroubledLog, records_of
from tests.integration.command_parts import CommandWorld, running_command_api

KEYS = "/v1/orgs/acme/keys"
CANARY = "canary in the name"


@pytest.fixture
def log() -> TroubledLog:
    return TroubledLog()


@pytest.fixture
def world(tmp_path: Path, log: TroubledLog) -> Iterator[CommandWorld]:
    with running_command_api(tmp_path, log) as running:
        yield running


def forms(text: str) -> list[bytes]:
    """How a text could stand somewhere: as it is, its secret part alone, in base64, in hex."""
    secret = text.rsplit("_", 1)[1]
    raw = [text.encode(), secret.encode(), secret[:43].encode()]
    return [*raw, *(base64.b64encode(one).rstrip(b"=")[:-1] for one in raw), *(one.hex().encode() for one in raw)]


def test_a_key_text_is_in_one_answer_and_in_no_file_log_record_or_metric(
    world: CommandWorld, log: TroubledLog, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    admin = world.org("acme")
    first = world.call("POST", KEYS, admin, {"name": CANARY}, Idempotency_Key="one")
    text = first.get_json()["key"]
    places: list[bytes] = []
    for method, path, body in [
        ("POST", KEYS, {"name": CANARY}),
        ("PATCH", f"{KEYS}/{first.get_json()['key_id']}", {"name": CANARY + "!"}),
        ("DELETE", f"{KEYS}/{first.get_json()['key_id']}", {}),
    ]:
        places.append(world.call(method, path, admin, body, Idempotency_Key="one").data)
    log.fail_once("after")
    world.call("POST", KEYS, admin, {"name": "lost"}, Idempotency_Key="two")
    records = records_of(log, LIFECYCLE, partition_of("acme"))
    in_log = b"".join((record.value or b"") + repr(record.headers).encode() for record in records)
    on_disk = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    captured = "".join(capfd.readouterr()).encode()
    assert CANARY.encode() in on_disk
    assert CANARY.encode() in in_log
    assert b"outcome_unknown" in captured
    assert digest(text).encode() in in_log
    everywhere = [*places, in_log, on_disk, captured, world.call("GET", "/metrics", None).data]
    for form in forms(text):
        assert form in first.data or form not in (text.encode(), text.rsplit("_", 1)[1].encode())
        assert not [place for place in everywhere if form in place]


def test_an_error_while_a_key_is_made_logs_no_text(
    world: CommandWorld, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    admin, made = world.org("acme"), []
    mint = world.sources.mint

    def remember(prefix: str):
        made.append(mint(prefix))
        return made[-1]

    def broken(*_: object):
        raise RuntimeError("canary in the error")

    monkeypatch.setattr(world.sources, "mint", remember)
    monkeypatch.setattr(world.appender, "_envelope", broken)
    answer = world.call("POST", KEYS, admin, {"name": CANARY})
    captured = "".join(capfd.readouterr()).encode()
    assert answer.status_code == 500
    assert b"canary in the error" in captured
    for form in forms(made[0].text):
        assert form not in captured
        assert form not in answer.data


def test_what_was_minted_does_not_show_its_text():
    minted = Sources().mint("kl")
    assert minted.key_id in repr(minted)
    assert minted.text not in repr(minted) + str(minted) + f"{minted}"
