"""Lines over steps or depth: running means, and the mean of several seeds' lines with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vgexp.quantities import Quantity

# Shapes: R lines, X places on the x axis of any line, n places of one line.

Floats = NDArray[np.float64]

LONGEST_WINDOW = 20
"""Steps of a running mean at the most, as in the metrics of a summary."""
_LEAST_STEPS = 60


@dataclass(frozen=True)
class Line:
    """Values [n] at places [n] that ascend; nan where there is no value."""

    x: Floats
    y: Floats

    @property
    def has_value(self) -> bool:
        """Whether any value is a number."""
        return bool((~np.isnan(self.y)).any())


@dataclass(frozen=True)
class Band:
    """The mean and the spread of several lines, at the places [X] that `fold` keeps."""

    x: Floats
    centre: Floats
    """Mean, or geometric mean; of one line its own values, whatever they are."""
    low: Floats
    """Centre less the standard deviation (n - 1), or over the geometric one; nan below 2 values."""
    high: Floats
    counts: NDArray[np.int64]
    """Lines with a value that counts at that place; of zeros, if nothing else is there, these."""
    num_lines: int

    @property
    def seeds(self) -> str:
        """Says how many seeds it is made of: `3 seeds`, `2 of 3 seeds, 1 at the end`."""
        counts = self.counts[self.counts > 0]
        most = int(counts.max(initial=0))
        words = f"{self.num_lines} {'seed' if self.num_lines == 1 else 'seeds'}"
        if most < self.num_lines:
            words = f"{most} of {words}"
        if not counts.size or counts.min() == most:
            return words
        is_end = counts[-1] == counts.min()
        return f"{words}, {counts.min()} at the {'end' if is_end else 'fewest'}"


def fold(lines: Sequence[Line], quantity: Quantity) -> Band:
    """Averages lines: at each place mean and standard deviation over those with a value there.

    A place that a line passes over is left out: a run that was cut short or diverged has a last row
    where the others have none, and alone it is no mean of them.

    As `spread.spread_of` folds single values: the logarithms of a quantity that spreads
    geometrically, over what is finite and, there, above zero. Where nothing counts: 0 if some
    line has exactly 0, else infinity if some line has that, else nan.

    Args:
        lines: at least one.
        quantity: says which mean.
    """
    if len(lines) == 1:
        line = lines[0]
        none = np.full(line.x.shape, np.nan)
        counts = np.isfinite(line.y).astype("int64")
        return Band(line.x, line.y, none, none, counts, 1)
    places = _shared_places(lines)
    values_RX = np.full((len(lines), places.size), np.nan)
    for row, line in zip(values_RX, lines, strict=True):
        is_shared = np.isin(line.x, places)
        row[np.searchsorted(places, line.x[is_shared])] = line.y[is_shared]
    geometric = quantity.is_geometric
    counted_RX = np.isfinite(values_RX) & ((values_RX > 0) | (not geometric))
    used_RX = np.where(counted_RX, values_RX, 1.0)
    used_RX = np.log(used_RX) if geometric else used_RX
    counts = counted_RX.sum(axis=0)
    mean, deviation = _mean_and_std(used_RX, counted_RX, counts)
    back: Any = np.exp if geometric else np.positive
    centre = np.where(counts > 0, back(mean), _show_uncounted(values_RX))
    low, high = (np.where(counts > 1, back(mean + sign * deviation), np.nan) for sign in (-1, 1))
    counts = np.where(counts > 0, counts, (values_RX == 0).sum(axis=0))
    return Band(places, centre, low, high, counts, len(lines))


def window_for(num_steps: int) -> int:
    """Returns the window of a running mean: a tenth of the steps, 20 at the most.

    1, which is none, of fewer than 60: it would hide what there is.
    """
    return 1 if num_steps < _LEAST_STEPS else min(LONGEST_WINDOW, num_steps // 10)


def running_mean(line: Line, window: int) -> Line:
    """Averages each value with the `window - 1` before it; nan where there are fewer before it.

    What is not finite is left out of its neighbours' means, and itself stays as it is.
    """
    if not line.y.size:
        return line
    finite = np.isfinite(line.y)
    weights = np.full(window, 1 / window)
    # Sums of few terms, each by itself: a difference of running sums loses what follows a peak.
    sums = np.convolve(np.where(finite, line.y, 0.0), weights)[: line.y.size]
    shares = np.convolve(finite.astype("float64"), weights)[: line.y.size]
    means = np.divide(sums, shares, out=np.copy(line.y), where=finite)
    # Means of a growing window stay above a loss that falls.
    means[: window - 1] = np.nan
    return Line(line.x, np.where(finite, means, line.y))


def _shared_places(lines: Sequence[Line]) -> Floats:
    """Returns the places of any line that no line passes over."""
    places = np.unique(np.concatenate([line.x for line in lines]))
    is_shared = np.ones(places.shape, dtype=bool)
    for line in lines:
        if line.x.size:
            is_outside = (places < line.x[0]) | (places > line.x[-1])
            is_shared &= is_outside | np.isin(places, line.x)
    return places[is_shared]


def _mean_and_std(
    values_RX: Floats, counted_RX: NDArray[np.bool_], counts: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Computes both over the lines that count, at each place [X]; anything where none does."""
    mean = np.where(counted_RX, values_RX, 0.0).sum(axis=0) / np.maximum(counts, 1)
    squares = np.where(counted_RX, values_RX - mean, 0.0) ** 2
    return mean, np.sqrt(squares.sum(axis=0) / np.maximum(counts - 1, 1))


def _show_uncounted(values_RX: Floats) -> Floats:
    """Returns what is shown [X] where no value counts."""
    infinite = np.where(np.isposinf(values_RX).any(axis=0), np.inf, np.nan)
    return np.where((values_RX == 0).any(axis=0), 0.0, infinite)
