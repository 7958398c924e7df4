"""The invariants of an organisation, checked on the raw events of its ledger one after the other; shares no code with us."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any


def check(events: Iterable[dict[str, Any]], most_keys: int) -> Counter[str]:
    """Assert after every event that no rule was broken; counts the events by type."""
    enabled, kinds = False, Counter[str]()
    roles: dict[str, str] = {}
    active: dict[str, bool] = {}
    names: defaultdict[str, dict[str, str]] = defaultdict(dict)
    owner_of: dict[str, str] = {}
    for revision, event in enumerate(events, 1):
        kind, data, where = event["type"], event["data"], f"{event['org']}, revision {revision}: {event['type']}"
        assert event["revision"] == revision, where
        kinds[kind] += 1
        had_admin = _has_admin(roles, active)
        match kind:
            case "OrgKeysEnabled" | "OrgKeysDisabled":
                enabled = kind == "OrgKeysEnabled"
            case "UserAdded":
                roles[data["user_id"]], active[data["user_id"]] = data["role"], True
            case "UserRoleChanged":
                assert roles[data["user_id"]] != data["role"], where
                roles[data["user_id"]] = data["role"]
            case "UserDisabled" | "UserEnabled":
                assert active[data["user_id"]] == (kind == "UserDisabled"), where
                active[data["user_id"]] = kind == "UserEnabled"
            case "KeyCreated":
                owner = data["user_id"]
                assert enabled, f"{where} while keys are off"
                assert active[owner], f"{where} for a disabled owner"
                assert data["name"] not in names[owner].values(), f"{where}: the name is taken"
                assert len(names[owner]) < most_keys, f"{where}: over the limit"
                assert data["key_id"] not in owner_of, f"{where}: the key exists"
                names[owner][data["key_id"]], owner_of[data["key_id"]] = data["name"], owner
            case "KeyRenamed":
                others = names[owner_of[data["key_id"]]]
                assert data["key_id"] in others, f"{where} of a revoked key"
                assert data["name"] not in others.values(), f"{where}: the name is taken"
                others[data["key_id"]] = data["name"]
            case "KeyRevoked":
                assert names[owner_of[data["key_id"]]].pop(data["key_id"], None) is not None, f"{where} twice"
        assert _has_admin(roles, active) or not had_admin, f"{where}: no admin is left"
    return kinds


def _has_admin(roles: dict[str, str], active: dict[str, bool]) -> bool:
    return any(role == "admin" and active[user] for user, role in roles.items())
