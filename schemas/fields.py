"""Strict marshmallow fields: what JSON says is what is taken, nothing is coerced.

Length, Shape, OneOf and Range describe structure, and `schemas.decoder` compiles them; every other validator is a
plain function that both sides call on the value.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from marshmallow import ValidationError, fields, validate

from schemas import times

MAX_INTEGER: Final = 2**53 - 1


class Shape(validate.Regexp):
    """A pattern the whole text must have; unlike `$`, a trailing newline is not forgiven."""

    def __init__(self, pattern: str) -> None:
        super().__init__(f"^(?:{pattern})$", error="has the wrong shape")
        self.whole = re.compile(pattern)

    def __call__(self, value: Any) -> Any:
        """Return the value, or raise ValidationError."""
        if not self.whole.fullmatch(value):
            raise ValidationError("has the wrong shape")
        return value


class Text(fields.String):
    """A JSON string. One with half a surrogate pair has no UTF-8 form and is none."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if type(value) is not str:
            raise self.make_error("invalid")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise self.make_error("invalid_utf8")
        return value


class Whole(fields.Integer):
    """A JSON integer below 2^53; true, 1.0 and "1" are none."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if type(value) is not int:
            raise self.make_error("invalid")
        return value


class Flag(fields.Boolean):
    """true or false; 1 and "yes" are neither."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if type(value) is not bool:
            raise self.make_error("invalid")
        return value


class Items(fields.List[Any]):
    """A JSON array."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if type(value) is not list:
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


def real_time(value: str) -> None:
    """The day and the hour of a text of the right shape exist. Raises ValidationError."""
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise ValidationError("is not a time that exists") from error


def canonical_network(value: str) -> None:
    """An IPv4 or IPv6 network as `ipaddress` writes it. Raises ValidationError."""
    try:
        canonical = str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValidationError("is not a network such as 192.0.2.0/24 or 2001:db8::/32") from error
    if canonical != value:
        raise ValidationError(f"is written {canonical}")


@lru_cache(4096)  # What is good is remembered: the same addresses come again and again.
def address_or_other(value: str) -> None:
    """An IP address, or `other` where a window had too many of them. Raises ValidationError."""
    if value == "other":
        return
    if "%" in value:  # A zone is of one machine only, and may hold any character.
        raise ValidationError("is not an IP address")
    try:
        ipaddress.ip_address(value)
    except ValueError as error:
        raise ValidationError("is not an IP address") from error


ID: Final = r"[A-Za-z0-9_-]{1,64}"
KEY_ID: Final = r"[0-9A-Za-z]{22}"
HASH: Final = r"[0-9a-f]{64}"
SCOPE: Final = r"[a-z0-9:._-]{1,64}"
# Control characters, line and paragraph separators and the marks that turn the direction of text around: a name
# with these looks like another name. A list of code points, not a category, so that all versions of us agree.
_UNSEEN: Final = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
PLAIN_TEXT: Final = f"[^{_UNSEEN}]*"
BLANKS: Final = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
"""What is trimmed from a name: spaces of all kinds, and nothing that a name may not hold."""


Check = Callable[[Any], Any]


def text(
    shape: str | None = None, longest: int = 4096, *, shortest: int = 0, check: Check | None = None, **more: Any
) -> Text:
    """A text of `shortest` to `longest` characters (code points)."""
    validators: list[Check] = [validate.Length(shortest, longest)]
    validators += [Shape(shape)] if shape else []
    validators += [check] if check else []
    return Text(validate=validators, **more)


def plain(longest: int, shortest: int = 1, **more: Any) -> Text:
    """Text that people wrote: no control characters and no marks that turn its direction."""
    return text(PLAIN_TEXT, longest, shortest=shortest, **more)


def time(**more: Any) -> Text:
    """A time as in `schemas.times`."""
    return text(times.SHAPE, 24, check=real_time, **more)


def one_of(choices: Sequence[str], **more: Any) -> Text:
    """One text out of a closed list."""
    return Text(validate=[validate.OneOf(choices)], **more)


def whole(least: int = 0, most: int = MAX_INTEGER, **more: Any) -> Whole:
    """An integer from `least` to `most`."""
    return Whole(validate=[validate.Range(least, most)], **more)


def items(inner: fields.Field[Any], most: int, least: int = 0, **more: Any) -> Items:
    """An array of `least` to `most` entries."""
    return Items(inner, validate=[validate.Length(least, most)], **more)
