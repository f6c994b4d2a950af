"""`model`: the families of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vgexp.config.model import NetConfig
from vgexp.config.ranges import at_least, divisors, one_of
from vgexp.errors import QuestionError

POSITIONS = ("learned", "rotary", "sinusoidal", "none")
POOLS = ("class", "mean")


@dataclass
class AttentionConfig(NetConfig):
    """The base of every family of attention."""

    depth: int = 4
    """Number of blocks L; each has attention and a perceptron of two weights."""
    width: int = 64
    """Number of units of the stream that blocks read and add to."""
    activation: str = "gelu"
    """Name of the activation phi in each block's perceptron; `vgexp list activations`, or your
    own."""
    init: str = "xavier_normal"
    """Name of the weight initialisation; `vgexp list inits`, or your own."""
    norm: str = "layer"
    """`layer`, `rms` or `none`."""
    norm_position: str = "pre"
    """`pre`: x + f(norm(x)), and a norm before the read-out; `post`: norm(x + f(x))."""
    skip: str = "residual"
    """`residual`, `scaled_residual` (1/sqrt(2 L)), `rezero` or `none`, around both halves of a
    block."""
    dropout: float = 0.0
    """Probability with which each number that a branch adds to the stream, and each of the
    embedded input, is set to 0 in training, the others divided by 1 - dropout."""
    heads: int = 4
    """Number of attention heads; it must divide the width."""
    mlp_ratio: int = 4
    """Number of hidden units of each block's perceptron, divided by the width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model.heads", self.heads, 1)
        at_least("model.mlp_ratio", self.mlp_ratio, 1)
        if self.width % self.heads:
            raise _indivisible(self.heads, self.width)


@dataclass
class TransformerConfig(AttentionConfig, choice="transformer"):
    """A causal transformer: each position attends to itself and those before it."""

    reads: ClassVar[tuple[str, ...]] = ("tokens", "sequence")
    positions: str = "learned"
    """How the model tells positions apart: `learned` and `sinusoidal` are added to the embedded
    input, `rotary` turns queries and keys, `none` does not tell them."""
    tied: bool = False
    """Whether the read-out uses the weight of the token embedding; it then has no bias."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("model.positions", self.positions, POSITIONS)
        if self.positions == "rotary" and (self.width // self.heads) % 2:
            raise QuestionError(
                f"model.positions is 'rotary', and a head has {self.width // self.heads} units"
                f" (model.width={self.width} over model.heads={self.heads})\n"
                "reason: it turns units in pairs\n"
                f"allowed: an even number of units a head, or {', '.join(_without_rotary())}"
            )


@dataclass
class VitConfig(AttentionConfig, choice="vit"):
    """A vision transformer: patches of an image attend to each other."""

    reads: ClassVar[tuple[str, ...]] = ("image",)
    patch: int = 4
    """Number of pixels along each side of a patch; it must divide the sides of the image."""
    pool: str = "class"
    """What the read-out reads: `class`, a token of its own, or `mean`, the mean of all patches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model.patch", self.patch, 1)
        one_of("model.pool", self.pool, POOLS)


def _indivisible(heads: int, width: int) -> QuestionError:
    allowed = divisors(width, width)
    nearest = min(allowed, key=lambda count: (abs(count - heads), count))
    more = ", ..." if allowed[-1] < width else ""
    return QuestionError(
        f"model.heads is {heads} and model.width is {width}\n"
        f"allowed: divisors of the width: {', '.join(map(str, allowed))}{more}\n"
        f"nearest: {nearest}"
    )


def _without_rotary() -> list[str]:
    return [f"model.positions={name}" for name in POSITIONS if name != "rotary"]
