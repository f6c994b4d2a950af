"""`model`: one dataclass a family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from vgexp.config.ranges import at_least, finite, one_of

NORM_POSITIONS = ("pre", "post")


@dataclass
class ModelConfig:
    """What every choice of `model` extends."""


@dataclass
class MlpConfig(ModelConfig):
    """A perceptron of equal hidden layers and one read-out."""

    depth: int = 10
    """Hidden weight layers L; the read-out is one more."""
    width: int = 64
    """Units in each hidden layer."""
    activation: str = "relu"
    """Name of the activation phi; `vgexp list activations`."""
    negative_slope: Optional[float] = None
    """Slope below zero of leaky_relu, and where prelu's starts; null: 0.01 and 0.25."""
    init: str = "he_normal"
    """Name of the weight initialisation; `vgexp list inits`."""
    gain: float = 1.0
    """Multiplies the initialisation's standard deviation."""
    bias: bool = True
    """Whether layers have biases."""
    bias_std: float = 0.0
    """Standard deviation of the biases at the start; 0: all zero."""
    norm: str = "none"
    """Name of the normalisation; `vgexp list norms`."""
    norm_position: str = "pre"
    """`pre`: phi(norm(z)); `post`: norm(phi(z)), with an adding skip norm(z + branch)."""
    norm_groups: int = 8
    """Groups of group norm; must divide the width."""
    skip: str = "none"
    """Name of the skip connection; `vgexp list skips`."""

    def __post_init__(self) -> None:
        at_least("model.depth", self.depth, 1)
        at_least("model.width", self.width, 1)
        at_least("model.gain", self.gain, 0.0)
        at_least("model.bias_std", self.bias_std, 0.0)
        at_least("model.norm_groups", self.norm_groups, 1)
        finite("model.negative_slope", self.negative_slope)
        one_of("model.norm_position", self.norm_position, NORM_POSITIONS)
