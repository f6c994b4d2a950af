"""Draws the weights and biases of a whole model.

Every draw is made on the generator's device and then copied, so that one seed gives one network on
every device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn

from vgexp.inits.choices import INITS
from vgexp.inits.draws import between, fan_in
from vgexp.inits.init import Draw, InitConfig, Watched


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
            _fill_bias(bias, owner, 1 / math.sqrt(fan_in(weight)), config, generator)
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
        _fill(bias, between(bound), config.gain, generator)
    else:
        bias.fill_(start or 0.0)
    if config.bias_std > 0:
        noise = torch.empty(bias.shape, dtype=torch.float64, device=generator.device)
        nn.init.normal_(noise, 0.0, config.bias_std, generator=generator)
        bias.add_(noise.to(bias.device, bias.dtype))
