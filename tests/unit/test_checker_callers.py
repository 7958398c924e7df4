"""Who is behind a signed token: the console's keys say whether it is good, the ledger says what its bearer may."""

import time
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas import events
from schemas.problems import Problem
from schemas.tokens import Claims, KeySet, jwk_of, sign
from services.auth_checker.bodies import AskedCaller, CallerAnswer
from services.auth_checker.callers import Callers
from tests.unit.checker_story import ANN, BEGINNING, REGISTERED, Asking, asking

__all__ = ["asking"]  # A fixture, asked for by its name.
KEY = Ed25519PrivateKey.generate()


def jwks() -> Mapping[str, Any]:
    return {"keys": [jwk_of(KEY.public_key(), "k1")]}


def token(key: Ed25519PrivateKey = KEY, kid: str = "k1", **claims: Any) -> str:
    given = {"sub": "ann", "org": "org", "rev": 0, "exp": int(time.time()) + 200, **claims}
    return sign(Claims(**given), key, kid)


@pytest.fixture
def callers(asking: Asking) -> Callers:
    asking.index.clock.wall_ms = int(time.time()) * 1000
    return Callers(asking.reader, asking.checker, KeySet(jwks))


def code(callers: Callers, signed: str, **more: Any) -> str:
    return callers.caller(AskedCaller(signed, **more)).code


def test_a_signed_in_person_is_described_by_the_ledger(asking: Asking, callers: Callers) -> None:
    asking.index.tell("org", REGISTERED, ANN)
    answer = callers.caller(AskedCaller(token()))
    assert answer == CallerAnswer(
        valid=True, code="VALID", org_id="org", user_id="ann", role="admin", kind="person", scopes=None, revision=2
    )
    asking.index.tell("org", events.UserRoleChanged(user_id="ann", role="member"))
    assert callers.caller(AskedCaller(token())).role == "member"
    assert asking.uses.counts() == ({}, {"uses": 0, "waiting": 0}), "a sign-in is no use of a key"


@pytest.mark.parametrize(
    ("told", "claims", "then"),
    [
        (BEGINNING, {}, "VALID"),
        ([*BEGINNING, events.OrgKeysDisabled()], {}, "VALID"),
        (BEGINNING, {"rev": 3}, "VALID"),
        (BEGINNING, {"rev": 4}, "STALE"),
        ([*BEGINNING, ANN], {}, "STALE"),
        (BEGINNING, {"exp": 1_000_000_000}, "EXPIRED"),
        ([*BEGINNING, events.UserDisabled(user_id="ann")], {}, "OWNER_DISABLED"),
        ([*BEGINNING, events.PersonErased(user_id="ann")], {}, "OWNER_DISABLED"),
        (BEGINNING, {"sub": "bob"}, "NOT_FOUND"),
        (BEGINNING, {"org": "other"}, "NOT_FOUND"),
        (BEGINNING, {"sub": "bootstrap", "org": "platform"}, "NOT_FOUND"),
        (BEGINNING, {"kid": "k2"}, "NOT_FOUND"),
        (BEGINNING, {"key": Ed25519PrivateKey.generate()}, "NOT_FOUND"),
    ],
)
def test_each_code_of_a_signed_token(asking: Asking, callers: Callers, told, claims, then) -> None:
    asking.index.tell("org", *told)
    answer = callers.caller(AskedCaller(token(**claims)))
    assert (answer.code, answer.valid) == (then, then == "VALID")


@pytest.mark.parametrize("text", ["a.b.c", "..", token()[:-8] + "AAAAAAAA", "\x00.\x00.\x00", "é.é.é"])
def test_a_token_that_is_none_is_not_found(asking: Asking, callers: Callers, text: str) -> None:
    asking.index.tell("org", *BEGINNING)
    assert code(callers, text) == "NOT_FOUND"


def test_a_revision_asked_for_is_waited_for_as_well_as_the_tokens_own(asking: Asking, callers: Callers) -> None:
    asking.index.tell("org", *BEGINNING)
    assert code(callers, token(), min_revision="org:3") == "VALID"
    assert code(callers, token(), min_revision="org:4") == "STALE"


def test_an_index_that_is_not_fresh_lets_nobody_in(asking: Asking, callers: Callers) -> None:
    asking.index.tell("org", *BEGINNING)
    asking.index.clock.boot_ns += 3_000_000_000
    assert code(callers, token()) == "STALE"


def test_without_the_consoles_keys_there_is_a_problem_and_no_answer(asking: Asking) -> None:
    def away() -> Mapping[str, Any]:
        raise OSError("connection refused")

    asking.index.tell("org", *BEGINNING)
    with pytest.raises(Problem) as refused:
        Callers(asking.reader, asking.checker, KeySet(away)).caller(AskedCaller(token()))
    assert (refused.value.status, refused.value.code) == (503, "console_unavailable")
