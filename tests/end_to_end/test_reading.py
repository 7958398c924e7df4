"""Reads of the running system: what one did is what one sees, whole lists while others write, honest lag, closed doors."""

import os
import secrets
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.end_to_end.system import System
from tests.fault.organisation import Org
from tests.waiting import eventually

OWNERS, KEYS_EACH = 3, 70
READ_YOUR_WRITES = 50


@pytest.fixture(scope="module")
def org(system: System) -> Org:
    """An organisation whose service accounts `a`, `b` and `c` have seventy keys each."""
    made = Org(system, f"reading-{secrets.token_hex(3)}")
    for owner in "abc":
        made.add(owner, kind="service_account")
    with ThreadPoolExecutor(4) as pool:
        jobs = [(owner, number) for number in range(KEYS_EACH) for owner in "abc"]
        list(pool.map(lambda job: _create(made, job[0], f"{job[0]} {job[1]}"), jobs))
    return made


def test_what_one_did_is_what_one_sees_every_time(system: System, org: Org) -> None:
    stale, waited = [], []
    for number in range(READ_YOUR_WRITES):
        key = org.create("admin", f"mine {number}", at=number % 2)
        path = f"{org.path}/keys/{key['key_id']}"
        renamed = org.made("admin", "PATCH", path, {"name": f"renamed {number}"}, at=(number + 1) % 2)
        began = time.monotonic()
        seen = org.read(f"/keys/{key['key_id']}?min_revision={renamed['revision']}")
        waited.append(time.monotonic() - began)
        revoked = org.made("admin", "DELETE", path, at=number % 2)
        gone = org.read(f"/keys?name=renamed {number}&min_revision={revoked['revision']}")
        stale += [number] if seen.json["name"] != f"renamed {number}" or gone.json["items"] else []
        org_id, _, revision = gone.headers["Keyledger-Revision"].partition(":")
        assert (org_id, int(revision) >= revoked["revision"]) == (org.id, True)
    print(
        f"\nread after write: median {sorted(waited)[len(waited) // 2] * 1000:.0f} ms, most {max(waited) * 1000:.0f} ms"
    )
    assert stale == []


def test_a_revision_that_is_not_there_is_waited_for_and_then_refused(system: System, org: Org) -> None:
    began = time.monotonic()
    answer = org.read("/keys?min_revision=999999")
    assert (answer.status, answer.json["code"]) == (503, "not_caught_up")
    assert answer.headers["Retry-After"]
    assert 1.9 < time.monotonic() - began < 10


@pytest.mark.parametrize("limit", [30, 200])
def test_pages_lose_and_repeat_nothing_while_others_create_keys(system: System, org: Org, limit: int) -> None:
    before = {item["key_id"] for item in _pages(org, "/keys?limit=200")}
    assert len(before) >= OWNERS * KEYS_EACH
    owner = org.add(f"busy {limit}", kind="service_account")
    made = 0
    items: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = org.read(f"/keys?limit={limit}{cursor and f'&cursor={cursor}'}").json
        items, cursor = items + page["items"], page["next_cursor"]
        assert len(page["items"]) <= limit
        for _ in range(3):  # Between any two pages somebody else is at work.
            made += 1
            org.made("admin", "POST", f"{org.path}/keys", {"name": f"busy {made}", "user_id": owner})
    ids = [item["key_id"] for item in items]
    assert len(ids) == len(set(ids))
    assert before <= set(ids)
    assert [item["created_at"] for item in items] == sorted((item["created_at"] for item in items), reverse=True)
    assert made >= 6


def test_filters_give_exactly_what_they_name(system: System, org: Org) -> None:
    owner = org.add("filtered", kind="service_account")
    soon = datetime.now(UTC) + timedelta(seconds=3)
    made = {name: _create(org, "filtered", name) for name in ("used", "unused", "revoked")}
    made["expired"] = _create(org, "filtered", "expired", expires_at=soon.isoformat())
    later = (soon + timedelta(days=1)).isoformat()
    made["later"] = _create(org, "filtered", "later", expires_at=later)
    revision = org.made("admin", "DELETE", f"{org.path}/keys/{made['revoked']['key_id']}")["revision"]
    system.validates_as(made["used"]["key"], "VALID")

    def names(query: str) -> set[str]:
        path = f"/keys?owner={owner}&limit=200&min_revision={revision}&{query}"
        return {item["name"] for item in _pages(org, path)}

    eventually(lambda: names("state=expired") == {"expired"}, 10, "the key to expire")
    eventually(lambda: names("never_used=false") == {"used"}, 10, "the use to be listed")
    assert names("state=active") == names("") == {"used", "unused", "later"}
    assert names("state=revoked") == {"revoked"}
    assert names("state=all") == set(made)
    assert names("never_used=true") == {"unused", "later"}
    assert names(f"unused_since={_in(days=-1)}") == {"unused", "later"}
    assert names(f"unused_since={_in(days=1)}") == {"used", "unused", "later"}
    assert names(f"expires_before={_in(days=2)}") == {"later"}
    assert names("name=unused") == {"unused"}
    refused = org.read("/keys?state=sleeping&limit=0&unknown=1")
    assert (refused.status, {error["pointer"] for error in refused.json["errors"]}) == (
        400,
        {"/state", "/limit", "/unknown"},
    )


def test_the_lag_that_is_told_grows_while_the_projector_stands_still(system: System, org: Org) -> None:
    eventually(lambda: _lag_ms(org) < 3000, 20, "a small lag")
    follower = system.processes["projector"].pid  # Its worker, which answers, goes on.
    os.kill(follower, signal.SIGSTOP)
    try:
        key = org.create("admin", "while it stands still")
        eventually(lambda: _lag_ms(org) > 3500, 20, "the lag to grow")
        behind = org.read(f"/keys/{key['key_id']}?min_revision={key['revision']}")
        assert (behind.status, behind.json["code"]) == (503, "not_caught_up")
        assert org.read("/keys").status == 200
    finally:
        os.kill(follower, signal.SIGCONT)
    eventually(lambda: org.read(f"/keys/{key['key_id']}?min_revision={key['revision']}").status == 200, 20, "the key")
    eventually(lambda: _lag_ms(org) < 3000, 20, "a small lag again")


def test_another_organisations_things_do_not_exist_whoever_asks_for_them(system: System, org: Org) -> None:
    stranger = Org(system, f"strange-{secrets.token_hex(3)}")
    stranger.add("member")
    key = org.create("admin", f"secret {secrets.token_hex(3)}")
    with_key = stranger.made("admin", "POST", f"{stranger.path}/keys", {"name": "k", "scopes": ["keys:read"]})["key"]
    system.validates_as(with_key, "VALID")
    paths = system.call("read", "GET", "/openapi.json").json["paths"]
    about_orgs = [path for path in paths if "{org}" in path]
    assert len(about_orgs) >= 8
    ids = {"user": key["user_id"], "key": key["key_id"]}
    for token in (stranger.token("admin"), stranger.token("member"), with_key):
        for path in about_orgs:
            asked = [path.format(org=org.id, **ids), path.format(org="no-such-org", **ids)]
            # With their own organisation in the path and our ids after it, too.
            asked += [path.format(org=stranger.id, **ids)] if path.count("{") > 1 else []
            answers = [system.call("read", "GET", one, token=token) for one in asked]
            assert [(answer.status, answer.json["code"]) for answer in answers] == [(404, "not_found")] * len(asked)
            assert len({answer.json["detail"] for answer in answers}) == 1  # Absent and not theirs look the same.


def _create(org: Org, owner: str, name: str, **more: Any) -> Any:
    return org.made("admin", "POST", f"{org.path}/keys", {"name": name, "user_id": org.users[owner], **more})


def _pages(org: Org, path: str) -> list[Any]:
    items: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = org.read(f"{path}{cursor and f'&cursor={cursor}'}").json
        items, cursor = items + page["items"], page["next_cursor"]
    return items


def _lag_ms(org: Org) -> int:
    with suppress(KeyError):
        return int(org.read().headers["Keyledger-Lag-Ms"])
    return -1


def _in(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat().replace("+00:00", "Z")
