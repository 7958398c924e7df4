"""The search for secrets is not blind: it finds every form in which one could stand somewhere."""

import base64

import pytest

from tests.leaks import Search, forms, secret_part

KEY = "kl_0000000000000000000001_" + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG" + "00abcd"
PASSWORD = "correct horse battery"


@pytest.mark.parametrize("shift", range(5))
@pytest.mark.parametrize("secret", [KEY, PASSWORD, KEY[-49:-6]])
def test_a_secret_is_found_in_base64_wherever_it_stood_in_the_text(secret: str, shift: int) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        around = b"\xff" * shift + secret.encode() + b"\xfe\xfd"
        assert Search([secret]).find(b"\x00\xff" + encode(around) + b'"') == {secret_part(secret)}


@pytest.mark.parametrize("secret", [KEY, PASSWORD])
def test_a_secret_is_found_as_text_and_in_hex(secret: str) -> None:
    for text in (secret, secret.encode().hex(), secret.encode().hex().upper(), f"x{secret}y"):
        assert Search([secret]).find(f"\x00{text}\x01".encode()) == {secret_part(secret)}


def test_the_secret_part_of_a_key_is_found_alone() -> None:
    assert Search([KEY]).find(KEY[-49:-6].encode()) == {KEY[-49:-6]}


def test_the_signature_of_a_token_is_what_makes_it_one() -> None:
    token = f"{'a' * 20}.{'b' * 30}.{'c' * 86}"
    assert Search([token]).find(("c" * 86).encode()) == {"c" * 86}
    assert Search([token]).find(f"{'a' * 20}.{'b' * 30}.".encode()) == set()


def test_what_is_public_about_a_key_is_not_found() -> None:
    assert Search([KEY]).find((KEY[:-49] + " ends in " + KEY[-4:]).encode()) == set()


def test_every_form_is_long_enough_to_mean_something() -> None:
    assert min(map(len, forms("eight888"))) >= 8
