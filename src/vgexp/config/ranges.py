"""Checks of single values, which say key, value and range."""

from __future__ import annotations

import math

from vgexp.errors import impossible, unknown


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
