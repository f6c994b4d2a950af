"""What a probe watches: a weight, and the modules at which its layer's z, u and h pass by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Slope:
    """The derivative phi' of an activation at its own input u.

    Layers that share one Slope object are measured together, so an activation without parameters
    should use one object throughout a model.
    """

    derivative: Callable[[Tensor], Tensor]
    """phi'(u), of u's shape."""
    peak: float | None = None
    """Largest |phi'| where the activation is bounded (`saturated_fraction` is defined)."""
    from_output: Callable[[Tensor], Tensor] | None = None
    """phi' as a function of y = phi(u), where that is cheaper, as in PyTorch's own backward."""
    stackable: bool = True
    """Whether `derivative` may be asked for several tensors in one stack (it is elementwise)."""


@dataclass(frozen=True)
class Watch:
    """One row of `layers.csv` and where to measure it."""

    name: str
    """The parameter's name in the model."""
    weight: nn.Parameter
    layer: int
    """Main-path number from 1; modules side by side share it, the main path's first."""
    kind: str
    """`linear`, `conv`, `recurrent`, `attention` or `readout`."""
    preact: nn.Module | None = None
    """Its output is z."""
    reads_z: bool = False
    """Whether `activation` reads z itself, so that one call shows both."""
    activation: nn.Module | None = None
    """Its input is u."""
    act: nn.Module | None = None
    """Its output is h."""
    slope: Slope | None = None
    """phi' of `activation`."""
