"""The type of each field in words, and the check that a value has it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from functools import cache
from numbers import Integral, Real
from typing import Any

from vgexp.errors import impossible

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list of text, as in [a,b]",
}
_MOST_EXACT = 2.0**53
"""The largest number below which a float holds every whole number."""
_ACCEPTED: dict[type, type] = {int: Integral, float: Real, bool: bool, str: str}


def in_words(cls: type, field: str) -> str | None:
    """Returns what a field may hold, for a reader: `a whole number, or null`.

    None for a section, and for a name that is no field.
    """
    return _words(_options(cls).get(field, ()))


def whole_number_like(value: object, words: str) -> int | None:
    """Returns the whole number that a value is equal to, where a field holds whole numbers.

    `1e3` is read as 1000.0. None where it is no such value, or no such field by its `words`.
    """
    if not isinstance(value, float) or not words.startswith(_WORDS[int]):
        return None
    return int(value) if value.is_integer() and 0 <= value <= _MOST_EXACT else None


def require_kinds(section: Any, prefix: str = "") -> None:
    """Requires that each plain field of a dataclass instance holds a value of its type.

    Raises:
        QuestionError: one does not.
    """
    cls: type = type(section)
    options = _options(cls)
    for field in dataclasses.fields(section):
        value, words = getattr(section, field.name), _words(options[field.name])
        if words is not None and not _fits(value, options[field.name]):
            raise impossible(f"{prefix}{field.name}", value, words)


@cache
def _words(options: tuple[type, ...]) -> str | None:
    words = [_WORDS[option] for option in options if option in _WORDS]
    if not words:
        return None
    return ", ".join(words) + (", or null" if type(None) in options else "")


def _fits(value: object, options: tuple[type, ...]) -> bool:
    if value is None:
        return type(None) in options
    if isinstance(value, bool):
        return bool in options
    if isinstance(value, list):
        return list in options and all(isinstance(each, str) for each in value)
    return any(isinstance(value, _ACCEPTED[o]) for o in options if o in _ACCEPTED)


@cache
def _options(cls: type) -> Mapping[str, tuple[type, ...]]:
    hints = typing.get_type_hints(cls)
    return {name: _kinds(hint) for name, hint in hints.items()}


def _kinds(hint: Any) -> tuple[type, ...]:
    if typing.get_origin(hint) is list:
        return (list,)
    return typing.get_args(hint) or (hint,)
