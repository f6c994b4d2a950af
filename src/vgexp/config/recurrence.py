"""`model`: the recurrent families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

from vgexp.config.model import ModelConfig
from vgexp.config.ranges import at_least, finite, within


@dataclass
class RecurrentConfig(ModelConfig):
    """What every recurrent family extends."""

    reads: ClassVar[tuple[str, ...]] = ("sequence", "tokens")
    depth: int = 1
    """Stacked layers L, each of which reads the sequence of states below; the read-out is one
    more."""
    width: int = 64
    """Hidden units of each layer."""
    init: str = "xavier_uniform"
    """Name of the initialisation of input weights, each gate's a matrix of its own, and of the
    read-out; `vgexp list inits`, all but lsuv."""
    recurrent_init: str = "orthogonal"
    """Name of the recurrent weights' initialisation, each gate's a matrix of its own: `identity` or
    one of `vgexp list inits`, all but lsuv."""
    spectral_radius: Optional[float] = None
    """Largest |eigenvalue| that each drawn recurrent matrix is rescaled to; null: as drawn."""
    gain: float = 1.0
    """Multiplies the standard deviation of both initialisations, and the identity."""
    bias: bool = True
    """Whether layers have biases."""
    bias_std: float = 0.0
    """Standard deviation of the biases at the start; 0: none is drawn."""
    norm: str = "none"
    """Normalisation within the cell, over units at each step: `none`, `layer` or `rms`."""
    skip: str = "none"
    """`none`, or `residual`: a layer but the first hands up its states plus what it has read."""
    dropout: float = 0.0
    """Probability with which each number handed from a layer to the next is set to 0 in training,
    the others divided by 1 - dropout."""
    truncation: Optional[int] = None
    """Steps after each of which gradients do not flow back: the state goes on as a constant after
    every so many steps; null: through the whole sequence."""

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
    """Slope below zero of leaky_relu, and where prelu's starts; null: 0.01 and 0.25."""

    def __post_init__(self) -> None:
        super().__post_init__()
        finite("model.negative_slope", self.negative_slope)


@dataclass
class LstmConfig(RecurrentConfig, choice="lstm"):
    """Long short-term memory: a cell state that gates write, keep and read (Hochreiter 1997)."""

    forget_bias: float = 1.0
    """Bias of the forget gate at the start (Gers 2000, Jozefowicz 2015): with 1 a cell keeps 0.73
    of itself a step, with 0 a half, which vanishes in ten."""

    def __post_init__(self) -> None:
        super().__post_init__()
        finite("model.forget_bias", self.forget_bias)


@dataclass
class GruConfig(RecurrentConfig, choice="gru"):
    """Gated recurrent units: a state between its last value and a new one (Cho 2014)."""
