"""The text of a key: one form, a checksum that finds every slip of the hand, and nothing that a look-alike gets past."""

import hashlib
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.key_text import ALPHABET, base62, compose, digest, id_text, parse

UUID7 = UUID("0193f0a1-b2c3-7d4e-8f60-718293a4b5c6")
KEY_ID = id_text(UUID7)
TEXT = compose(KEY_ID, bytes(range(32)))
patient = settings(deadline=None)


@patient
@given(st.uuids(), st.binary(min_size=32, max_size=32))
def test_a_key_text_has_75_characters_and_gives_its_id_back(uuid: UUID, secret: bytes) -> None:
    text = compose(id_text(uuid), secret)
    parsed = parse(text)
    assert len(text) == 75
    assert text.startswith("kl_")
    assert parsed is not None
    assert parsed.key_id == id_text(uuid)
    assert parsed.digest == digest(text) == hashlib.sha256(text.encode()).hexdigest()


def test_every_change_of_one_character_is_noticed() -> None:
    others = ALPHABET + "_- \n\u0660\u00e9"
    changed = [TEXT[:at] + other + TEXT[at + 1 :] for at in range(len(TEXT)) for other in others if other != TEXT[at]]
    assert len(changed) > 4500
    assert [text for text in changed if parse(text) is not None] == []


@patient
@given(st.text(max_size=80))
def test_any_text_may_be_asked_about(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "text", ["", "kl_", TEXT + "\n", "\n" + TEXT, TEXT[:-1], TEXT + "0", TEXT.upper(), TEXT.replace("_", "-")]
)
def test_another_shape_is_no_key(text: str) -> None:
    assert parse(text) is None


def test_a_key_of_another_prefix_is_no_key_of_ours() -> None:
    text = compose(KEY_ID, bytes(32), prefix="acme")
    assert parse(text) is None
    assert parse(TEXT, prefix="acme") is None
    found = parse(text, prefix="acme")
    assert found is not None
    assert found.key_id == KEY_ID


@pytest.mark.parametrize(
    ("key_id", "secret", "prefix"),
    [
        (KEY_ID[1:], bytes(32), "kl"),
        (KEY_ID, bytes(31), "kl"),
        (KEY_ID, bytes(33), "kl"),
        (KEY_ID, bytes(32), ""),
        (KEY_ID, bytes(32), "k_l"),
        (KEY_ID, bytes(32), "k" * 17),
    ],
)
def test_a_key_of_other_parts_is_not_made(key_id: str, secret: bytes, prefix: str) -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        compose(key_id, secret, prefix)


@pytest.mark.parametrize(
    ("number", "length", "text"), [(0, 3, "000"), (61, 1, "z"), (62, 2, "10"), (62**3 - 1, 3, "zzz")]
)
def test_base62_is_padded_on_the_left(number: int, length: int, text: str) -> None:
    assert base62(number, length) == text


@pytest.mark.parametrize(("number", "length"), [(62, 1), (62**22, 22), (62**43, 43)])
def test_a_number_that_needs_more_digits_is_refused(number: int, length: int) -> None:
    with pytest.raises(ValueError, match="base62 digits"):
        base62(number, length)


def test_the_largest_id_secret_and_checksum_fit() -> None:
    assert len(id_text(UUID(int=2**128 - 1))) == 22
    assert len(base62(2**256 - 1, 43)) == 43
    assert len(base62(2**32 - 1, 6)) == 6


def test_ids_sort_as_their_uuids_do() -> None:
    numbers = [0, 1, 61, 62, 2**64, 2**127, 2**128 - 1]
    texts = [id_text(UUID(int=number)) for number in numbers]
    assert sorted(texts) == texts
