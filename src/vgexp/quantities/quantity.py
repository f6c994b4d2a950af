"""The declaration of a number or a word that a run records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from vgexp.quantities.reading import Reading

Kind = Literal["float", "int", "text"]
Role = Literal["value", "key", "label"]
Spread = Literal["geometric", "arithmetic"]
Scale = Literal["share", "linear", "by_range", "log", "factor", "product"]
Scaling = Literal["gradient", "delta", "nothing"]
OfBlock = Literal["norm", "largest"]

PREDICTION = "predicted_"
"""What the name of a quantity of theory begins with; the rest is the measured one's."""

FIRST_VERSION = "0.1"
"""The version of vgexp that wrote the first tables."""

_WIDE = 100.0
"""Largest over smallest value from which a logarithmic scale tells more."""


class Measure(NamedTuple):
    """How the probe computes a column of `layers.csv` that needs weights or gradients alone."""

    of: Literal["weight", "gradient"]
    """The weight before the update, or its gradient before clipping."""
    function: Callable[[Any], Any]
    """From the entries [R, N] of R weights, a tensor on any device, to a number a weight, [R]. It
    writes into no tensor, and looks at no value."""


@dataclass(frozen=True)
class Quantity:
    """A column of a table, or a metric of `summary.json`.

    The functions below make one of each kind; a number that does not say how it spreads and on
    which scale it is shown cannot be made.
    """

    name: str
    definition: str
    """With its convention: a mean or a sum, over what, at which step."""
    kind: Kind = "float"
    """Any may be empty: not measured here, or not defined."""
    role: Role = "value"
    """`key`: tells rows apart; `label`: says more of the row. A table cannot lack either."""
    unit: str = ""
    """Empty: a pure number, or one in units of the user's own data."""
    spread: Spread | None = None
    """How values over seeds become one. `geometric`: they are products of one random factor a
    layer, so that their logarithms average. None of keys, labels and texts."""
    scale: Scale | None = None
    """Of an axis and of colours. `linear` and `log` always are that, `share` is linear from 0 to
    1, `by_range` is logarithmic where values are above 0 and span much. `factor` is logarithmic
    about 1, at which nothing changes; `product` is that of many factors, and spans more."""
    axis: str = ""
    """What an axis calls it; empty: the name says enough."""
    asked_by: str = ""
    """The key of the configuration that says whether, and how often, it is measured."""
    scales_with: Scaling | None = None
    """What the probe must divide out of a column that it measures: the scale of the `gradient`, or
    that of dL/dz (`delta`). None of what the probe does not measure."""
    of_block: OfBlock = "largest"
    """What a block has whose weights each have a value: the norm over all, or the largest."""
    varies_by_batch: bool = False
    """Whether one value a batch scatters, so that a running mean says more."""
    null_is_infinite: bool = False
    """Whether a run that diverged lacks it only because it is not finite."""
    silent_at_zero: bool = False
    """Whether 0 is the usual value, which `vgexp show` leaves out."""
    reading: Reading | None = None
    """Of a summary metric: how it is read off a table; None where more has to be computed."""
    measure: Measure | None = None
    """Of a column: how the probe computes it; None where it is computed together with others."""
    since: str = FIRST_VERSION
    """The version of vgexp that was the first to record it."""

    def __post_init__(self) -> None:
        is_number = self.role == "value" and self.kind != "text"
        assert is_number == (self.spread is not None) == (self.scale is not None), self.name

    @property
    def meaning(self) -> str:
        """The definition, with the unit and the key that asks for it, where there are any."""
        unit = f" [{self.unit}]" if self.unit else ""
        return f"{self.definition}{unit}{f' ({self.asked_by})' if self.asked_by else ''}"

    @property
    def label(self) -> str:
        """What an axis calls it."""
        return self.axis or self.name

    @property
    def is_geometric(self) -> bool:
        """Whether values over seeds are averaged as logarithms."""
        return self.spread == "geometric"

    @property
    def is_predicted(self) -> bool:
        """Whether it is theory's, and not measured."""
        return self.name.startswith(PREDICTION)

    def is_logarithmic(self, lowest: float, highest: float) -> bool:
        """Whether a scale over values from the lowest to the highest is logarithmic."""
        if self.scale == "by_range":
            return lowest > 0 and highest / _WIDE > lowest
        return self.scale in ("log", "factor", "product")

    def like(self, name: str, definition: str) -> Quantity:
        """Another quantity that is this one in all but name and definition."""
        return replace(self, name=name, definition=definition)


def predicted(measured: Quantity, definition: str) -> Quantity:
    """The prediction of a measured quantity, which the probe does not measure."""
    alike = measured.like(f"{PREDICTION}{measured.name}", definition)
    return replace(alike, asked_by="", scales_with=None)


def key(name: str, definition: str, kind: Kind = "int") -> Quantity:
    """A column that tells rows apart, together with the table's other keys."""
    return Quantity(name, definition, kind, "key")


def label(name: str, definition: str, kind: Kind = "text") -> Quantity:
    """A column that says more about a row and has no value of its own to compare."""
    return Quantity(name, definition, kind, "label")


def text(name: str, definition: str, **more: Any) -> Quantity:
    """A word or a sentence."""
    return Quantity(name, definition, "text", **more)


def count(name: str, definition: str, **more: Any) -> Quantity:
    """A whole number."""
    return Quantity(name, definition, "int", **({"scale": "by_range"} | more), spread="arithmetic")


def amount(name: str, definition: str, **more: Any) -> Quantity:
    """A number whose values over seeds have a mean and a standard deviation."""
    return Quantity(name, definition, **({"scale": "by_range"} | more), spread="arithmetic")


def share(name: str, definition: str, **more: Any) -> Quantity:
    """A number from 0 to 1."""
    return amount(name, definition, scale="share", **more)


def magnitude(name: str, definition: str, **more: Any) -> Quantity:
    """A size that spreads log-normally over seeds."""
    return Quantity(name, definition, **({"scale": "log"} | more), spread="geometric")


def factor(name: str, definition: str, **more: Any) -> Quantity:
    """The factor by which one layer, or one step in time, multiplies; at 1 nothing changes."""
    return magnitude(name, definition, scale="factor", **more)


def product(name: str, definition: str, **more: Any) -> Quantity:
    """The product of many such factors."""
    return magnitude(name, definition, scale="product", **more)
