"""Says which steps a probe measures, and which columns of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vgexp.errors import impossible


class Due(NamedTuple):
    """What is measured in a step. One is made every step, for which a dataclass is too slow."""

    weights: bool
    """The columns of weights and gradients."""
    activations: bool
    """The other columns of `layers.csv`, and the tables of meters."""
    histograms: bool

    @property
    def passes(self) -> bool:
        """Whether anything of the forward and backward passes is measured."""
        return self.activations or self.histograms


@dataclass(frozen=True)
class Cadence:
    """The steps between measurements of each kind. At step 0, all are measured."""

    every: int
    activations_every: int
    histograms_every: int
    """0: never."""
    sees_passes: bool = True
    """Whether forward and backward passes can be measured. If not, nothing of them is due."""

    def __post_init__(self) -> None:
        for key, least in (("every", 1), ("activations_every", 1), ("histograms_every", 0)):
            value = getattr(self, key)
            if not isinstance(value, int) or value < least:
                raise impossible(key, value, f"an integer of at least {least}")

    def due(self, step: int, *, wanted: bool = False) -> Due:
        """What is due at a step; at a wanted one, all that is ever measured."""
        return Due(
            wanted or step % self.every == 0,
            self.sees_passes and (wanted or step % self.activations_every == 0),
            self.sees_passes
            and self.histograms_every > 0
            and (wanted or step % self.histograms_every == 0),
        )
