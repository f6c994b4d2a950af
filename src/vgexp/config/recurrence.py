"""`model`: the recurrent families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

from vgexp.config.model import ModelConfig
from vgexp.config.ranges import at_least, finite, within


@dataclass
class RecurrentConfig(ModelConfig):
    """The base of every recurrent family."""

    reads: ClassVar[tuple[str, ...]] = ("sequence", "tokens")
    depth: int = 1
    """Number of stacked layers L; each reads the states of the layer below, and the read-out is one
    layer more."""
    width: int = 64
    """Number of hidden units of each layer."""
    init: str = "xavier_uniform"
    """Name of the initialisation of the read-out and of the input weights, where each gate has a
    matrix of its own: one of `vgexp list inits` but lsuv."""
    recurrent_init: str = "orthogonal"
    """Name of the initialisation of the recurrent weights, where each gate has a matrix of its own:
    `identity`, or one of `vgexp list inits` but lsuv."""
    spectral_radius: Optional[float] = None
    """Largest |eigenvalue| to which each recurrent matrix is rescaled; null: it stays as drawn."""
    gain: float = 1.0
    """Factor on the standard deviation of both initialisations, and on the identity."""
    bias: bool = True
    """Whether layers have biases."""
    bias_std: float = 0.0
    """Standard deviation of the biases at the start; 0: no bias is drawn."""
    norm: str = "none"
    """Normalisation within the cell, over its units at each step: `none`, `layer` or `rms`."""
    skip: str = "none"
    """`none`, or `residual`: each layer but the first hands up its states plus what it has read."""
    dropout: float = 0.0
    """Probability with which each number handed from a layer to the next is set to 0 in training,
    the others divided by 1 - dropout."""
    truncation: Optional[int] = None
    """Number of steps through which gradients flow back: after every so many steps the state is
    passed on as a constant; null: through the whole sequence."""

    def __post_init__(self) -> None:
        at_least("model.depth", self.depth, 1)
        at_least("model.width", self.width, 1)
        at_least("model.spectral_radius", self.spectral_radius, 0.0)
        at_least("model.gain", self.gain, 0.0)
        at_least("model.bias_std", self.bias_std, 0.0)
        within("model.dropout", self.dropout, 0.0, 1.0)
        at_least("model.truncation", self.truncation, 1)


@dataclass
class RnnConfig(RecurrentConfig, choice="rnn"):
    """A plain recurrent network: h_t = phi(W_ih x_t + W_hh h_{t-1} + b) (Elman 1990)."""

    activation: str = "tanh"
    """Name of the activation phi; `vgexp list activations`, or your own."""
    negative_slope: Optional[float] = None
    """Slope of leaky_relu below zero, and the slope that prelu starts with; null: 0.01 and 0.25."""

    def __post_init__(self) -> None:
        super().__post_init__()
        finite("model.negative_slope", self.negative_slope)


@dataclass
class LstmConfig(RecurrentConfig, choice="lstm"):
    """Long short-term memory: gates write, keep and read a cell state (Hochreiter 1997)."""

    forget_bias: float = 1.0
    """Bias of the forget gate at the start (Gers 2000, Jozefowicz 2015): with 1 a cell keeps 0.73
    of its state at each step; with 0 it keeps half, of which ten steps leave a thousandth."""

    def __post_init__(self) -> None:
        super().__post_init__()
        finite("model.forget_bias", self.forget_bias)


@dataclass
class GruConfig(RecurrentConfig, choice="gru"):
    """Gated recurrent units: a gate mixes the last state with a new one (Cho 2014)."""
