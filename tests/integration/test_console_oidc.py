"""Single sign-on: against a real provider in a process of its own, and against one that lies."""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from schemas.problems import Problem
from schemas.times import wall_clock_ms
from services.console.config import OidcSettings
from services.console.oidc import Oidc
from services.embedded.ports import free_ports
from tests.integration.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    Liar,
    Provider,
    lying_provider,
    provider_process,
    query_of,
    settings,
)

CALLBACK = "http://127.0.0.1:8000/sign-in/sso/callback"
SECRET = bytes(range(32))
HOUR_MS = 3600 * 1000


class Clock:
    """Wall time, and as much more as a test says."""

    ahead_ms = 0

    def __call__(self) -> int:
        return wall_clock_ms() + self.ahead_ms


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with provider_process(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "first"})


@pytest.fixture
def liar(key: RSAKey) -> Iterator[Liar]:
    with lying_provider(key) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def real(provider: Provider) -> Oidc:
    return Oidc(settings(provider.issuer), CALLBACK, wall_clock_ms)


@pytest.fixture
def oidc(liar: Liar, clock: Clock) -> Oidc:
    """The one that talks to the liar."""
    return Oidc(settings(liar.issuer), CALLBACK, clock)


def refusal(oidc: Oidc, query: dict[str, str], secret: bytes = SECRET) -> tuple[int, str, str]:
    with pytest.raises(Problem) as refused:
        oidc.finish(secret, query)
    problem = refused.value
    assert json.loads(problem.body())["detail"]
    return problem.status, problem.code, problem.detail


def test_whom_the_provider_signed_in_is_known_by_a_verified_email(provider: Provider, real: Oidc) -> None:
    provider.knows("ada", email="ada@example.org", email_verified=True)
    assert real.finish(SECRET, provider.visit(real.begin(SECRET), "ada")) == "ada@example.org"


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_email_that_is_not_exactly_verified_is_refused(provider: Provider, real: Oidc, verified: Any) -> None:
    provider.knows("eve", email="ada@example.org", **({} if verified is None else {"email_verified": verified}))
    status, code, detail = refusal(real, provider.visit(real.begin(SECRET), "eve"))
    assert (status, code, detail) == (401, "sso_refused", "Acme Login did not name a verified e-mail address")


def test_a_person_without_an_email_is_refused(provider: Provider, real: Oidc) -> None:
    provider.knows("nameless", email_verified=True)
    assert refusal(real, provider.visit(real.begin(SECRET), "nameless"))[:2] == (401, "sso_refused")


def test_who_says_no_at_the_provider_is_told_so_here(provider: Provider, real: Oidc) -> None:
    query = provider.visit(real.begin(SECRET), None)
    query.setdefault("state", query_of(real.begin(SECRET))["state"])
    assert refusal(real, query) == (401, "sso_refused", "Acme Login did not sign you in (access_denied)")


def test_a_code_works_once(provider: Provider, real: Oidc) -> None:
    provider.knows("ada", email="ada@example.org", email_verified=True)
    query = provider.visit(real.begin(SECRET), "ada")
    real.finish(SECRET, query)
    assert refusal(real, query)[:2] == (401, "sso_refused")


def test_what_was_begun_in_one_browser_is_not_finished_in_another(provider: Provider, real: Oidc) -> None:
    """Else somebody could sign a victim in as himself by sending a link."""
    provider.knows("ada", email="ada@example.org", email_verified=True)
    query = provider.visit(real.begin(SECRET), "ada")
    other = bytes(32)
    assert "not begun in this browser" in refusal(real, query, other)[2]
    forged = query | {"state": query_of(real.begin(other))["state"]}
    assert "could not be verified" in refusal(real, forged, other)[2]


def test_the_browser_leaves_with_everything_that_the_answer_is_checked_by(liar: Liar, oidc: Oidc) -> None:
    address = oidc.begin(SECRET)
    assert address.startswith(liar.issuer + "/authorize?")
    query = query_of(address)
    derived = {name: query.pop(name) for name in ("state", "nonce", "code_challenge")}
    assert query == {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": CALLBACK,
        "scope": "openid email",
        "code_challenge_method": "S256",
    }
    assert len(set(derived.values())) == 3
    assert query_of(oidc.begin(SECRET)) | derived == query_of(oidc.begin(SECRET))
    assert not set(derived.values()) & set(query_of(oidc.begin(bytes(32))).values())


def test_the_code_is_exchanged_with_our_secret_and_the_verifier(liar: Liar, oidc: Oidc) -> None:
    assert oidc.finish(SECRET, liar.begun(oidc.begin(SECRET))) == "ada@example.org"
    [form] = liar.asked
    assert (form["grant_type"], form["code"], form["redirect_uri"]) == ("authorization_code", "the-code", CALLBACK)
    assert len(form["code_verifier"]) == 43
    ours = b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
    assert form["Authorization"] == f"Basic {ours}"


def test_a_provider_that_takes_the_secret_in_the_form_gets_it_there(liar: Liar, oidc: Oidc) -> None:
    liar.change_discovery = lambda document: document.update(
        token_endpoint_auth_methods_supported=["client_secret_post"]
    )
    assert oidc.finish(SECRET, liar.begun(oidc.begin(SECRET))) == "ada@example.org"
    [form] = liar.asked
    assert (form["client_id"], form["client_secret"], form["Authorization"]) == (CLIENT_ID, CLIENT_SECRET, "")


NOW_S = wall_clock_ms() // 1000


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://login.example.org"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": []},
        {"aud": None},
        {"aud": [CLIENT_ID, "another-client"]},
        {"aud": [CLIENT_ID, "another-client"], "azp": "another-client"},
        {"azp": "another-client"},
        {"exp": NOW_S - 60},
        {"exp": None},
        {"exp": "tomorrow"},
        {"iat": NOW_S + 3600},
        {"iat": None},
        {"nbf": NOW_S + 3600},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
    ],
)
def test_a_token_with_a_claim_that_is_not_as_it_should_be_is_refused(
    liar: Liar, oidc: Oidc, change: dict[str, Any]
) -> None:
    """None: the claim is absent."""

    def lie(claims: dict[str, Any]) -> None:
        claims.update(change)
        for name in [name for name, value in claims.items() if value is None]:
            del claims[name]

    liar.change_claims = lie
    status, code, detail = refusal(oidc, liar.begun(oidc.begin(SECRET)))
    assert (status, code) == (401, "sso_refused")
    assert detail == "what Acme Login said about you could not be verified"


def test_a_token_for_several_is_taken_when_it_was_issued_to_us(liar: Liar, oidc: Oidc) -> None:
    liar.change_claims = lambda claims: claims.update(aud=[CLIENT_ID, "another-client"], azp=CLIENT_ID)
    assert oidc.finish(SECRET, liar.begun(oidc.begin(SECRET))) == "ada@example.org"


def test_clocks_may_differ_a_little(liar: Liar, oidc: Oidc) -> None:
    now_s = wall_clock_ms() // 1000
    liar.change_claims = lambda claims: claims.update(iat=now_s + 10, exp=now_s - 10)
    assert oidc.finish(SECRET, liar.begun(oidc.begin(SECRET))) == "ada@example.org"


@pytest.mark.parametrize("email", ["\u212aate@example.org", "ada@example.org\u0000", 7, None, ["ada@example.org"]])
def test_an_email_that_no_account_here_can_have_is_refused(liar: Liar, oidc: Oidc, email: Any) -> None:
    """The Kelvin sign has the same small letter as K, and a database may take the one for the other."""
    liar.change_claims = lambda claims: claims.update(email=email)
    assert refusal(oidc, liar.begun(oidc.begin(SECRET)))[:2] == (401, "sso_refused")


def test_a_token_signed_by_somebody_else_is_refused(liar: Liar, oidc: Oidc) -> None:
    liar.signer = RSAKey.generate_key(2048, {"kid": "first"})
    assert refusal(oidc, liar.begun(oidc.begin(SECRET)))[:2] == (401, "sso_refused")


def test_a_mac_made_with_a_published_or_shared_secret_is_no_signature(liar: Liar, oidc: Oidc, key: RSAKey) -> None:
    liar.change_header = lambda header: header.update(alg="HS256", kid="first")
    for secret in (CLIENT_SECRET.encode().ljust(32, b"."), b"published" * 4):
        liar.signer = OctKey.import_key(secret, {"kid": "first"})
        liar.keys = [key, liar.signer]
        assert refusal(oidc, liar.begun(oidc.begin(SECRET)))[:2] == (401, "sso_refused")


def test_a_token_without_a_signature_is_refused(liar: Liar, oidc: Oidc) -> None:
    query = liar.begun(oidc.begin(SECRET))
    _, claims, signature = liar.id_token().split(".")
    header = b64encode(b'{"alg":"none","kid":"first"}').decode().rstrip("=")
    for raw in (f"{header}.{claims}.", f"{header}.{claims}.{signature}", "", "a.b.c", "\u00e9", "." * 1000):
        liar.token_answer = 200, json.dumps({"id_token": raw}).encode()
        assert refusal(oidc, query)[:2] == (401, "sso_refused")


@pytest.mark.parametrize(
    ("signer", "algorithm"),
    [(ECKey.generate_key("P-256", {"kid": "ec"}), "ES256"), (OKPKey.generate_key("Ed25519", {"kid": "ed"}), "Ed25519")],
    ids=["ES256", "Ed25519"],
)
def test_other_kinds_of_public_keys_do_as_well(liar: Liar, oidc: Oidc, signer: ECKey | OKPKey, algorithm: str) -> None:
    liar.keys = [signer]
    liar.change_header = lambda header: header.update(alg=algorithm)
    assert oidc.finish(SECRET, liar.begun(oidc.begin(SECRET))) == "ada@example.org"


def test_what_is_known_of_the_provider_is_read_once_an_hour(liar: Liar, oidc: Oidc, clock: Clock) -> None:
    for _ in range(3):
        oidc.finish(SECRET, liar.begun(oidc.begin(SECRET)))
    assert liar.seen == ["/.well-known/openid-configuration", "/jwks"]
    clock.ahead_ms = HOUR_MS + 1000
    oidc.begin(SECRET)
    assert liar.seen == ["/.well-known/openid-configuration", "/jwks"] * 2


def test_a_new_key_of_the_provider_is_fetched_when_it_is_first_seen(liar: Liar, oidc: Oidc) -> None:
    oidc.finish(SECRET, liar.begun(oidc.begin(SECRET)))
    liar.keys.append(RSAKey.generate_key(2048, {"kid": "second"}))
    liar.signer = liar.keys[-1]
    assert oidc.finish(SECRET, liar.begun(oidc.begin(SECRET))) == "ada@example.org"
    liar.signer = RSAKey.generate_key(2048, {"kid": "unpublished"})
    assert refusal(oidc, liar.begun(oidc.begin(SECRET)))[:2] == (401, "sso_refused")


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"error": "access_denied"}, "Acme Login did not sign you in (access_denied)"),
        ({"error": "<b>Call 0900 for help</b>"}, "Acme Login did not sign you in"),
        ({"code": ""}, "Acme Login did not sign you in"),
        ({"state": "\u00e9"}, "this sign-in was not begun in this browser, or too long ago; try again"),
    ],
)
def test_whatever_comes_back_is_answered_in_our_own_words(
    liar: Liar, oidc: Oidc, change: dict[str, str], shown: str
) -> None:
    query = liar.begun(oidc.begin(SECRET))
    if "error" in change:
        del query["code"]
    assert refusal(oidc, query | change) == (401, "sso_refused", shown)
    assert liar.asked == []
    assert refusal(oidc, {})[:2] == (401, "sso_refused")


@pytest.mark.parametrize(
    ("status", "raw"),
    [
        (500, b"{}"),
        (503, b"<html>later</html>"),
        (200, b"<html>log in to the hotel's network</html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"id_token": 7}'),
        (302, b""),
        (401, b'{"error": "invalid_client"}'),
        (400, b'{"error": {"not": "text"}}'),
    ],
)
def test_a_token_endpoint_that_makes_no_sense_is_the_providers_fault(
    liar: Liar, oidc: Oidc, status: int, raw: bytes
) -> None:
    query = liar.begun(oidc.begin(SECRET))
    liar.token_answer = status, raw
    refused = refusal(oidc, query)
    assert refused == (503, "sso_away", "Acme Login does not answer as it should right now")


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://login.example.org"},
        {"issuer": None},
        {"authorization_endpoint": None},
        {"token_endpoint": "http://login.example.org/token"},
        {"token_endpoint": "http://127.0.0.1.example.org/token"},
        {"jwks_uri": "file:///etc/hostname"},
        {"jwks_uri": None},
        {"token_endpoint_auth_methods_supported": 7},
    ],
)
def test_a_provider_that_says_nonsense_about_itself_is_not_used(liar: Liar, oidc: Oidc, change: dict[str, Any]) -> None:
    liar.change_discovery = lambda document: document.update(change)
    with pytest.raises(Problem, match="503 sso_away"):
        oidc.begin(SECRET)
    liar.change_discovery = lambda _document: None
    assert oidc.begin(SECRET)


@pytest.mark.parametrize(
    "raw", ["{}", "[]", '{"keys": []}', '{"keys": 7}', '{"keys": [7]}', '{"keys": [{"kty": "RSA"}]}']
)
def test_published_keys_that_are_none_make_the_provider_unusable(
    oidc: Oidc, raw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.integration.oidc_provider.KeySet.as_dict", lambda *_, **__: json.loads(raw))
    with pytest.raises(Problem, match="503 sso_away"):
        oidc.begin(SECRET)


def test_while_the_provider_is_away_nobody_is_sent_there() -> None:
    oidc = Oidc(settings(f"http://127.0.0.1:{free_ports()[0]}"), CALLBACK, wall_clock_ms)
    with pytest.raises(Problem) as away:
        oidc.begin(SECRET)
    assert (away.value.status, away.value.code) == (503, "sso_away")
    assert away.value.headers["Retry-After"]


def test_the_clients_secret_is_in_no_address_and_no_text_about_it(liar: Liar, oidc: Oidc) -> None:
    about = OidcSettings(liar.issuer, CLIENT_ID, CLIENT_SECRET, "Acme Login")
    assert CLIENT_SECRET not in repr(about) + str(vars(oidc)) + oidc.begin(SECRET)
