"""Which steps a probe measures, and what of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vgexp.errors import impossible


class Due(NamedTuple):
    """What is measured of a step. Made at every step, for which a dataclass is slow."""

    weights: bool
    """The columns of weights and gradients."""
    activations: bool
    """The other columns of `layers.csv`, and the tables of meters."""
    histograms: bool

    @property
    def passes(self) -> bool:
        """Whether anything is measured of its forward and backward passes."""
        return self.activations or self.histograms


@dataclass(frozen=True)
class Cadence:
    """Steps between measurements of each kind; step 0 has all."""

    every: int
    activations_every: int
    histograms_every: int
    """0: there are none."""
    sees_passes: bool = True
    """Whether forward and backward passes can be measured; if not, nothing of them is ever due."""

    def __post_init__(self) -> None:
        for key, least in (("every", 1), ("activations_every", 1), ("histograms_every", 0)):
            value = getattr(self, key)
            if not isinstance(value, int) or value < least:
                raise impossible(key, value, f"an integer of at least {least}")

    def due(self, step: int, *, wanted: bool = False) -> Due:
        """What is due at a step; of one that is wanted, all that is ever measured."""
        return Due(
            wanted or step % self.every == 0,
            self.sees_passes and (wanted or step % self.activations_every == 0),
            self.sees_passes
            and self.histograms_every > 0
            and (wanted or step % self.histograms_every == 0),
        )
