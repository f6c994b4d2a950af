"""What an initialisation is: a draw of each weight, and what it asks of a model and its keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Generator, Tensor, nn

from vgexp.watch import Watch


class InitConfig(Protocol):
    """The keys of a model's configuration that an initialisation reads."""

    init: str
    gain: float
    bias_std: float


Draw = Callable[[Tensor, float, Generator], None]
"""Fills a tensor in place, given the gain and a generator."""


@dataclass(frozen=True)
class Branch:
    """A residual branch, which a model adds to a path, as it is or times a constant."""

    weights: tuple[str, ...]
    """Names of its weights, in forward order."""
    scale: str | None
    """Name of the scale of the norm at its end; None: its last weight is at its end."""


class Watched(Protocol):
    """What an initialisation needs from a model: an `nn.Module` that knows its weights."""

    def watches(self) -> Sequence[Watch]: ...
    def branches(self) -> Sequence[Branch]: ...
    def special_draws(self) -> Mapping[str, Draw]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def get_submodule(self, target: str) -> nn.Module: ...
    def get_parameter(self, target: str) -> nn.Parameter: ...
    def buffers(self) -> Iterator[Tensor]: ...
    def __call__(self, x: Tensor) -> Any: ...


@dataclass(frozen=True)
class Init:
    """A named initialisation.

    `draw(weight, gain, generator)` fills a weight in place. `draws_biases`: linear biases are
    U[-1/sqrt(fan_in), 1/sqrt(fan_in)] as PyTorch's, instead of 0. `fit(model, gain, inputs)`
    adjusts the drawn weights to the model as a whole, or to a batch; of the latter it returns the
    variance that the output of each weight came to on that batch, by the weight's name.
    """

    summary: str
    draw: Draw
    draws_biases: bool = False
    fit: Callable[[Watched, float, Tensor], Mapping[str, float] | None] | None = None
    adds_scalars: bool = False
    """Whether a convolutional net with branches gets trained scalars beside its weights."""
    std: Callable[[Tensor], float] | None = None
    """Gives the rms of the entries of a weight at gain 1; None: it is not known."""
    is_isometric: bool = False
    """Whether a matrix has orthogonal rows of one length; with more rows than columns, columns."""
    scales_outputs: bool = False
    """Whether `fit` brings each weight module's output to variance gain^2, within 10 %."""
