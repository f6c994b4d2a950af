"""Initialisations: how a weight W of shape [fan_out, fan_in, ...] is drawn.

For a kernel, each fan is multiplied by the kernel's number of positions. Every draw is made on the
generator's device and then copied, so that one seed gives one network on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Generator, Tensor, nn

from vgexp import user_code
from vgexp.errors import QuestionError
from vgexp.metrics import row_moments
from vgexp.registry import Registry
from vgexp.watch import Watch

LSUV_TOLERANCE = 0.1
LSUV_TRIES = 10


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


@torch.no_grad()
def initialise(
    model: Watched, config: InitConfig, generator: Generator, inputs: Tensor
) -> Mapping[str, float]:
    """Draws every watched weight, then the biases beside them, from `generator` alone.

    Biases start at 0, a gate's at its own start, `torch_default`'s as PyTorch's; `bias_std` adds
    N(0, bias_std). They are drawn after all weights, whose values therefore do not depend on them.
    What the model draws in its own way, weight or not, is drawn so instead.
    `inputs` is a batch that the model accepts; only `lsuv` looks at it.

    Returns:
        The variance that the output of each weight came to on that batch, where it was fitted.
    """
    init, special = INITS[config.init], dict(model.special_draws())
    weights = {watch.name: watch.weight for watch in model.watches() if watch.weight is not None}
    largest = max((p.numel() for _, p in model.named_parameters()), default=0)
    scratch = torch.empty(largest, dtype=torch.float64, device=generator.device)
    for name, weight in weights.items():
        _fill(weight, special.pop(name, init.draw), config.gain, generator, scratch)
    for name, weight in weights.items():
        owner = model.get_submodule(name.rpartition(".")[0])
        bias = getattr(owner, "bias", None)
        if isinstance(bias, Tensor):
            _fill_bias(bias, owner, 1 / math.sqrt(_fan_in(weight)), config, generator)
    for name, parameter in model.named_parameters():
        if name in special:
            _fill(parameter, special[name], config.gain, generator, scratch)
    return (init.fit and init.fit(model, config.gain, inputs)) or {}


def _fill(
    parameter: Tensor, draw: Draw, gain: float, generator: Generator, scratch: Tensor | None = None
) -> None:
    """Draws in float64 and rounds, so that one seed gives one network in every dtype.

    `scratch` is float64, at least as large, and overwritten: memory that was used before is faster.
    """
    if scratch is None:
        scratch = torch.empty(parameter.numel(), dtype=torch.float64, device=generator.device)
    drawn = scratch[: parameter.numel()].view(parameter.shape)
    draw(drawn, gain, generator)
    parameter.copy_(drawn)


def _fill_bias(
    bias: Tensor, owner: nn.Module, bound: float, config: InitConfig, generator: Generator
) -> None:
    start = getattr(owner, "initial_bias", None)
    if start is None and INITS[config.init].draws_biases:
        _fill(bias, _between(bound), config.gain, generator)
    else:
        bias.fill_(start or 0.0)
    if config.bias_std > 0:
        noise = torch.empty(bias.shape, dtype=torch.float64, device=generator.device)
        nn.init.normal_(noise, 0.0, config.bias_std, generator=generator)
        bias.add_(noise.to(bias.device, bias.dtype))


# ---------------------------------------------------------------- draws


def _between(bound: float) -> Draw:
    """U[-bound, bound], whatever the gain."""

    def draw(bias: Tensor, _gain: float, generator: Generator) -> None:
        nn.init.uniform_(bias, -bound, bound, generator=generator)

    return draw


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()


def _mean_fan(weight: Tensor) -> float:
    """(fan_in + fan_out) / 2."""
    positions = weight[0, 0].numel()
    return (weight.shape[0] + weight.shape[1]) * positions / 2


def _normal(std: Callable[[Tensor], float]) -> Draw:
    def draw(weight: Tensor, gain: float, generator: Generator) -> None:
        nn.init.normal_(weight, 0.0, gain * std(weight), generator=generator)

    return draw


def _uniform(std: Callable[[Tensor], float]) -> Draw:
    """U[-a, a], whose standard deviation is a / sqrt(3)."""

    def draw(weight: Tensor, gain: float, generator: Generator) -> None:
        bound = math.sqrt(3) * gain * std(weight)
        nn.init.uniform_(weight, -bound, bound, generator=generator)

    return draw


def _orthogonal(weight: Tensor, gain: float, generator: Generator) -> None:
    nn.init.orthogonal_(weight, gain, generator=generator)


def _delta_orthogonal(weight: Tensor, gain: float, generator: Generator) -> None:
    """Fills a kernel's centre with an orthogonal matrix, the rest with 0 (Xiao 2018, Algorithm 2).

    With as many channels out as in, or more, its columns are orthonormal and the norm of each
    position's channels is kept (times the gain). The paper asks for that; with fewer, the rows are,
    and the norm of delta is kept on its way back. A stride passes over positions in either case.
    Of a matrix: `orthogonal`.
    """
    matrix = torch.empty(weight.shape[:2], dtype=weight.dtype, device=weight.device)
    nn.init.orthogonal_(matrix, gain, generator=generator)
    weight.zero_()
    by_position = weight.view(*matrix.shape, -1)
    by_position[:, :, by_position.shape[2] // 2] = matrix


def _orthonormal(weight: Tensor, _gain: float, generator: Generator) -> None:
    nn.init.orthogonal_(weight, generator=generator)


def _orthonormal_std(weight: Tensor) -> float:
    return 1 / math.sqrt(max(weight.shape[0], _fan_in(weight)))


def _delta_std(weight: Tensor) -> float:
    """The rms of a kernel with an orthogonal matrix at one position and zeros elsewhere."""
    return 1 / math.sqrt(max(weight.shape[:2]) * weight[0, 0].numel())


def _unit_std(_weight: Tensor) -> float:
    return 1.0


def _xavier_std(weight: Tensor) -> float:
    return 1 / math.sqrt(_mean_fan(weight))


def _he_std(weight: Tensor) -> float:
    return math.sqrt(2 / _fan_in(weight))


def _lecun_std(weight: Tensor) -> float:
    return 1 / math.sqrt(_fan_in(weight))


def _torch_std(weight: Tensor) -> float:
    """The rms of U[-1/sqrt(fan_in), 1/sqrt(fan_in)], PyTorch's kaiming_uniform_(a=sqrt(5))."""
    return 1 / math.sqrt(3 * _fan_in(weight))


# ---------------------------------------------------------------- lsuv


def _fit_variances(model: Watched, gain: float, inputs: Tensor) -> Mapping[str, float]:
    """Rescales each weight in one forward pass until its module's output has variance gain^2.

    Each module is rescaled when the pass reaches it, and hands its new output on, so that all
    layers cost one pass. Buffers (batch statistics) come out as they went in.

    Returns:
        What each weight's module came to, by the weight's name.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    found: dict[str, float] = {}

    def rescale(name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        weight = cast(Tensor, module.weight)
        for _ in range(LSUV_TRIES):
            rescaled = weight * _scale_to(output, gain)
            if torch.equal(rescaled, weight) or not bool(torch.isfinite(rescaled).all()):
                break
            weight.copy_(rescaled)
            output = module.forward(*args)
        found[name] = float(row_moments(output.reshape(1, -1))[1]) ** 2
        return output

    names = [w.name for w in model.watches() if w.weight is not None]
    handles = [
        model.get_submodule(name.rpartition(".")[0]).register_forward_hook(partial(rescale, name))
        for name in names
    ]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for buffer, before in buffers:
            buffer.copy_(before)
    return found


def _scale_to(output: Tensor, std: float) -> float:
    """Returns the factor that brings the output's deviation to `std`; 1 if it is near, 0 or not
    finite."""
    if std == 0:
        return 0.0
    measured = float(row_moments(output.reshape(1, -1))[1])
    variance, target = measured * measured, std * std
    near = abs(variance - target) < LSUV_TOLERANCE * target
    return 1.0 if near or measured == 0 or not math.isfinite(measured) else std / measured


# ---------------------------------------------------------------- residual branches


def _zero_last(model: Watched, _gain: float, _inputs: Tensor) -> None:
    """Starts each residual branch at 0, so that a block starts as its path (Goyal 2017, 5.1).

    The scale of the norm that ends it is 0; where none ends it, its last weight.
    """
    for branch in _branches(model, "zero_last"):
        model.get_parameter(branch.scale or branch.weights[-1]).zero_()


def _fix_up(model: Watched, _gain: float, _inputs: Tensor) -> None:
    """Rules 1 and 2 of Zhang 2019, which let L residual branches do without norms.

    1: the read-out and the last weight of each branch are 0. 2: the other m - 1 weights of a branch
    are times L^(-1/(2m - 2)). Rule 3, a scalar shift before each weight and phi, from 0, and a
    multiplier of each branch, from 1, is what `cnn` and `resnet` are built with (`adds_scalars`);
    the perceptron has its biases. All learn at one rate (the paper's scalars at a tenth of it).
    """
    branches = _branches(model, "fixup")
    for branch in branches:
        if branch.scale is not None:
            raise QuestionError(
                "model.init is 'fixup' and each branch ends with a norm\n"
                "reason: fixup starts the weight before it at 0, which a norm cannot scale\n"
                "allowed: model.norm=none, or model.init=zero_last"
            )
        *others, last = [model.get_parameter(name) for name in branch.weights]
        for weight in others:
            weight.mul_(len(branches) ** (-1 / (2 * len(others))))
        last.zero_()
    for watch in model.watches():
        if watch.kind == "readout" and watch.weight is not None:
            watch.weight.zero_()


def _branches(model: Watched, name: str) -> Sequence[Branch]:
    branches = model.branches()
    if not branches:
        raise QuestionError(
            f"model.init is {name!r} on a model without residual branches\n"
            "reason: it starts each branch at 0, which leaves a path beside it or nothing at all\n"
            "allowed: model.skip=residual or scaled_residual, on two layers or more"
        )
    return branches


def _from_user_code(path: str) -> Init:
    return Init(path, user_code.init(path))


INITS: Registry[Init] = Registry(
    "init",
    {
        "xavier_normal": Init(
            "N(0, 2/(fan_in + fan_out)) (Glorot & Bengio 2010)",
            _normal(_xavier_std),
            std=_xavier_std,
        ),
        "xavier_uniform": Init(
            "uniform of variance 2/(fan_in + fan_out) (Glorot & Bengio 2010)",
            _uniform(_xavier_std),
            std=_xavier_std,
        ),
        "he_normal": Init("N(0, 2/fan_in) (He 2015)", _normal(_he_std), std=_he_std),
        "he_uniform": Init(
            "uniform of variance 2/fan_in (He 2015)", _uniform(_he_std), std=_he_std
        ),
        "lecun_normal": Init("N(0, 1/fan_in) (LeCun 1998)", _normal(_lecun_std), std=_lecun_std),
        "lecun_uniform": Init(
            "uniform of variance 1/fan_in (LeCun 1998)", _uniform(_lecun_std), std=_lecun_std
        ),
        "orthogonal": Init(
            "orthonormal rows or columns (Saxe 2014)",
            _orthogonal,
            std=_orthonormal_std,
            is_isometric=True,
        ),
        "delta_orthogonal": Init(
            "orthogonal at a kernel's centre, 0 elsewhere (Xiao 2018)",
            _delta_orthogonal,
            std=_delta_std,
            is_isometric=True,
        ),
        "lsuv": Init(
            "orthonormal, then each output scaled to variance 1 on a batch (Mishkin & Matas 2016)",
            _orthonormal,
            fit=_fit_variances,
            std=_orthonormal_std,
            is_isometric=True,
            scales_outputs=True,
        ),
        "fixup": Init(
            "he_normal by depth, residual branches and read-out from 0, no norm (Zhang 2019)",
            _normal(_he_std),
            fit=_fix_up,
            std=_he_std,
            adds_scalars=True,
        ),
        "zero_last": Init(
            "he_normal, and each residual branch starts at 0 (Goyal 2017)",
            _normal(_he_std),
            fit=_zero_last,
            std=_he_std,
        ),
        "normal": Init("N(0, gain^2), whatever the fans", _normal(_unit_std), std=_unit_std),
        "uniform": Init(
            "U[-1/sqrt(fan_in), 1/sqrt(fan_in)], biases 0", _uniform(_torch_std), std=_torch_std
        ),
        "torch_default": Init(
            "as nn.Linear does: weights and biases U[-1/sqrt(fan_in), 1/sqrt(fan_in)]",
            _uniform(_torch_std),
            draws_biases=True,
            std=_torch_std,
        ),
    },
    _from_user_code,
)
"""Name -> initialisation."""
