"""Compares the form of a state that was read with the form of a run's own state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vgexp.checkpoints.pieces import UnusableError

_NUMBERS = (bool, int, float)


def require_like(found: Any, wanted: Any, place: str = "state") -> None:
    """Refuses a state whose types or tensor shapes differ from those of a run's own state.

    Where the run's is None or an empty container, as before the first step, anything is
    accepted.

    Raises:
        UnusableError: with the place of the first that differs.
    """
    if wanted is None or (isinstance(wanted, Mapping | list | tuple) and not wanted):
        return
    if isinstance(wanted, Tensor):
        is_like = isinstance(found, Tensor) and _form(found) == _form(wanted)
    elif isinstance(wanted, Mapping):
        is_like = isinstance(found, Mapping) and found.keys() >= wanted.keys()
    elif isinstance(wanted, list | tuple):
        is_like = isinstance(found, list | tuple) and len(found) == len(wanted)
    elif isinstance(wanted, _NUMBERS):
        is_like = isinstance(found, _NUMBERS)
    else:
        is_like = isinstance(found, type(wanted))
    if not is_like:
        raise UnusableError(f"its {place} is not of the form that this run's has")
    if isinstance(wanted, Mapping):
        for key, value in wanted.items():
            require_like(found[key], value, f"{place}.{key}")
    elif isinstance(wanted, list | tuple):
        for number, value in enumerate(wanted):
            require_like(found[number], value, f"{place}.{number}")


def size_of(state: Any) -> int:
    """Adds up the bytes of the tensors in a state; one that is there twice counts twice."""
    if isinstance(state, Tensor):
        return math.prod(state.shape) * state.element_size()
    if isinstance(state, Mapping):
        return sum(map(size_of, state.values()))
    return sum(map(size_of, state)) if isinstance(state, list | tuple) else 0


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tuple(tensor.shape)
