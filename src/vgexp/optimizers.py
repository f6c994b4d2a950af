"""Optimizers: torch's own classes, torch's defaults wherever the configuration is silent.

Where torch has a fused kernel it is asked for: the same update in one call for all tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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
    choice,
)
from vgexp.registry import Registry

Parameters = Iterable[nn.Parameter]


def build(config: OptimizerConfig, parameters: Parameters) -> Optimizer:
    """The configured optimizer over `parameters`, in one parameter group."""
    return OPTIMIZERS[choice("optimizer", config)](parameters, config)


def num_states(config: OptimizerConfig) -> int:
    """Numbers that the configured optimizer keeps for each parameter: what one step leaves."""
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    optimizer = build(config, [parameter])
    optimizer.step()
    states = optimizer.state[parameter].values()
    # Neither a count of steps nor an absent buffer has the parameter's shape.
    return sum(torch.is_tensor(state) and state.shape == parameter.shape for state in states)


def sgd(parameters: Parameters, config: SgdConfig) -> Optimizer:
    """Plain stochastic gradient descent: w <- w - lr (g + weight_decay w)."""
    return torch.optim.SGD(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def momentum(parameters: Parameters, config: MomentumConfig) -> Optimizer:
    """Heavy-ball momentum (Polyak 1964): v <- momentum v + g, w <- w - lr v.

    The first v is g itself; the gradient is not damped by 1 - momentum.
    """
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )


def rmsprop(parameters: Parameters, config: RmspropConfig) -> Optimizer:
    """RMSprop (Hinton 2012): each entry divided by its running root mean square.

    s <- 0.99 s + 0.01 g^2 from 0 without bias correction, w <- w - lr g / (sqrt(s) + 1e-8).
    """
    return torch.optim.RMSprop(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


def adam(parameters: Parameters, config: AdamConfig) -> Optimizer:
    """Adam (Kingma & Ba 2015), betas 0.9 and 0.999, epsilon 1e-8.

    Weight decay is an L2 penalty: it is added to the gradient before the moments.
    """
    return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def adamw(parameters: Parameters, config: AdamwConfig) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): w <- (1 - lr decay) w first."""
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


OPTIMIZERS: Registry[Callable[[Parameters, Any], Optimizer]] = Registry(
    "optimizer",
    {"sgd": sgd, "momentum": momentum, "rmsprop": rmsprop, "adam": adam, "adamw": adamw},
)
"""Name -> function of (parameters, configuration)."""
