"""The pure rules of the console: waiting after failures, who may, bodies, configuration, signing keys."""

import stat
from pathlib import Path
from typing import Any

import pytest

from schemas.problems import Problem, load
from schemas.times import wall_clock_ms
from schemas.tokens import Claims, KeySet, verify
from services.console import bodies
from services.console.caller import Caller, must_administer, must_be_person, must_have_scope
from services.console.config import BadConfig, Config, OidcSettings
from services.console.signing_keys import BadKeyFile, open_signing_keys
from services.console.throttle import FORGET_MS, LONGEST_WAIT_MS, wait_ms

NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("failures", "ago_ms", "expected"),
    [
        (0, 0, 0),
        (4, 0, 0),
        (5, 0, 1000),
        (5, 400, 600),
        (5, 1000, 0),
        (6, 0, 2000),
        (10, 0, 32_000),
        (1_000_000, 0, LONGEST_WAIT_MS),
        (1_000_000, FORGET_MS, 0),
    ],
)
def test_each_failure_past_the_limit_doubles_the_wait(failures: int, ago_ms: int, expected: int) -> None:
    assert wait_ms(failures, NOW - ago_ms, NOW, limit=5) == expected


def caller(org: str, role: str, key_id: str | None = None, scopes: tuple[str, ...] = ()) -> Caller:
    return Caller(org, "u", role, 1, key_id, scopes, token="t")


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (caller("acme", "admin"), None),
        (caller("acme", "member"), 403),
        (caller("acme", "auditor"), 403),
        (caller("platform", "admin"), None),
        (caller("platform", "member"), 404),
        (caller("platform", "auditor"), 404),
        (caller("other", "admin"), 404),
        (caller("other", "member"), 404),
    ],
)
def test_an_org_is_administered_by_its_admins_and_by_operators(who: Caller, expected: int | None) -> None:
    assert refused(lambda: must_administer(who, "acme")) == expected


def test_an_api_key_is_no_person_and_has_only_the_scopes_it_names() -> None:
    key = caller("acme", "admin", "k" * 22, ("keys:read",))
    assert refused(lambda: must_be_person(key)) == 403
    assert refused(lambda: must_have_scope(key, "keys:write")) == 403
    assert refused(lambda: must_have_scope(key, "keys:read")) is None


def test_a_signed_in_person_needs_no_scope() -> None:
    assert refused(lambda: must_have_scope(caller("acme", "admin"), "keys:write")) is None
    assert refused(lambda: must_be_person(caller("acme", "admin"))) is None


def refused(act: Any) -> int | None:
    try:
        act()
    except Problem as problem:
        return problem.status
    return None


PERSON = {"name": "Ada", "email": "ada@example.org", "kind": "person", "role": "member"}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "   "}, "/name"),
        ({"name": "n" * 101}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"name": "a\u202eb"}, "/name"),
        ({"name": None}, "/name"),
        ({"email": None}, "/email"),
        ({"email": "ada"}, "/email"),
        ({"email": "a da@example.org"}, "/email"),
        ({"email": "ada@example.org\n"}, "/email"),
        ({"email": "a" * 65 + "@example.org"}, "/email"),
        ({"kind": "robot"}, "/kind"),
        ({"role": "operator"}, "/role"),
        ({"password": "too short"}, "/password"),
        ({"password": "p" * 257}, "/password"),
        ({"kind": "service_account", "password": "correct horse battery"}, "/password"),
        ({"user_id": "u1"}, "/user_id"),
    ],
)
def test_a_person_that_breaks_a_rule_is_refused_with_a_pointer(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Problem) as refusal:
        load(bodies.UserRequest(), PERSON | change)
    assert refusal.value.status == 400
    assert [at for at, _ in refusal.value.errors] == [pointer]


def test_a_name_is_trimmed_and_composed_and_then_measured() -> None:
    loaded = load(bodies.UserRequest(), PERSON | {"name": "  " + "e\u0301" * 100 + " "})
    assert loaded["name"] == "\u00e9" * 100


def test_a_service_account_needs_no_email() -> None:
    loaded = load(bodies.UserRequest(), {"name": "Robot", "kind": "service_account", "role": "member"})
    assert loaded["email"] is None
    assert loaded["password"] is None


GOOD = {
    "KEYLEDGER_STATE_DIR": "state",
    "DATABASE_URL": "postgresql://localhost/x",
    "COMMAND_URL": "http://127.0.0.1:8001/",
    "READ_URL": "http://127.0.0.1:8002/",
    "CHECKER_URL": "http://127.0.0.1:8003",
    "CHECKER_TOKEN": "s3cret",
}


def test_a_configuration_takes_the_documented_defaults_and_shows_no_secret() -> None:
    config = Config.from_env(GOOD)
    assert (config.host, config.port, config.demo, config.first_start) == ("127.0.0.1", 8000, True, None)
    assert (config.command_url, config.read_url) == ("http://127.0.0.1:8001", "http://127.0.0.1:8002")
    assert (config.public_url, config.oidc) == ("http://127.0.0.1:8000", None)
    assert "s3cret" not in repr(config)
    assert "postgresql" not in repr(config)


OIDC = {
    "KEYLEDGER_OIDC_ISSUER": "https://login.example.org/",
    "KEYLEDGER_OIDC_CLIENT_ID": "keyledger",
    "KEYLEDGER_OIDC_CLIENT_SECRET": "very s3cret",
}


def test_single_sign_on_is_configured_as_a_whole_and_its_secret_is_not_shown() -> None:
    config = Config.from_env(GOOD | OIDC | {"KEYLEDGER_PUBLIC_URL": "https://keys.example.org/"})
    assert config.oidc == OidcSettings("https://login.example.org/", "keyledger", "very s3cret", "single sign-on")
    assert config.public_url == "https://keys.example.org"
    assert "s3cret" not in repr(config)
    named = Config.from_env(GOOD | OIDC | {"KEYLEDGER_OIDC_NAME": "Acme Login"})
    assert named.oidc is not None
    assert named.oidc.name == "Acme Login"


@pytest.mark.parametrize("issuer", ["http://127.0.0.1:9400", "http://localhost:9400", "http://[::1]:9400"])
def test_a_provider_on_this_machine_needs_no_https(issuer: str) -> None:
    config = Config.from_env(GOOD | OIDC | {"KEYLEDGER_OIDC_ISSUER": issuer})
    assert config.oidc is not None
    assert config.oidc.issuer == issuer


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (OIDC | {"KEYLEDGER_OIDC_CLIENT_SECRET": ""}, "KEYLEDGER_OIDC_CLIENT_SECRET"),
        ({"KEYLEDGER_OIDC_CLIENT_ID": "keyledger"}, "KEYLEDGER_OIDC_ISSUER"),
        (OIDC | {"KEYLEDGER_OIDC_ISSUER": "http://login.example.org"}, "KEYLEDGER_OIDC_ISSUER"),
        (OIDC | {"KEYLEDGER_OIDC_ISSUER": "http://127.0.0.1.example.org"}, "KEYLEDGER_OIDC_ISSUER"),
        (OIDC | {"KEYLEDGER_OIDC_ISSUER": "https:login"}, "KEYLEDGER_OIDC_ISSUER"),
        (OIDC | {"KEYLEDGER_OIDC_ISSUER": "https://[login"}, "KEYLEDGER_OIDC_ISSUER"),
        ({"KEYLEDGER_PUBLIC_URL": "keys.example.org"}, "KEYLEDGER_PUBLIC_URL"),
        ({"READ_URL": ""}, "READ_URL"),
        ({"DATABASE_URL": ""}, "DATABASE_URL"),
        ({"KEYLEDGER_STATE_DIR": ""}, "KEYLEDGER_STATE_DIR"),
        ({"COMMAND_URL": "127.0.0.1:8001"}, "COMMAND_URL"),
        ({"KEYLEDGER_PORT": "70000"}, "KEYLEDGER_PORT"),
        ({"KEYLEDGER_PORT": "http"}, "KEYLEDGER_PORT"),
        ({"KEYLEDGER_DEMO": "yes"}, "KEYLEDGER_DEMO"),
        ({"KEYLEDGER_URLS": "[]"}, "KEYLEDGER_URLS"),
        ({"KEYLEDGER_URLS": "{"}, "KEYLEDGER_URLS"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(change: dict[str, str], named: str) -> None:
    with pytest.raises(BadConfig, match=named):
        Config.from_env(GOOD | change)


def test_signing_keys_are_made_once_for_the_owner_only_and_sign_what_the_jwks_verifies(tmp_path: Path) -> None:
    keys = open_signing_keys(tmp_path)
    again = open_signing_keys(tmp_path)
    now_s = wall_clock_ms() // 1000
    claims = Claims(sub="u", org="acme", rev=7, exp=now_s + 60)
    assert verify(keys.sign(claims), KeySet(again.jwks).key_of, now_s) == claims
    assert stat.S_IMODE((tmp_path / "signing-keys.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["signing-keys.json"]
    assert "d" not in again.jwks()["keys"][0]


def test_with_several_keys_the_last_signs_and_all_verify(tmp_path: Path) -> None:
    """A rotation: a token of the old key stays good while the old key is in the file."""
    old = open_signing_keys(tmp_path)
    path = tmp_path / "signing-keys.json"
    path.write_text(path.read_text().replace("]}", ', {"kid": "new", "seed": "' + "07" * 32 + '"}]}'))
    rotated = open_signing_keys(tmp_path)
    now_s = wall_clock_ms() // 1000
    claims = Claims(sub="u", org="acme", rev=7, exp=now_s + 60)
    for signer in (old, rotated):
        assert verify(signer.sign(claims), KeySet(rotated.jwks).key_of, now_s) == claims
    assert [entry["kid"] for entry in rotated.jwks()["keys"]][-1] == "new"


@pytest.mark.parametrize("text", ["", "[]", '{"keys": []}', '{"keys": [{"kid": "a", "seed": "00"}]}'])
def test_a_broken_key_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "signing-keys.json").write_text(text)
    with pytest.raises(BadKeyFile, match="signing"):
        open_signing_keys(tmp_path)
