"""Parts of convolutional nets: the plan of a convolution, its modules, and which norms fit.

Axes: B examples, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp.config import ConvConfig, choice
from vgexp.errors import QuestionError
from vgexp.norms import NORMS
from vgexp.seeds import allocate
from vgexp.skips import SKIPS, ConvGate
from vgexp.tasks import Task

GATE_KERNEL = 3
"""As large as the branch's: a convolutional highway's gate sees what its branch sees (Srivastava
2015, section 2.1)."""


@dataclass(frozen=True)
class Joint:
    """The place where a branch joins its path: the shapes of the path before and after."""

    in_channels: int
    out_channels: int
    stride: int
    num_layers: int
    """Number of convolutions on the branch."""

    @property
    def changes_shape(self) -> bool:
        """Whether the path cannot be added as it is."""
        return self.in_channels != self.out_channels or self.stride != 1


@dataclass(frozen=True)
class ConvPlan:
    """One convolution of a plan."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    ends: Joint | None = None
    """The joint whose branch it ends; nets without an adding skip ignore it."""


class Pad(nn.Module):
    """Changes the shape of a path without parameters (He 2015, option A).

    Every `stride`-th row and column, and channels of zeros behind those there are.
    """

    def __init__(self, joint: Joint) -> None:
        super().__init__()
        self.stride = joint.stride
        self.num_zeros = joint.out_channels - joint.in_channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns [B, C + zeros, H / stride, W / stride], with sizes rounded up."""
        if self.stride > 1:
            x_BCHW = x_BCHW[:, :, :: self.stride, :: self.stride]
        return F.pad(x_BCHW, (0, 0, 0, 0, 0, self.num_zeros)) if self.num_zeros else x_BCHW


class Shift(nn.Module):
    """Adds one trained number, which starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Returns a tensor of x's shape."""
        return x + self.bias


class Multiplier(nn.Module):
    """Multiplies by one trained number, which starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Returns a tensor of x's shape."""
        return x * self.scale


def conv(place: ConvPlan, bias: bool) -> nn.Conv2d:
    """Makes a convolution without drawing random numbers: weights are not set, biases are 0.

    Zeros around the image, so that it keeps its size, or is divided by the stride, rounded up.
    """
    on_meta = nn.Conv2d(
        place.in_channels,
        place.out_channels,
        place.kernel,
        place.stride,
        place.kernel // 2,
        bias=bias,
        device="meta",
    )
    made = allocate(on_meta)
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made


def gate(joint: Joint) -> ConvGate:
    padding = GATE_KERNEL // 2
    return ConvGate(
        joint.in_channels, joint.out_channels, GATE_KERNEL, joint.stride, padding, device="meta"
    )


def require_adding(config: ConvConfig) -> None:
    """Requires a skip that adds its branch to a path, or none.

    Raises:
        QuestionError: the skip concatenates.
    """
    if SKIPS[config.skip].concatenates:
        raise QuestionError(
            f"model.skip is {config.skip!r} on model={choice('model', config)}\n"
            "allowed: a skip that adds, none, or model=densenet, which concatenates"
        )


def require_positions(
    config: ConvConfig, task: Task, channels: Sequence[int], num_halvings: int
) -> None:
    """Requires that a norm of single channels does not turn them into constants.

    Args:
        channels: numbers of them that are normed where images are smallest, in forward order.

    Raises:
        QuestionError: such a norm has images of one position, or is what the mean is taken of.
    """
    height, width = (-(-size // 2**num_halvings) for size in task.shape[1:])
    alone = [NORMS[config.norm].is_per_channel(num, config) for num in channels]
    is_last = config.norm_position == "post" and not SKIPS[config.skip].adds
    if any(alone) and height * width == 1:
        raise QuestionError(
            f"model.norm is {config.norm!r} and the last images are of 1 x 1\n"
            "reason: a channel has one value there, and normalising it alone gives 0\n"
            f"allowed: larger images than {task.in_words}, fewer halvings, or another norm\n"
            "nearest: layer"
        )
    if alone[-1] and is_last:
        raise QuestionError(
            f"model.norm is {config.norm!r} and model.norm_position is 'post'\n"
            "reason: the read-out's mean over positions is of a channel normalised over these, and"
            " is the same for every image\n"
            "allowed: model.norm_position=pre, or another norm\nnearest: layer"
        )
