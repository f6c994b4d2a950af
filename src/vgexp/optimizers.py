"""Optimizers: torch's own classes, with torch's defaults where the configuration says nothing.

Where torch has a fused kernel, it is used: it computes the same update in one call for all tensors.
No optimizer loads torch's compiler, which would take a third of a short run.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import singledispatch
from typing import TypeVar, cast

import torch
from torch import nn
from torch.optim import Optimizer

from vgexp.config import (
    AdamConfig,
    AdamwConfig,
    MomentumConfig,
    OptimizerConfig,
    RmspropConfig,
    SgdConfig,
    unmade,
)

Parameters = Iterable[nn.Parameter]
AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)

_GUARDED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
"""Methods that torch hides from its compiler; to hide them, torch loads the compiler."""


@singledispatch
def build(config: OptimizerConfig, parameters: Parameters) -> Optimizer:  # noqa: ARG001
    """Builds the configured optimizer over `parameters`, in one parameter group."""
    raise unmade(config)


def num_states(config: OptimizerConfig) -> int:
    """Counts the numbers that the configured optimizer keeps for each parameter, after one step."""
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    optimizer = build(config, [parameter])
    optimizer.step()
    states = optimizer.state[parameter].values()
    # Neither a count of steps nor an absent buffer has the parameter's shape.
    return sum(torch.is_tensor(state) and state.shape == parameter.shape for state in states)


def skip_compiler(cls: type[AnyOptimizer]) -> type[AnyOptimizer]:
    """Returns a subclass of an optimizer that never imports `torch._dynamo`.

    torch wraps methods of an optimizer so that a compiled function which calls them works. The
    wrappers import torch's compiler even where nothing is compiled. Nobody compiles the step of a
    run, so the methods are called without their wrappers. A user's model may be compiled all the
    same. A method whose wrapper does not name what it wraps stays as it is.
    """
    # The wrapper of `step` also turns gradients off.
    step = torch.no_grad()(inspect.unwrap(cls.step))
    methods = {name: inspect.unwrap(getattr(cls, name)) for name in _GUARDED}
    names = {"__module__": __name__, "__doc__": cls.__doc__}
    return cast(type[AnyOptimizer], type(cls.__name__, (cls,), {**names, **methods, "step": step}))


SGD = skip_compiler(torch.optim.SGD)
RMSprop = skip_compiler(torch.optim.RMSprop)
Adam = skip_compiler(torch.optim.Adam)
AdamW = skip_compiler(torch.optim.AdamW)


@build.register
def sgd(config: SgdConfig, parameters: Parameters) -> Optimizer:
    """Plain stochastic gradient descent: w <- w - lr (g + weight_decay w)."""
    return SGD(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


@build.register
def momentum(config: MomentumConfig, parameters: Parameters) -> Optimizer:
    """Heavy-ball momentum (Polyak 1964): v <- momentum v + g, w <- w - lr v.

    The first v is g itself; the gradient is not damped by 1 - momentum.
    """
    return SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )


@build.register
def rmsprop(config: RmspropConfig, parameters: Parameters) -> Optimizer:
    """RMSprop (Hinton 2012): each entry is divided by its running root mean square.

    s <- 0.99 s + 0.01 g^2 from 0 without bias correction, w <- w - lr g / (sqrt(s) + 1e-8).
    """
    return RMSprop(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


@build.register
def adam(config: AdamConfig, parameters: Parameters) -> Optimizer:
    """Adam (Kingma & Ba 2015), betas 0.9 and 0.999, epsilon 1e-8.

    Weight decay is an L2 penalty: it is added to the gradient before the moments.
    """
    return Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


@build.register
def adamw(config: AdamwConfig, parameters: Parameters) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): w <- (1 - lr decay) w first."""
    return AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
