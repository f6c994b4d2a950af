"""Activations phi and their derivatives phi' in closed form.

A derivative is elementwise, in u's dtype, exactly 0 where PyTorch's own backward is exactly 0 (but
for gelu, whose float32 kernel drops slopes under 2e-8 on some processors), and finite for every
finite u. At a kink it takes PyTorch's side (relu'(0) = 0). At inf or nan it may be nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from vgexp import user_code
from vgexp.registry import Registry
from vgexp.watch import Slope

LEAKY_RELU_SLOPE = 0.01
PRELU_SLOPE = 0.25
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
GELU_CUBIC = 0.044715


@dataclass(frozen=True)
class Derivative:
    """phi' of one torch module class: `formula(u, *parameters)`, with the module's own parameters.

    `peak` is the largest |phi'| where phi is bounded, else None.
    """

    formula: Callable[..., Tensor]
    parameters: tuple[str, ...] = ()
    peak: float | None = None
    from_output: Callable[[Tensor], Tensor] | None = None
    """phi' as a function of y = phi(u)."""

    def slope(self, module: nn.Module) -> Slope:
        """Returns phi' of a module; modules with the same plain numbers as parameters share it.

        Plain numbers are read now, tensors (prelu's weight) whenever the slope is evaluated.
        """
        return self.slope_with(tuple(getattr(module, name) for name in self.parameters))

    def slope_with(self, values: tuple[Any, ...]) -> Slope:
        """Returns phi' with these parameters."""
        if any(isinstance(value, Tensor) for value in values):
            return Slope(lambda u: self.formula(u, *values), self.peak, stackable=False)
        return _shared_slope(self, values)

    def __call__(self, module: nn.Module, u: Tensor) -> Tensor:
        """Returns phi'(u) with the module's present parameters."""
        return self.formula(u, *(getattr(module, name) for name in self.parameters))


@dataclass(frozen=True)
class ByAutograd:
    """phi' of the user's own modules, by autograd; in closed form where the class is torch's."""

    peak: float | None = None

    def slope(self, module: nn.Module) -> Slope:
        """Returns phi' of a module; it may differ from channel to channel."""
        known = slope_of(module)
        return known or Slope(partial(user_code.derivative, module), stackable=False)

    def __call__(self, module: nn.Module, u: Tensor) -> Tensor:
        """Returns phi'(u) with the module's present parameters."""
        return self.slope(module).derivative(u)


@dataclass(frozen=True)
class Activation:
    """A named activation; `build(negative_slope)` makes a new module, which is not in place."""

    summary: str
    build: Callable[[float | None], nn.Module]
    derivative: Derivative | ByAutograd
    """`derivative(module, u)` is phi'(u)."""
    has_parameters: bool = False
    """Whether its modules have trained parameters."""
    kinks: tuple[float, ...] | None = ()
    """Where phi or phi' is not smooth; None: it is not known."""
    bounds: tuple[float, float] | None = None
    """The smallest and the largest phi; None: one of them is infinite, or not known."""
    rnn_nonlinearity: str | None = None
    """`nonlinearity` with which torch's fused recurrent cell computes it; None: that cannot."""

    @property
    def peak(self) -> float | None:
        """The largest |phi'| of a bounded activation, else None."""
        return self.derivative.peak


def slope(name: str, module: nn.Module) -> Slope:
    """Returns phi' of a module that the activation `name` built."""
    return ACTIVATIONS[name].derivative.slope(module)


def slope_of(module: nn.Module) -> Slope | None:
    """Returns phi' of any activation module; None if its class is not known.

    A subclass is known if it inherits its forward pass; one with its own may compute anything. A
    prelu with a slope for each channel expects u as the module saw it, channels on axis 1.
    """
    for cls in type(module).__mro__:
        known = DERIVATIVES.get(cls)
        if known is not None:
            inherits = getattr(type(module), "forward", None) is getattr(cls, "forward", None)
            return known.slope(module) if inherits else None
    return None


@lru_cache(maxsize=256)
def _shared_slope(derivative: Derivative, values: tuple[Any, ...]) -> Slope:
    return Slope(lambda u: derivative.formula(u, *values), derivative.peak, derivative.from_output)


# ---------------------------------------------------------------- derivatives
#
# Branches are arithmetic: on CPU an elementwise comparison in place and a lerp, exact at weights 0
# and 1, take a tenth of the time of a mask and torch.where.


def _sigmoid(u: Tensor) -> Tensor:
    y = torch.sigmoid(u)
    return (1 - y).mul_(y)


def _sigmoid_of_output(y: Tensor) -> Tensor:
    return torch.addcmul(y, y, y, value=-1)


def _tanh_of_output(y: Tensor) -> Tensor:
    return torch.addcmul(y.new_ones(()), y, y, value=-1)


def _tanh(u: Tensor) -> Tensor:
    return 1 - torch.tanh(u).square_()


def _above(u: Tensor, threshold: float = 0.0) -> Tensor:
    return u.clone().gt_(threshold)


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return u.clone().gt_(low).mul_(u.clone().lt_(high))


def _outside(u: Tensor, radius: float) -> Tensor:
    return u.abs().gt_(radius)


def _leaky_relu(u: Tensor, negative_slope: float) -> Tensor:
    return torch.lerp(u.new_full((), negative_slope), u.new_ones(()), _above(u))


def _prelu(u: Tensor, weight: Tensor) -> Tensor:
    shape = (-1,) if weight.numel() == 1 else (-1,) + (1,) * (u.ndim - 2)
    return torch.lerp(weight.detach().to(u.dtype).reshape(shape), u.new_ones(()), _above(u))


def _elu(u: Tensor, alpha: float) -> Tensor:
    return u.clamp(max=0).exp_().mul_(alpha).lerp_(u.new_ones(()), _above(u))


def _celu(u: Tensor, alpha: float) -> Tensor:
    return u.clamp(max=0).div_(alpha).exp_()


def _selu(u: Tensor) -> Tensor:
    return _elu(u, SELU_ALPHA).mul_(SELU_SCALE)


def _gelu(u: Tensor, approximate: str) -> Tensor:
    return _GELUS[approximate](u)


def _gelu_erf(u: Tensor) -> Tensor:
    """Phi(u) + u Phi'(u), Phi the normal distribution function."""
    cumulative = torch.erf(u * math.sqrt(0.5)).add_(1).mul_(0.5)
    density = u.square().mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
    return cumulative.addcmul_(u, density)


def _gelu_tanh(u: Tensor) -> Tensor:
    """(1 + t)/2 + u (1 - t^2) v'/2, t = tanh v, v = sqrt(2/pi) (u + c u^3)."""
    # Beyond 30, t is 1 in every dtype, and the cube would overflow.
    u = u.clamp(-30, 30)
    square = u * u
    t = torch.tanh(math.sqrt(2 / math.pi) * u * (1 + GELU_CUBIC * square))
    inner = math.sqrt(2 / math.pi) * (1 + 3 * GELU_CUBIC * square)
    return 0.5 * (1 + t) + 0.5 * u * (1 - t * t) * inner


_GELUS: Mapping[str, Callable[[Tensor], Tensor]] = {"none": _gelu_erf, "tanh": _gelu_tanh}


def _silu(u: Tensor) -> Tensor:
    s = torch.sigmoid(u)
    return (1 - s).mul_(u).add_(1).mul_(s)


def _logistic(u: Tensor) -> Tensor:
    """1/(1 + e^-u), without torch.sigmoid's underflow to 0 before e^u itself underflows."""
    return u.clamp(max=0).exp_().div_(u.abs().neg_().exp_().add_(1))


def _softplus(u: Tensor, beta: float, threshold: float) -> Tensor:
    scaled = u * beta
    return _logistic(scaled).lerp_(u.new_ones(()), _above(scaled, threshold))


def _log_sigmoid(u: Tensor) -> Tensor:
    return _logistic(-u)


def _softsign(u: Tensor) -> Tensor:
    return (1 + u.abs()).square_().reciprocal_()


def _mish(u: Tensor) -> Tensor:
    t = torch.tanh(nn.functional.softplus(u))
    return t + u * torch.sigmoid(u) * (1 - t * t)


def _hardsigmoid(u: Tensor) -> Tensor:
    return _between(u, -3, 3).mul_(1 / 6)


def _hardswish(u: Tensor) -> Tensor:
    inside = torch.where(u <= -3, 0.0, u / 3 + 0.5)
    return torch.where(u >= 3, 1.0, inside)


def _tanhshrink(u: Tensor) -> Tensor:
    return torch.tanh(u).square_()


DERIVATIVES: Mapping[type[nn.Module], Derivative] = {
    nn.Sigmoid: Derivative(_sigmoid, peak=0.25, from_output=_sigmoid_of_output),
    nn.Tanh: Derivative(_tanh, peak=1.0, from_output=_tanh_of_output),
    nn.ReLU: Derivative(_above, from_output=_above),
    nn.LeakyReLU: Derivative(_leaky_relu, ("negative_slope",)),
    nn.PReLU: Derivative(_prelu, ("weight",)),
    nn.ELU: Derivative(_elu, ("alpha",)),
    nn.SELU: Derivative(_selu),
    nn.GELU: Derivative(_gelu, ("approximate",)),
    nn.SiLU: Derivative(_silu),
    nn.Softplus: Derivative(_softplus, ("beta", "threshold")),
    nn.Hardtanh: Derivative(_between, ("min_val", "max_val"), peak=1.0),
    nn.ReLU6: Derivative(_between, ("min_val", "max_val"), peak=1.0),
    nn.CELU: Derivative(_celu, ("alpha",)),
    nn.Hardsigmoid: Derivative(_hardsigmoid, peak=1 / 6),
    nn.Hardswish: Derivative(_hardswish),
    nn.Hardshrink: Derivative(_outside, ("lambd",)),
    nn.LogSigmoid: Derivative(_log_sigmoid),
    nn.Mish: Derivative(_mish),
    nn.Softshrink: Derivative(_outside, ("lambd",)),
    nn.Softsign: Derivative(_softsign, peak=1.0),
    nn.Tanhshrink: Derivative(_tanhshrink),
    nn.Threshold: Derivative(_above, ("threshold",)),
}
"""Torch's activation modules -> phi'. Absent: identities (nothing to measure), random slopes
(RReLU) and those that mix units (Softmax, GLU, MultiheadAttention)."""


# ---------------------------------------------------------------- names


def _plain(make: Callable[[], nn.Module]) -> Callable[[float | None], nn.Module]:
    return lambda _negative_slope: make()


def _build_leaky_relu(negative_slope: float | None) -> nn.Module:
    return nn.LeakyReLU(LEAKY_RELU_SLOPE if negative_slope is None else negative_slope)


def _build_prelu(negative_slope: float | None) -> nn.Module:
    return nn.PReLU(init=PRELU_SLOPE if negative_slope is None else negative_slope)


def _known(summary: str, cls: type[nn.Module], **known: Any) -> Activation:
    return Activation(summary, _plain(cls), DERIVATIVES[cls], **known)


def _from_user_code(path: str) -> Activation:
    build = user_code.activation(path)
    return Activation(path, _plain(build), ByAutograd(), kinks=None)


ACTIVATIONS: Registry[Activation] = Registry(
    "activation",
    {
        "linear": Activation(
            "u itself: a deep linear net", _plain(nn.Identity), Derivative(torch.ones_like)
        ),
        "sigmoid": _known(
            "1/(1 + e^-u), in (0, 1); phi' is at most 1/4", nn.Sigmoid, bounds=(0.0, 1.0)
        ),
        "tanh": _known(
            "hyperbolic tangent, in (-1, 1); phi'(0) = 1",
            nn.Tanh,
            bounds=(-1.0, 1.0),
            rnn_nonlinearity="tanh",
        ),
        "relu": _known("max(u, 0)", nn.ReLU, kinks=(0.0,), rnn_nonlinearity="relu"),
        "leaky_relu": Activation(
            "u above 0, negative_slope * u below (Maas 2013)",
            _build_leaky_relu,
            DERIVATIVES[nn.LeakyReLU],
            kinks=(0.0,),
        ),
        "prelu": Activation(
            "leaky_relu with a trained slope, one a layer (He 2015)",
            _build_prelu,
            DERIVATIVES[nn.PReLU],
            has_parameters=True,
            kinks=(0.0,),
        ),
        "elu": _known("u above 0, e^u - 1 below (Clevert 2016)", nn.ELU, kinks=(0.0,)),
        "selu": _known(
            "elu scaled to keep mean 0 and variance 1 (Klambauer 2017)", nn.SELU, kinks=(0.0,)
        ),
        "gelu": _known("u Phi(u), Phi the normal distribution (Hendrycks & Gimpel 2016)", nn.GELU),
        "silu": _known("u sigmoid(u), also swish (Ramachandran 2017)", nn.SiLU),
        # Above 20 torch returns u itself.
        "softplus": _known("ln(1 + e^u), a smooth relu", nn.Softplus, kinks=(20.0,)),
        "hardtanh": _known("u cut at -1 and 1", nn.Hardtanh, kinks=(-1.0, 1.0), bounds=(-1.0, 1.0)),
    },
    _from_user_code,
)
"""Name -> activation."""
