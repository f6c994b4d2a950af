"""Fits of drawn weights: to a batch (`lsuv`), and to a model's residual branches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from vgexp.errors import QuestionError
from vgexp.inits.init import Branch, Watched
from vgexp.metrics import row_moments

LSUV_TOLERANCE = 0.1
LSUV_TRIES = 10


def fit_variances(model: Watched, gain: float, inputs: Tensor) -> Mapping[str, float]:
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


def zero_last(model: Watched, _gain: float, _inputs: Tensor) -> None:
    """Starts each residual branch at 0, so that a block starts as its path (Goyal 2017, 5.1).

    The scale of the norm that ends it is 0; where none ends it, its last weight.
    """
    for branch in _branches(model, "zero_last"):
        model.get_parameter(branch.scale or branch.weights[-1]).zero_()


def fix_up(model: Watched, _gain: float, _inputs: Tensor) -> None:
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
