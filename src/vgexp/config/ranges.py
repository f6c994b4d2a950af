"""Checks of single values; each error names the key, the value and the range."""

from __future__ import annotations

import math
from numbers import Integral, Real

from vgexp.errors import impossible, unknown

MOST = 2**63 - 1
"""The largest whole number that a table, a tensor's size or a file of settings holds."""
MOST_DIVISORS_TRIED = 4096


def at_least(key: str, value: float | None, low: float) -> None:
    """Requires a finite number of at least `low`, a whole number if `low` is one; None passes."""
    if value is None:
        return
    if not (is_number(value, low) and value >= low):
        raise impossible(key, value, f"{_number(low)} of at least {low}")
    if isinstance(low, int) and value > MOST:
        raise impossible(key, value, f"a whole number of at least {low} and at most {MOST}")


def above(key: str, value: float | None, low: float) -> None:
    """Requires a finite number above `low`; None passes."""
    if value is not None and not (is_number(value, low) and value > low):
        raise impossible(key, value, f"{_number(low)} above {low}")


def within(key: str, value: float, low: float, high: float) -> None:
    """Requires `low <= value < high`, and a whole number if `low` is one."""
    if not (is_number(value, low) and low <= value < high):
        raise impossible(key, value, f"{_number(low)}, at least {low} and below {high}")


def finite(key: str, value: float | None) -> None:
    """Requires a finite number; None passes."""
    if value is not None and not is_number(value, 0.0):
        raise impossible(key, value, "a finite number")


def one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Requires one of the allowed names."""
    if value not in allowed:
        raise unknown(key, value, allowed)


def divisors(number: int, most: int) -> list[int]:
    """Lists the divisors of a number up to `most`; only the small ones of a large number."""
    return [n for n in range(1, min(most, MOST_DIVISORS_TRIED) + 1) if number % n == 0]


def is_number(value: object, like: float) -> bool:
    """Whether a value is a finite number, and a whole number if `like` is one."""
    kind = Integral if isinstance(like, int) else Real
    if not isinstance(value, kind) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _number(like: float) -> str:
    return "a whole number" if isinstance(like, int) else "a finite number"
