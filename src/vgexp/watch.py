"""What a probe watches: a weight, and the modules at which its layer's z, u and h pass by."""

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
    """Whether `derivative` may be asked for several tensors in one stack (it is elementwise)."""


@dataclass(frozen=True)
class Watch:
    """One row of `layers.csv` and where to measure it."""

    name: str
    """The parameter's name in the model; of a `stream`, the block's."""
    weight: nn.Parameter | None
    """None for a `stream`, and for a read-out that uses another row's weight: the columns of z
    only."""
    layer: int
    """Main-path number from 1; modules side by side share it, the main path's first."""
    kind: str
    """`linear`, `conv`, `recurrent`, `attention` or `readout`; `stream`: a block's output, where no
    weight's z is that. It is the main path's."""
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


class Meter(Protocol):
    """Measures a narrow table of a model of ours, at the steps at which z and h are measured.

    The probe calls, for one optimizer step: `arm` before its forward passes, `take` before the
    update, and later, when somebody asks for rows, what `take` has returned. A meter, like the
    probe, draws no random number, writes to no tensor, and waits for no device before rows are
    asked for.
    """

    @property
    def table(self) -> str:
        """The table's name in `quantities.TABLES`."""
        ...

    def arm(self) -> None:
        """Gets ready to see forward passes; again is harmless."""
        ...

    def disarm(self) -> None:
        """Sees nothing any more and forgets what it saw; again is harmless."""
        ...

    def take(
        self, step: int, num_examples: int, loss_scale: Tensor | float
    ) -> Callable[[], Rows] | None:
        """Ends the step: a function that makes its rows; None where nothing was seen.

        Args:
            num_examples: N of the update: dL/dz times N is the derivative of the summed loss.
            loss_scale: what dL/dz is too large by.
        """
        ...
