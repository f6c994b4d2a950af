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
    """What every convolutional family extends.

    Position axes of an image are normalised with its channels; `dropout` sets single entries of h
    to 0.
    """

    reads: ClassVar[tuple[str, ...]] = ("image",)
    width: int = 16
    """Channels of the first stage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("model.depth", self.depth, 1, MOST_LAYERS + 1)
        within("model.width", self.width, 1, MOST_CHANNELS + 1)


@dataclass
class CnnConfig(ConvConfig, choice="cnn"):
    """The perceptron's equations with 3x3 convolutions, a pooling over positions, a read-out."""

    stages: int = 3
    """Parts of equal depth; before each but the first, channels double and the image halves."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("model.stages", self.stages, 1, MOST_STAGES + 1)


@dataclass
class ResnetConfig(ConvConfig, choice="resnet"):
    """A residual network as for CIFAR (He 2015, 2016): three stages of blocks, and a read-out."""

    depth: int = 20
    """Weight layers, the read-out counted: 6n+2, with bottleneck 9n+2, n blocks a stage."""
    bias: bool = False
    """Whether convolutions have biases; the read-out has one always."""
    norm: str = "batch"
    """Name of the normalisation; `vgexp list norms`."""
    norm_position: str = "pre"
    """`pre`: each norm after its convolution; `post`: a branch's last norm after the sum."""
    skip: str = "residual"
    """How a block's branch joins its path; none: the plain net; `vgexp list skips`."""
    bottleneck: bool = False
    """Whether a block is 1x1, 3x3, 1x1 to four times the channels, instead of two 3x3."""
    preactivation: bool = False
    """Whether norm and phi stand before each convolution, and the path is left as it is."""
    shortcut: str = "pad"
    """Of a path whose shape changes: `pad` (option A: zero channels), `projection` (B: 1x1)."""

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
        """Convolutions on the branch of one block."""
        return 3 if self.bottleneck else 2

    @property
    def blocks_per_stage(self) -> int:
        """n of 6n+2 or 9n+2."""
        return (self.depth - 2) // (RESNET_STAGES * self.block_layers)


@dataclass
class DensenetConfig(ConvConfig, choice="densenet"):
    """A densely connected network as for CIFAR (Huang 2017): three dense blocks, a read-out."""

    depth: int = 40
    """Weight layers, the read-out counted: 3n+4, with bottleneck 6n+4, n layers a block."""
    width: int = 16
    """Channels of the first convolution; the paper's -BC nets have 2 growth_rate."""
    bias: bool = False
    """Whether convolutions have biases; the read-out has one always."""
    norm: str = "batch"
    """Name of the normalisation; `vgexp list norms`."""
    norm_position: str = "pre"
    """Before each convolution: `pre`: phi(norm(.)), `post`: norm(phi(.))."""
    skip: str = "dense"
    """`dense`: it is what the family is."""
    growth_rate: int = 12
    """Channels k that each layer adds to those that the following ones read."""
    bottleneck: bool = False
    """Whether a 1x1 convolution to 4 growth_rate channels precedes each 3x3 (DenseNet-B)."""
    compression: float = 1.0
    """Share of the channels that a transition between blocks keeps (DenseNet-C: 0.5)."""

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
        """Layers of a dense block, each of one or, with bottleneck, two convolutions."""
        return (self.depth - 4) // self._period


def _require_form(key: str, value: int, factor: int, rest: int, form: str) -> None:
    """Requires factor n + rest with n of at least 1."""
    at_least(key, value, 1)
    if value < factor + rest or (value - rest) % factor:
        n = max(1, (value - rest) // factor)
        nearest = [factor * m + rest for m in (n, n + 1)]
        raise QuestionError(
            f"{key} is {value}\nallowed: {form}, n at least 1\nnearest: {_listed(nearest)}"
        )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
