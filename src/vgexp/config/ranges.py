"""Checks of single values, which say key, value and range."""

from __future__ import annotations

import math
import reprlib
import typing
from collections.abc import Mapping
from typing import Any

from vgexp.errors import QuestionError, impossible, unknown

_WORDS: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}


def of_its_type(key: str, value: object, hint: Any) -> None:
    """Requires a value of a field's type: a whole number passes for a number, not for text."""
    kinds = typing.get_args(hint) or (hint,)
    if not all(kind in _WORDS for kind in kinds):
        return
    accepted = {*kinds, int} if float in kinds else {*kinds}
    if type(value) not in accepted:
        # What a file holds can be deep, or long without end.
        words = " or ".join(_WORDS[kind] for kind in kinds)
        raise QuestionError(f"{key} is {reprlib.repr(value)}\nallowed: {words}")


def at_least(key: str, value: float | None, low: float) -> None:
    """Requires a finite number of at least `low`; None passes."""
    if value is not None and not (value >= low and math.isfinite(value)):
        raise impossible(key, value, f"a number of at least {low}")


def above(key: str, value: float | None, low: float) -> None:
    """Requires a finite number above `low`; None passes."""
    if value is not None and not (value > low and math.isfinite(value)):
        raise impossible(key, value, f"a number above {low}")


def within(key: str, value: float, low: float, high: float) -> None:
    """Requires `low <= value < high`."""
    if not low <= value < high:
        raise impossible(key, value, f"at least {low} and below {high}")


def one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Requires one of the allowed names."""
    if value not in allowed:
        raise unknown(key, value, allowed)
