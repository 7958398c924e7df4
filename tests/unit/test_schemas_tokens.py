"""Signed tokens: only what the console signed, for us, a short while ago, is believed."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from schemas.tokens import BadToken, Claims, ExpiredToken, KeySet, jwk_of, looks_signed, sign, verify

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
NOW_S = int(time.time())
CLAIMS = Claims(sub="user", org="org", rev=7, exp=NOW_S + 200)
GOOD = {
    "iss": "keyledger-console",
    "aud": "keyledger",
    "sub": "user",
    "org": "org",
    "rev": 7,
    "exp": NOW_S + 200,
    "iat": NOW_S,
}


def _verify(token: str, now_s: float = NOW_S) -> Claims:
    return verify(token, {"k1": KEY.public_key()}.get, now_s)


def _token(change: Mapping[str, Any] | None = None, *, drop: str = "", headers: Mapping[str, Any] | None = None) -> str:
    payload = {name: value for name, value in {**GOOD, **(change or {})}.items() if name != drop}
    return jwt.encode(payload, KEY, "EdDSA", headers={"kid": "k1", **(headers or {})})


def _part(document: Any) -> str:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_a_token_of_ours_gives_its_claims() -> None:
    assert _verify(sign(CLAIMS, KEY, "k1")) == CLAIMS
    assert _verify(_token()) == CLAIMS


def test_a_token_expires_at_its_second() -> None:
    token = sign(CLAIMS, KEY, "k1")
    assert _verify(token, CLAIMS.exp - 1) == CLAIMS
    with pytest.raises(ExpiredToken):
        _verify(token, CLAIMS.exp)


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "another"},
        {"aud": "another"},
        {"sub": 7},
        {"sub": None},
        {"org": ["org"]},
        {"rev": "7"},
        {"rev": True},
        {"rev": 7.0},
        {"exp": "soon"},
        {"exp": float(NOW_S + 200)},
        {"exp": NOW_S + 100_000},
    ],
    ids=str,
)
def test_a_token_with_another_claim_is_not_believed(change: dict[str, Any]) -> None:
    with pytest.raises(BadToken) as caught:
        _verify(_token(change))
    assert not isinstance(caught.value, ExpiredToken)


@pytest.mark.parametrize("name", GOOD)
def test_a_token_without_one_of_its_claims_is_not_believed(name: str) -> None:
    with pytest.raises(BadToken):
        _verify(_token(drop=name))


def test_a_token_signed_with_another_key_is_not_believed() -> None:
    with pytest.raises(BadToken):
        _verify(sign(CLAIMS, OTHER, "k1"))


@pytest.mark.parametrize("kid", ["k2", "", None, 1, ["k1"]])
def test_a_token_of_an_unknown_key_is_not_believed(kid: Any) -> None:
    signed = f"{_part({'alg': 'EdDSA', 'kid': kid})}.{_part(GOOD)}"
    with pytest.raises(BadToken):
        _verify(f"{signed}.{_part(KEY.sign(signed.encode()))}")


def test_a_token_that_names_no_algorithm_is_not_believed() -> None:
    for alg in ("none", "None", "NONE"):
        with pytest.raises(BadToken):
            _verify(f"{_part({'alg': alg, 'kid': 'k1'})}.{_part(GOOD)}.")


def test_a_token_signed_with_the_public_key_as_a_secret_is_not_believed() -> None:
    public = KEY.public_key()
    for secret in (public.public_bytes(Encoding.Raw, PublicFormat.Raw), jwk_of(public, "k1")["x"].encode()):
        with pytest.raises(BadToken):
            _verify(jwt.encode(GOOD, secret.ljust(32, b"\0"), "HS256", headers={"kid": "k1"}))


def test_a_changed_payload_is_not_believed() -> None:
    head, _, signature = sign(CLAIMS, KEY, "k1").split(".")
    with pytest.raises(BadToken):
        _verify(f"{head}.{_part({**GOOD, 'sub': 'admin'})}.{signature}")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "..",
        "a.b.c",
        "\u00e9.\u00e9.\u00e9",
        f"{_part([])}.{_part([])}.",
        f"{_part(b'[' * 100_000)}.{_part(GOOD)}.aa",
        f"{_part({'alg': 'EdDSA', 'kid': 'k1', 'crit': ['x']})}.{_part(GOOD)}.aa",
        "kl_0123",
        "\0.\0.\0",
        "a" * 100_000,
    ],
    ids=lambda token: repr(token[:12]),
)
def test_garbage_is_not_believed_and_harms_nobody(token: str) -> None:
    with pytest.raises(BadToken):
        _verify(token)


def test_a_token_is_not_made_for_longer_than_five_minutes() -> None:
    with pytest.raises(ValueError, match="five minutes"):
        sign(Claims("user", "org", 1, int(time.time()) + 302), KEY, "k1")


def test_a_signed_token_looks_different_from_an_api_key() -> None:
    assert looks_signed(sign(CLAIMS, KEY, "k1"))
    assert not looks_signed("kl_0123_4567")


class Console:
    """A console's JWKS: `keys` are published, `away` makes it fail; counts how often it was asked."""

    def __init__(self, **keys: Ed25519PrivateKey) -> None:
        self.keys = keys
        self.away = False
        self.asked = 0

    def fetch(self) -> Mapping[str, Any]:
        self.asked += 1
        if self.away:
            raise OSError("away")
        return {"keys": [jwk_of(key.public_key(), kid) for kid, key in self.keys.items()]}


def test_keys_are_fetched_once_and_again_when_a_new_one_turns_up() -> None:
    console = Console(k1=KEY)
    keys = KeySet(console.fetch, retry_s=0)
    assert [keys.key_of("k1"), keys.key_of("k1")] == [KEY.public_key()] * 2
    assert console.asked == 1
    console.keys = {"k1": KEY, "k2": OTHER}
    assert keys.key_of("k2") == OTHER.public_key()
    assert console.asked == 2


def test_a_key_that_the_console_took_back_is_not_believed_any_more() -> None:
    console = Console(k1=KEY, k2=OTHER)
    keys = KeySet(console.fetch, retry_s=0, good_for_s=0)
    assert keys.key_of("k1") == KEY.public_key()
    console.keys = {"k2": OTHER}
    assert keys.key_of("k1") is None
    console.away = True
    assert keys.key_of("k2") == OTHER.public_key()


def test_forged_key_ids_cause_one_fetch_in_each_retry_time() -> None:
    console = Console(k1=KEY)
    keys = KeySet(console.fetch, retry_s=3600)
    assert {keys.key_of(f"forged{number}") for number in range(100)} == {None}
    assert console.asked == 1
    assert keys.key_of("k1") == KEY.public_key()


def test_a_console_that_is_away_is_asked_once_in_each_retry_time_and_nobody_is_called_a_forger() -> None:
    console = Console(k1=KEY)
    console.away = True
    keys = KeySet(console.fetch, retry_s=3600)
    for _ in range(5):
        with pytest.raises(OSError, match="not to be had"):
            keys.key_of("k1")
    assert console.asked == 1


def test_known_keys_are_good_while_the_console_is_away_and_new_ones_when_it_is_back() -> None:
    console = Console(k1=KEY)
    keys = KeySet(console.fetch, retry_s=0)
    keys.key_of("k1")
    console.away = True
    with pytest.raises(OSError, match="not to be had"):
        keys.key_of("k2")
    assert keys.key_of("k1") == KEY.public_key()
    console.away, console.keys = False, {"k2": OTHER}
    assert keys.key_of("k2") == OTHER.public_key()


@pytest.mark.parametrize("document", [{"keys": [{}]}, {"keys": [{"kty": "OKP"}]}, {"keys": 7}, [], {"keys": ["x"]}])
def test_an_answer_that_is_no_key_set_counts_as_the_console_being_away(document: Any) -> None:
    with pytest.raises(OSError, match="not to be had"):
        KeySet(lambda: document).key_of("k1")
