"""Averages the values of several seeds: mean, standard deviation, and how many count."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vgexp.quantities import Quantity


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over seeds, of the logarithms where geometric.

    Geometric: `centre` is exp(mean ln x), `spread` the factor exp(std ln x), at least 1. Values
    left out, and not in `num_values`: null, not finite and, where geometric, not above zero.
    """

    centre: float | None
    """None where no value counts."""
    spread: float | None
    """None with fewer than two values."""
    num_values: int
    num_seeds: int
    is_geometric: bool


def spread_of(values: Sequence[Any], quantity: Quantity) -> Spread:
    """Averages a quantity's values, one for each seed, as its declaration says."""
    geometric = quantity.is_geometric
    finite = [float(v) for v in values if v is not None and math.isfinite(v)]
    counted = [math.log(v) for v in finite if v > 0] if geometric else finite
    centre, spread = _mean_and_std(counted)
    if geometric:
        centre, spread = (None if part is None else math.exp(part) for part in (centre, spread))
    return Spread(centre, spread, len(counted), len(values), geometric)


def counts_of(names: Iterable[str]) -> str:
    """Says how often each name occurs: `3 healthy, 2 vanishing`; of one run the name alone."""
    counts = Counter(name for name in names if name)
    if counts.total() == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1))
