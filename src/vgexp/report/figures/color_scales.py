"""Colour scales for metrics of runs: factors about 1, magnitudes, shares, words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, LogNorm, Normalize, to_rgb

from vgexp.errors import QuestionError
from vgexp.quantities import Quantity
from vgexp.report.figures import style

DIVERGING = "PuOr"
"""Orange below the middle, white there, purple above (ColorBrewer; safe for the colour-blind)."""

_VANISHING, _STEADY, _EXPLODING = "#e08214", "#f2f2f2", "#6a51a3"
_WORDS = {
    "vanishing": _VANISHING,
    "exploding": _EXPLODING,
    "steady": _STEADY,
    "healthy": "#c6e8f5",
    "completed": "#c6e8f5",
    "relapsed": "#56b4e9",
    "undecided": "#dddddd",
    "stalled": "#b3b3b3",
    "stopped": "#b3b3b3",
    "diverged": "#222222",
    "failed": "#d55e00",
}
"""Words of `verdict`, `signal` and `status`; their lightness differs too."""
_FURTHER = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"),
    *("#f0e442", "#7f7f7f", "#8c510a", "#332288", "#882255"),
)
# A map of factors reaches from 1 this far at the least, so that little is not full colour: of a
# factor per layer, and of what many layers make of it.
_LEAST = {"factor": 1.2, "product": 10.0}
_LARGEST = 1e300
_NEAR_ONE = (1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0)


Colour = tuple[float, float, float]
"""Red, green, blue."""


@dataclass(frozen=True)
class ColorScale:
    """A scale of colours for values."""

    title: str
    norm: Normalize | None
    """None: of words."""
    map: Colormap = field(default_factory=lambda: mpl.colormaps[style.SEQUENTIAL])
    ticks: Sequence[float] | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    """Word -> colour."""

    @property
    def is_log(self) -> bool:
        """Whether the scale is logarithmic, with no place for 0 and below."""
        return isinstance(self.norm, LogNorm)

    def colours_of(self, values: Iterable[Any]) -> dict[Any, Colour]:
        """Returns the colour of each value that has a place on the scale."""
        if self.norm is None:
            return {value: to_rgb(self.words[value]) for value in values if value in self.words}
        placed = [
            value
            for value in dict.fromkeys(values)
            if np.isfinite(value) and (value > 0 or not self.is_log)
        ]
        table = self.map(self.norm(placed)) if placed else ()
        return {value: to_rgb(tuple(row)) for value, row in zip(placed, table, strict=True)}


def scale_of(quantity: Quantity, values: Sequence[Any]) -> ColorScale:
    """Makes the scale for values of a quantity, by its declaration and their range.

    Factors: logarithmic and symmetric about 1, which is white. Words: a colour each.

    Raises:
        QuestionError: too many different words.
    """
    if any(isinstance(value, str) for value in values):
        words = [str(value) for value in values]
        return ColorScale(quantity.name, None, words=_choose_colours(quantity.name, words))
    numbers = style.finite(values)
    positive = numbers[numbers > 0]
    if quantity.scale in _LEAST:
        farthest = max(positive.max(initial=1.0), 1 / max(positive.min(initial=1.0), 1 / _LARGEST))
        most = float(min(max(farthest, _LEAST[quantity.scale]), _LARGEST))
        title = f"{quantity.name}\nbelow 1 vanishing, above 1 exploding"
        return ColorScale(title, LogNorm(1 / most, most), mpl.colormaps[DIVERGING], _ticks(most))
    lowest, highest = float(numbers.min(initial=np.inf)), float(numbers.max(initial=-np.inf))
    if positive.size and quantity.is_logarithmic(lowest, highest):
        low, high = float(positive.min()), float(positive.max())
        return ColorScale(
            quantity.name, LogNorm(low, high) if low < high else LogNorm(low / 3, high * 3)
        )
    low, high = (lowest, highest) if numbers.size else (0.0, 1.0)
    pad = 0.0 if low < high else max(abs(low) / 10, 1e-3)
    return ColorScale(quantity.name, Normalize(low - pad, high + pad))


def _ticks(most: float) -> list[float] | None:
    """About 1, the same below and above; None: where decades serve."""
    if most >= 10:
        return None
    above = [factor for factor in _NEAR_ONE if factor <= most * 1.0001][-2:]
    return [*(1 / factor for factor in reversed(above)), 1.0, *above]


def _choose_colours(name: str, values: Sequence[str]) -> dict[str, str]:
    words = list(dict.fromkeys(values))
    if len(words) > len(_FURTHER):
        raise QuestionError(
            f"{name} has {len(words)} different values, too many for colours\n"
            f"allowed: a number, or words of which there are at most {len(_FURTHER)}"
        )
    further = iter(_FURTHER)
    return {word: _WORDS.get(word) or next(further) for word in words}
