"""`model`: the convolutional families."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from vgexp.config.model import NetConfig
from vgexp.config.ranges import above, at_least, one_of, within
from vgexp.errors import QuestionError

MOST_LAYERS = 10_000
MOST_CHANNELS = 2**16
MOST_STAGES = 8
SHORTCUTS = ("pad", "projection")
RESNET_STAGES = 3
DENSENET_BLOCKS = 3


@dataclass
class ConvConfig(NetConfig):
    """The base of every convolutional family.

    Norms take the positions of an image together with its channels; `dropout` sets single entries
    of h to 0.
    """

    reads: ClassVar[tuple[str, ...]] = ("image",)
    width: int = 16
    """Number of channels of the first stage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("model.depth", self.depth, 1, MOST_LAYERS + 1)
        within("model.width", self.width, 1, MOST_CHANNELS + 1)


@dataclass
class CnnConfig(ConvConfig, choice="cnn"):
    """The perceptron's equations with 3x3 convolutions, a mean over positions, a read-out."""

    stages: int = 3
    """Number of parts of equal depth; before each part but the first, the number of channels
    doubles and the image halves."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("model.stages", self.stages, 1, MOST_STAGES + 1)


@dataclass
class ResnetConfig(ConvConfig, choice="resnet"):
    """A residual network as for CIFAR (He 2015, 2016): three stages of blocks, and a read-out."""

    depth: int = 20
    """Number of weight layers with the read-out: 6n+2, with bottleneck 9n+2, for n blocks a
    stage."""
    bias: bool = False
    """Whether convolutions have biases; the read-out always has them."""
    norm: str = "batch"
    """Name of the normalisation; `vgexp list norms`."""
    norm_position: str = "pre"
    """`pre`: each norm follows its convolution; `post`: a branch's last norm follows the sum."""
    skip: str = "residual"
    """How a block's branch joins its path; `none`: a plain net; `vgexp list skips`."""
    bottleneck: bool = False
    """Whether a block has convolutions of 1x1, 3x3 and 1x1, the last to four times the channels,
    instead of two of 3x3."""
    preactivation: bool = False
    """Whether norm and phi come before each convolution, so that the path stays as it is."""
    shortcut: str = "pad"
    """How a path changes its shape: `pad` adds channels of zeros (option A), `projection` is a 1x1
    convolution (option B)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("model.shortcut", self.shortcut, SHORTCUTS)
        size = self.block_layers
        kind = "bottleneck" if self.bottleneck else "basic"
        form = f"{RESNET_STAGES * size}n+2 with {kind} blocks"
        _require_form("model.depth", self.depth, RESNET_STAGES * size, 2, form)
        if self.preactivation and self.norm_position == "post":
            raise QuestionError(
                "model.norm_position is 'post' and model.preactivation is true\n"
                "reason: there the norm stands before phi, and nothing after the sum\n"
                "allowed: model.norm_position=pre, or model.preactivation=false"
            )

    @property
    def block_layers(self) -> int:
        """The number of convolutions on the branch of one block."""
        return 3 if self.bottleneck else 2

    @property
    def blocks_per_stage(self) -> int:
        """The number of blocks in each stage: n of 6n+2 or 9n+2."""
        return (self.depth - 2) // (RESNET_STAGES * self.block_layers)


@dataclass
class DensenetConfig(ConvConfig, choice="densenet"):
    """A densely connected network as for CIFAR (Huang 2017): three dense blocks, a read-out."""

    depth: int = 40
    """Number of weight layers with the read-out: 3n+4, with bottleneck 6n+4, for n layers a
    block."""
    width: int = 16
    """Number of channels of the first convolution; the paper's -BC nets have 2 growth_rate."""
    bias: bool = False
    """Whether convolutions have biases; the read-out always has them."""
    norm: str = "batch"
    """Name of the normalisation; `vgexp list norms`."""
    norm_position: str = "pre"
    """What comes before each convolution: `pre`: phi(norm(.)), `post`: norm(phi(.))."""
    skip: str = "dense"
    """Always `dense`: each layer reads what all layers before it made."""
    growth_rate: int = 12
    """Number of channels k that each layer adds to what the following layers read."""
    bottleneck: bool = False
    """Whether a 1x1 convolution to 4 growth_rate channels comes before each 3x3 (DenseNet-B)."""
    compression: float = 1.0
    """Share of the channels that the transition between two blocks keeps (DenseNet-C: 0.5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("model.growth_rate", self.growth_rate, 1, MOST_CHANNELS + 1)
        above("model.compression", self.compression, 0.0)
        if self.compression > 1:
            raise QuestionError(
                f"model.compression is {self.compression}\nallowed: above 0 and at most 1"
            )
        form = f"{self._period}n+4" + (" with bottlenecks" if self.bottleneck else "")
        _require_form("model.depth", self.depth, self._period, 4, form)

    @property
    def _period(self) -> int:
        return DENSENET_BLOCKS * (2 if self.bottleneck else 1)

    @property
    def layers_per_block(self) -> int:
        """The number of layers of a dense block; each has one convolution, with bottleneck two."""
        return (self.depth - 4) // self._period


def _require_form(key: str, value: int, factor: int, rest: int, form: str) -> None:
    """Requires that the value is factor * n + rest for a whole n of at least 1."""
    at_least(key, value, 1)
    if value < factor + rest or (value - rest) % factor:
        n = max(1, (value - rest) // factor)
        nearest = [factor * m + rest for m in (n, n + 1)]
        raise QuestionError(
            f"{key} is {value}\nallowed: {form}, n at least 1\nnearest: {_listed(nearest)}"
        )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
