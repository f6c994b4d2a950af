"""Copies a model so that the output of an example depends on that example alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vgexp.models import Network
from vgexp.models.stages import Stage
from vgexp.torch_internals import BATCH_NORMS


def freeze(model: Network, x_B: Tensor) -> Network:
    """Copies a model in float64 to the CPU, without dropout, gradients or batch statistics.

    Batch norms keep the means and variances that they have on the batch. So a Jacobian leaves out
    the share that any example, its own included, has in the statistics.
    """
    made = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    norms = [module for module in made.modules() if isinstance(module, BATCH_NORMS)]
    handles = [norm.register_forward_pre_hook(_take_statistics) for norm in norms]
    try:
        with torch.no_grad():
            made(as_input(x_B))
    finally:
        for handle in handles:
            handle.remove()
    return made


def as_input(x_B: Tensor) -> Tensor:
    """Converts inputs to those of the copy; tokens stay integers."""
    x_B = x_B.detach().cpu()
    return x_B.double() if x_B.is_floating_point() else x_B


def run_stages(stages: Sequence[Stage], x_B: Tensor) -> list[Tensor]:
    """Returns the input and the output of each stage."""
    found = [x_B]
    with torch.no_grad():
        for stage in stages:
            found.append(stage.run(found[-1]))
    return found


def _take_statistics(norm: nn.Module, args: tuple[Any, ...]) -> None:
    """Sets a norm's statistics to those of its input; in evaluation mode it then uses them."""
    (x,) = args
    axes = [axis for axis in range(x.ndim) if axis != 1]
    var_C, mean_C = torch.var_mean(x, axes, correction=0)
    norm.running_mean, norm.running_var = mean_C, var_C
