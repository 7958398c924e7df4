"""Every sentence of the help page, against the running system; docs/mission.md names the test of each."""

from itertools import count
from typing import Any

from tests.end_to_end.system import System
from tests.waiting import eventually

_NUMBERS = count(1)


def fresh_name(purpose: str) -> str:
    """A key name that no other test uses."""
    return f"{purpose} {next(_NUMBERS)}"


def create_key(system: System, who: str = "member", **body: Any) -> Any:
    """A key of the demo organisation's member or admin."""
    body.setdefault("name", fresh_name("made for a test"))
    answer = system.call("command", "POST", "/v1/orgs/demo/keys", body, system.token(who))
    assert answer.status == 201, answer
    return answer.json


def listed(system: System, who: str, path: str, revision: int) -> list[Any]:
    """The items of a list of keys at or after a revision."""
    mark = "&" if "?" in path else "?"
    answer = system.call("read", "GET", f"{path}{mark}limit=200&min_revision={revision}", token=system.token(who))
    assert answer.status == 200, answer
    return list(answer.json["items"])


def new_org(system: System, org_id: str) -> dict[str, str]:
    """An organisation with an admin and a member, keys still off; the admin's and the member's tokens and ids."""
    operator = system.token("operator")
    assert system.call("command", "POST", "/v1/orgs", {"org_id": org_id, "name": org_id}, operator).status == 201
    made: dict[str, str] = {}
    for role in ("admin", "member"):
        person = {
            "name": role,
            "email": f"{role}@{org_id}.test",
            "kind": "person",
            "role": role,
            "password": f"of-{org_id}-{role}",
        }
        answer = system.call("console", "POST", f"/v1/orgs/{org_id}/users", person, operator)
        assert answer.status == 201, answer
        made[f"{role}_id"] = answer.json["user_id"]
        made[role] = system.sign_in(person["email"], person["password"])
    return made


def test_a_user_creates_a_key_that_works_against_the_public_api(system: System) -> None:
    key = create_key(system, scopes=["keys:read"])["key"]
    system.validates_as(key, "VALID")
    me = system.call("read", "GET", "/v1/me", token=key)
    assert (me.status, me.json["org_id"]) == (200, "demo")


def test_a_key_works_without_any_sign_in_of_a_person(system: System) -> None:
    key = create_key(system, scopes=["keys:write", "keys:read"])["key"]
    system.validates_as(key, "VALID")
    made = system.call("command", "POST", "/v1/orgs/demo/keys", {"name": fresh_name("by a key"), "scopes": []}, key)
    assert made.status == 201, made


def test_a_service_account_has_keys_of_its_own_with_only_the_rights_given(system: System) -> None:
    account = {"name": "sequencer import", "kind": "service_account", "role": "member"}
    added = system.call("console", "POST", "/v1/orgs/demo/users", account, system.token("admin"))
    assert added.status == 201, added
    key = create_key(system, "admin", user_id=added.json["user_id"], scopes=["samples:read"])
    system.validates_as(key["key"], "VALID")
    answer = system.validate(key["key"], scopes=["samples:write"])
    assert (answer["code"], answer["kind"], answer["user_id"]) == (
        "INSUFFICIENT_SCOPE",
        "service_account",
        key["user_id"],
    )


def test_keys_exist_only_after_an_operator_or_an_admin_turned_them_on(system: System) -> None:
    people = new_org(system, "cautious")
    path, body = "/v1/orgs/cautious/keys", {"name": "too early"}
    refused = system.call("command", "POST", path, body, people["member"])
    assert (refused.status, refused.json["code"]) == (409, "org_keys_disabled")
    member_tries = system.call("command", "PUT", "/v1/orgs/cautious/keys-enabled", {"enabled": True}, people["member"])
    assert member_tries.status == 403
    turned_on = system.call("command", "PUT", "/v1/orgs/cautious/keys-enabled", {"enabled": True}, people["admin"])
    assert turned_on.status == 200
    assert system.call("command", "POST", path, body, people["member"]).status == 201


def test_turning_keys_off_refuses_every_key_and_deletes_none(system: System) -> None:
    people = new_org(system, "wavering")
    operator = system.token("operator")
    system.call("command", "PUT", "/v1/orgs/wavering/keys-enabled", {"enabled": True}, operator)
    key = system.call("command", "POST", "/v1/orgs/wavering/keys", {"name": "k"}, people["member"]).json["key"]
    system.validates_as(key, "VALID")
    system.call("command", "PUT", "/v1/orgs/wavering/keys-enabled", {"enabled": False, "reason": "asked for"}, operator)
    system.validates_as(key, "ORG_KEYS_DISABLED")
    assert system.validate(key)["valid"] is False
    system.call("command", "PUT", "/v1/orgs/wavering/keys-enabled", {"enabled": True}, operator)
    system.validates_as(key, "VALID")


def test_any_user_of_an_enabled_organisation_may_create_a_key(system: System) -> None:
    assert create_key(system, "member")["user_id"] == system.people()["member"]["user_id"]
    assert create_key(system, "admin")["user_id"] == system.people()["admin"]["user_id"]


def test_the_account_shows_basic_details(system: System) -> None:
    me = system.call("read", "GET", "/v1/me", token=system.token("member")).json
    person = system.people()["member"]
    assert (me["user_id"], me["email"], me["role"]) == (person["user_id"], person["email"], "member")


def test_one_changes_ones_own_name_and_password(system: System) -> None:
    people = new_org(system, "renaming")
    token = people["member"]
    assert system.call("console", "PATCH", "/v1/me", {"name": "Grace Hopper"}, token).status == 200
    assert system.call("read", "GET", "/v1/me", token=token).json["name"] == "Grace Hopper"
    change = {"old": "of-renaming-member", "new": "another-long-password"}
    assert system.call("console", "POST", "/v1/me/password", change, token).status in {200, 204}
    old = {"email": "member@renaming.test", "password": "of-renaming-member"}
    assert system.call("console", "POST", "/v1/sessions", old).status == 401
    assert system.sign_in("member@renaming.test", "another-long-password")


def test_the_account_tells_whether_keys_are_turned_on(system: System) -> None:
    people = new_org(system, "silent")

    def keys_enabled() -> bool:
        return bool(system.call("read", "GET", "/v1/me", token=people["member"]).json["org"]["keys_enabled"])

    assert not keys_enabled()
    system.call("command", "PUT", "/v1/orgs/silent/keys-enabled", {"enabled": True}, people["admin"])
    eventually(keys_enabled, 10, "the account to show that keys are on")


def test_a_name_says_what_a_key_is_for_and_can_be_changed(system: System) -> None:
    key = create_key(system, name="import 2026-11-23")
    answer = system.call(
        "command", "PATCH", f"/v1/orgs/demo/keys/{key['key_id']}", {"name": "import"}, system.token("member")
    )
    assert (answer.status, answer.json["name"]) == (200, "import")
    names = [
        item["name"]
        for item in listed(system, "member", f"/v1/orgs/demo/users/{key['user_id']}/keys", answer.json["revision"])
    ]
    assert "import" in names
    assert "import 2026-11-23" not in names


def test_the_full_key_is_shown_once(system: System) -> None:
    body = {"name": fresh_name("shown once")}
    repeat: Any = {"Idempotency_Key": fresh_name("once").replace(" ", "-")}
    first = system.call("command", "POST", "/v1/orgs/demo/keys", body, system.token("member"), **repeat)
    again = system.call("command", "POST", "/v1/orgs/demo/keys", body, system.token("member"), **repeat)
    assert first.json["key"].startswith("kl_")
    assert first.headers["Cache-Control"] == "no-store"
    assert (again.status, again.json["key"], again.json["key_withheld"]) == (200, None, True)
    assert again.json["key_id"] == first.json["key_id"]
    found = system.call(
        "read",
        "GET",
        f"/v1/orgs/demo/keys/{first.json['key_id']}?min_revision={first.json['revision']}",
        token=system.token("member"),
    )
    assert found.status == 200
    assert first.json["key"] not in str(found.json)


def test_one_sees_ones_own_keys_with_their_last_use(system: System) -> None:
    key = create_key(system)
    path = f"/v1/orgs/demo/users/{key['user_id']}/keys"
    mine = {item["key_id"]: item for item in listed(system, "member", path, key["revision"])}
    assert mine[key["key_id"]]["last_used_at"] is None
    system.validates_as(key["key"], "VALID")

    def last_used() -> Any:
        return {item["key_id"]: item for item in listed(system, "member", path, key["revision"])}[key["key_id"]][
            "last_used_at"
        ]

    eventually(lambda: last_used() is not None, 10, "the last use to be shown")
    assert last_used() >= key["created_at"]


def test_revoke_refuses_the_key_and_removes_it_from_the_table(system: System) -> None:
    key = create_key(system)
    system.validates_as(key["key"], "VALID")
    revoked = system.call("command", "DELETE", f"/v1/orgs/demo/keys/{key['key_id']}", token=system.token("member"))
    assert revoked.status == 200
    assert revoked.json["revoked_at"]
    assert revoked.json["effective"] is True
    assert system.validate(key["key"])["code"] == "REVOKED", "effective means at once, everywhere"
    mine = listed(system, "member", f"/v1/orgs/demo/users/{key['user_id']}/keys", revoked.json["revision"])
    assert key["key_id"] not in [item["key_id"] for item in mine]
    again = system.call("command", "DELETE", f"/v1/orgs/demo/keys/{key['key_id']}", token=system.token("member"))
    assert again.status == 200
    assert again.json | {"effective_ms": revoked.json["effective_ms"]} == revoked.json, (
        "the same, seen to hold once more"
    )


def test_admins_see_every_active_key_with_owner_and_last_use(system: System) -> None:
    key, own = create_key(system), create_key(system, "admin")
    system.validates_as(key["key"], "VALID")

    def rows() -> dict[str, Any]:
        return {item["key_id"]: item for item in listed(system, "admin", "/v1/orgs/demo/keys", own["revision"])}

    eventually(lambda: rows()[key["key_id"]]["last_used_at"] is not None, 10, "the last use to be listed")
    row = rows()[key["key_id"]]
    assert row["user_id"] == system.people()["member"]["user_id"]
    assert row["owner_name"]
    assert own["key_id"] in rows()
    assert rows()[own["key_id"]]["last_used_at"] is None
    assert system.call("read", "GET", "/v1/orgs/demo/keys", token=system.token("member")).status == 403


def test_admins_revoke_any_key_of_their_organisation_including_their_own(system: System) -> None:
    for key in (create_key(system, "member"), create_key(system, "admin")):
        answer = system.call("command", "DELETE", f"/v1/orgs/demo/keys/{key['key_id']}", token=system.token("admin"))
        assert answer.status == 200
        system.validates_as(key["key"], "REVOKED")


def test_a_users_page_shows_details_and_current_keys(system: System) -> None:
    key = create_key(system)
    user = f"/v1/orgs/demo/users/{key['user_id']}"
    details = system.call("read", "GET", f"{user}?min_revision={key['revision']}", token=system.token("admin")).json
    assert (details["email"], details["role"], details["status"]) == (
        system.people()["member"]["email"],
        "member",
        "active",
    )
    assert key["key_id"] in [item["key_id"] for item in listed(system, "admin", f"{user}/keys", key["revision"])]
    users = system.call("read", "GET", "/v1/orgs/demo/users", token=system.token("admin")).json["items"]
    assert key["user_id"] in [item["user_id"] for item in users]


def test_the_history_of_a_key_is_complete(system: System) -> None:
    key = create_key(system)
    system.validates_as(key["key"], "VALID")
    path = f"/v1/orgs/demo/keys/{key['key_id']}/history?min_revision={key['revision']}"

    def history() -> list[tuple[str, str | None]]:
        items = system.call("read", "GET", path, token=system.token("admin")).json["items"]
        return [(item["type"], item["data"].get("outcome")) for item in items]

    eventually(lambda: ("KeyUsed", "VALID") in history(), 10, "the use to be in the history")
    system.call("command", "DELETE", f"/v1/orgs/demo/keys/{key['key_id']}", token=system.token("admin"))
    system.validates_as(key["key"], "REVOKED")
    whole = [("KeyCreated", None), ("KeyUsed", "VALID"), ("KeyRevoked", None), ("KeyUsed", "REVOKED")]
    assert eventually(lambda: history() == whole, 10, f"the history to be {whole}, not {history()}")
