"""Passwords of the console."""

from typing import Literal

import pytest
from argon2 import PasswordHasher

from services.console import passwords
from services.console.passwords import Passwords

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def quick() -> Passwords:
    return Passwords(QUICK)


def test_the_right_password_verifies_and_any_other_does_not(quick: Passwords) -> None:
    stored = quick.hash("correct horse battery")
    assert quick.verify(stored, "correct horse battery")
    assert not quick.verify(stored, "correct horse battery ")


def test_a_hash_is_argon2id_with_a_salt_of_its_own(quick: Passwords) -> None:
    first, second = quick.hash("same password"), quick.hash("same password")
    assert first.startswith("$argon2id$")
    assert first != second


def test_an_unknown_account_costs_one_verification_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever measures the time of a refusal does not learn whether the account exists."""
    verified: list[str] = []

    class Noting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 -- argon2-cffi's own name
            verified.append(str(hash))
            return super().verify(hash, password)

    judge = Passwords(Noting(time_cost=1, memory_cost=8, parallelism=1))
    assert not judge.verify(None, "whatever it is")
    assert len(verified) == 1
    assert verified[0].startswith("$argon2id$")


def test_a_stored_text_that_is_no_hash_verifies_nothing(quick: Passwords) -> None:
    assert not quick.verify("not a hash", "correct horse battery")


def test_a_hash_with_other_parameters_is_outdated() -> None:
    stored = Passwords(QUICK).hash("correct horse battery")
    today = Passwords(PasswordHasher(time_cost=2, memory_cost=8, parallelism=1))
    assert today.verify(stored, "correct horse battery")
    assert today.is_outdated(stored)
    assert not Passwords(QUICK).is_outdated(stored)


def test_composed_and_decomposed_letters_are_one_password(quick: Passwords) -> None:
    assert quick.verify(quick.hash("cafe\u0301 cafe\u0301"), "caf\u00e9 caf\u00e9")


def test_temporary_passwords_differ_and_keep_the_rules() -> None:
    made = {passwords.temporary() for _ in range(100)}
    assert len(made) == 100
    assert all(passwords.SHORTEST <= len(one) <= passwords.LONGEST for one in made)


@pytest.mark.parametrize("password", ["correct horse battery", "another-long-password", passwords.temporary()])
def test_a_password_that_is_hard_to_guess_has_no_weakness(password: str) -> None:
    assert passwords.weakness(password, ["Ada Lovelace", "ada@example.org"]) is None


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("password123", "This is a very common password."),
        ("qwertyuiop", "common password"),
        ("aaaaaaaaaaaaaaaa", 'Repeats like "aaa" are easy to guess.'),
        ("Ada Lovelace", "Add another word or two."),
        ("ada.lovelace1", "Add another word or two."),
    ],
)
def test_a_weakness_is_named_in_plain_words(password: str, said: str) -> None:
    assert said in str(passwords.weakness(password, ["Ada Lovelace", "ada.lovelace@example.org"]))


def test_what_is_known_of_one_person_is_not_held_against_another() -> None:
    assert passwords.weakness("uqbarsson1941", ["Jo Uqbarsson", "jo.uqbarsson@example.org"]) is not None
    assert passwords.weakness("uqbarsson1941", ["Ada"]) is None


def test_only_the_beginning_of_a_long_password_is_judged() -> None:
    """Judging takes longer than in proportion to the length, and anyone who is signed in may ask for it."""
    assert passwords.weakness("correct horse battery" + "a" * 235, []) is None
    assert passwords.weakness("a" * 32 + "correct horse battery", []) is not None


@pytest.mark.parametrize("password", ["\u00e9" * 12, "\U0001f600" * 12, "\x00" * 12, "a\u0301" * 12])
def test_any_text_can_be_judged(password: str) -> None:
    assert passwords.weakness(password, ["", "\u00e9"]) is not None
