"""Says what a probe measures: a weight, and the modules whose calls show its layer's z, u and h."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from vgexp.records import Rows

SATURATED_SHARE = 0.05
"""A bounded activation is saturated where |phi'| is below this share of its largest value."""


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
    """Whether `derivative` is elementwise, so that it can take a stack of several tensors."""


@dataclass(frozen=True)
class Watch:
    """One row of `layers.csv` and where to measure it."""

    name: str
    """The parameter's name in the model; for a `stream`, the block's."""
    weight: nn.Parameter | None
    """None for a `stream`, and for a read-out that uses another row's weight. Such a row has the
    columns of z only."""
    layer: int
    """Number on the main path, from 1. Modules side by side share it, the main path's first."""
    kind: str
    """`linear`, `conv`, `recurrent`, `attention` or `readout`; or `stream`, a block's output that
    is no weight's z. It lies on the main path."""
    preact: nn.Module | None = None
    """The module whose output is z."""
    reads_z: bool = False
    """Whether `activation` reads z itself, so that one call shows both."""
    activation: nn.Module | None = None
    """The module whose input is u."""
    act: nn.Module | None = None
    """The module whose output is h."""
    slope: Slope | None = None
    """phi' of `activation`."""


class Meter(Protocol):
    """Measures a narrow table of one of vgexp's models, at the steps where z and h are measured.

    For each optimizer step the probe calls `arm` before the forward passes and `take` before the
    update. Later, when rows are needed, it calls the function that `take` returned. A meter, like
    the probe, draws no random number and writes to no tensor, and it waits for the device only when
    rows are needed.
    """

    @property
    def table(self) -> str:
        """The name of the table in `quantities.TABLES`."""
        ...

    def arm(self) -> None:
        """Prepares to see forward passes. It may be called twice."""
        ...

    def disarm(self) -> None:
        """Stops seeing forward passes and forgets them. It may be called twice."""
        ...

    def take(
        self, step: int, num_examples: float, loss_scale: Tensor | float
    ) -> Callable[[], Rows] | None:
        """Ends the step. Returns a function that makes its rows; None where nothing was seen.

        Args:
            num_examples: N of the update: dL/dz times N is the derivative of the summed loss.
            loss_scale: the factor by which dL/dz is too large.
        """
        ...
