"""Draws of a recurrent network's parameters: each gate's block is a matrix of its own.

Axes: H units, K numbers that a block reads, G numbers of all blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn

from vgexp.config import RecurrentConfig
from vgexp.errors import impossible
from vgexp.inits import INITS, Draw, Init
from vgexp.registry import Registry


def _identity(weight: Tensor, gain: float, _generator: Generator) -> None:
    nn.init.eye_(weight).mul_(gain)


_FITTED = [name for name in INITS if INITS[name].fit is not None]

RECURRENT_INITS: Registry[Init] = Registry(
    "recurrent_init",
    {
        "identity": Init("gain times the identity, for each gate (Le 2015)", _identity),
        **{name: INITS[name] for name in INITS if name not in _FITTED},
    },
)
"""Name -> initialisation of a recurrent weight."""


def require(config: RecurrentConfig) -> None:
    """Requires initialisations that a recurrent network can use.

    Raises:
        QuestionError: one does not exist, or is fitted to outputs that gates' weights have not.
    """
    if config.init in _FITTED:
        allowed = ", ".join(name for name in INITS if name not in _FITTED)
        raise impossible("model.init", config.init, f"of a recurrent network {allowed}")
    INITS[config.init]
    RECURRENT_INITS[config.recurrent_init]


def draws(
    config: RecurrentConfig, gates: tuple[str, ...], bias_starts: Mapping[str, float]
) -> Mapping[str, Draw]:
    """Maps the name of each parameter of a cell to how it is drawn.

    A gate's block has the fans of a matrix of its own, and is orthogonal (or the identity) by
    itself. The biases of inputs and of states add: what a gate starts with stands in those of the
    inputs alone, and so does `bias_std`. `torch_default` is that of torch's recurrent modules:
    U[-1/sqrt(H), 1/sqrt(H)], of weights times the gain.
    """
    blocks, width = len(gates), config.width
    is_torchs = INITS[config.init].draws_biases
    inputs = _uniform(width) if is_torchs else INITS[config.init].draw
    plain = _uniform(width, scaled=False) if is_torchs else _zeros
    starts = {gates.index(gate): start for gate, start in bias_starts.items()}
    return {
        "weight_ih_l0": _each(blocks, inputs),
        "weight_hh_l0": _each(blocks, _rescaled(config)),
        "bias_ih_l0": _with_starts(blocks, plain, starts, config.bias_std),
        "bias_hh_l0": _with_starts(blocks, plain, dict.fromkeys(starts, 0.0), 0.0),
    }


def _each(blocks: int, draw: Draw) -> Draw:
    """Makes a draw of each gate's block by itself."""

    def each(weight: Tensor, gain: float, generator: Generator) -> None:
        for block in weight.chunk(blocks):
            draw(block, gain, generator)

    return each


def _rescaled(config: RecurrentConfig) -> Draw:
    """Makes a draw that is rescaled to the given spectral radius; a matrix of radius 0 stays."""
    draw, radius = RECURRENT_INITS[config.recurrent_init].draw, config.spectral_radius

    def rescaled(weight_HH: Tensor, gain: float, generator: Generator) -> None:
        draw(weight_HH, gain, generator)
        if radius is not None:
            drawn = float(spectral_radii(weight_HH[None])[0])
            weight_HH.mul_(radius / drawn if drawn > 0 else 1.0)

    return rescaled


def spectral_radii(weight_GHH: Tensor) -> Tensor:
    """Returns [G], the largest |eigenvalue| of each matrix; nan where an entry is not finite."""
    is_finite_G = weight_GHH.isfinite().all(-1).all(-1)
    known_GHH = torch.where(is_finite_G[:, None, None], weight_GHH, 0.0)
    radius_G = torch.linalg.eigvals(known_GHH).abs().amax(-1)
    return torch.where(is_finite_G, radius_G, torch.nan)


def _uniform(width: int, *, scaled: bool = True) -> Draw:
    """U[-1/sqrt(H), 1/sqrt(H)], times the gain where it is `scaled`."""

    def draw(parameter: Tensor, gain: float, generator: Generator) -> None:
        bound = (gain if scaled else 1.0) / math.sqrt(width)
        nn.init.uniform_(parameter, -bound, bound, generator=generator)

    return draw


def _zeros(parameter: Tensor, _gain: float, _generator: Generator) -> None:
    parameter.zero_()


def _with_starts(blocks: int, draw: Draw, starts: Mapping[int, float], std: float) -> Draw:
    """Makes the draw of a bias: some blocks start at given numbers, all get noise N(0, std^2)."""

    def with_starts(bias: Tensor, gain: float, generator: Generator) -> None:
        draw(bias, gain, generator)
        for index, start in starts.items():
            bias.chunk(blocks)[index].fill_(start)
        if std > 0:
            bias.add_(torch.empty_like(bias).normal_(0.0, std, generator=generator))

    return with_starts
