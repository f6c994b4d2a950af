"""`model`: the keys that every family has, and the perceptron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

from vgexp.config.groups import Choice
from vgexp.config.ranges import at_least, finite, one_of, within

NORM_POSITIONS = ("pre", "post")


@dataclass
class ModelConfig(Choice, group="model"):
    """The base of every choice of `model`."""

    reads: ClassVar[tuple[str, ...]] = ()
    """Kinds of examples (`tasks.KINDS`) that the family reads; empty: every kind."""


@dataclass
class NetConfig(ModelConfig):
    """The base of the families that vgexp measures by itself, layer by layer."""

    depth: int = 10
    """Number of hidden weight layers L; the read-out is one more."""
    width: int = 64
    """Number of units in each hidden layer."""
    activation: str = "relu"
    """Name of the activation phi, `vgexp list activations`; or your own, package.module.name."""
    negative_slope: Optional[float] = None
    """Slope of leaky_relu below zero, and the slope that prelu starts with; null: 0.01 and 0.25."""
    init: str = "he_normal"
    """Name of the weight initialisation, `vgexp list inits`; or your own, package.module.name."""
    gain: float = 1.0
    """Factor on the standard deviation of the initialisation."""
    bias: bool = True
    """Whether layers have biases."""
    bias_std: float = 0.0
    """Standard deviation of the biases at the start; 0: all biases are zero."""
    norm: str = "none"
    """Name of the normalisation, `vgexp list norms`; or your own, package.module.name."""
    norm_position: str = "pre"
    """`pre`: phi(norm(z)); `post`: norm(phi(z)), with an adding skip norm(z + branch)."""
    norm_groups: int = 8
    """Number of groups of group norm; it must divide the width."""
    skip: str = "none"
    """Name of the skip connection; `vgexp list skips`."""
    dropout: float = 0.0
    """Probability with which each h is set to 0 in training, the others divided by 1 - dropout."""

    def __post_init__(self) -> None:
        at_least("model.depth", self.depth, 1)
        at_least("model.width", self.width, 1)
        at_least("model.gain", self.gain, 0.0)
        at_least("model.bias_std", self.bias_std, 0.0)
        at_least("model.norm_groups", self.norm_groups, 1)
        within("model.dropout", self.dropout, 0.0, 1.0)
        finite("model.negative_slope", self.negative_slope)
        one_of("model.norm_position", self.norm_position, NORM_POSITIONS)


@dataclass
class MlpConfig(NetConfig, choice="mlp"):
    """A perceptron of equal hidden layers and one read-out."""

    reads: ClassVar[tuple[str, ...]] = ("vector", "image", "sequence")
