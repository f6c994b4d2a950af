"""What a network holds while it trains, estimated by small networks on the meta device.

Whatever size is asked for, what is built is small: a network of equal parts holds a polynomial in
their number, which goes through the needs of a few small networks of its kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from vgexp.config import (
    RESNET_STAGES,
    AttentionConfig,
    CnnConfig,
    DensenetConfig,
    ModelConfig,
    RecurrentConfig,
    ResnetConfig,
)
from vgexp.models.families import make
from vgexp.tasks import Task
from vgexp.torch_internals import base_of


@dataclass(frozen=True)
class Need:
    """How many numbers a run holds at once."""

    num_parameters: int
    """Number of parameters; gradients are as many, and so is each state of the optimizer."""
    num_activations: int
    """Number of activations that a forward pass keeps for the backward pass."""

    def recomputing(self, num_blocks: int) -> Need:
        """Returns the need where activations are computed again: of n blocks, the inputs of about
        sqrt(n) segments and what one segment of sqrt(n) blocks keeps."""
        share = min(1.0, 2 / math.sqrt(num_blocks))
        return Need(self.num_parameters, math.ceil(share * self.num_activations))

    def plus(self, times: int, more: Need) -> Need:
        """Returns the sum with so many times another need."""
        return Need(
            self.num_parameters + times * more.num_parameters,
            self.num_activations + times * more.num_activations,
        )

    def minus(self, less: Need) -> Need:
        """Returns the difference to another need."""
        return self.plus(-1, less)

    def num_bytes(self, dtype: torch.dtype, num_states: int) -> int:
        """Counts the bytes of parameters, gradients, optimizer states (adam: 2) and activations."""
        return dtype.itemsize * (self.num_parameters * (2 + num_states) + self.num_activations)


@singledispatch
def estimate(config: ModelConfig, task: Task, batch_size: int) -> Need:
    """Estimates what training on batches of `batch_size` holds, in a time that no size lengthens.

    A family without a rule of its own is rehearsed at its full size.
    """
    return rehearse(config, task, batch_size)


def rehearse(config: ModelConfig, task: Task, batch_size: int) -> Need:
    """Estimates by two forward passes on the meta device, and the line through their batch sizes.

    Two, since a part may not depend on the batch; few, for some kernels' sizes are limited.
    """
    with torch.device("meta"):
        model = make(config, task)
        first, second = (count_kept(model, task, examples) for examples in (2, 4))
    return Need(
        sum(p.numel() for p in model.parameters()), first + (second - first) // 2 * (batch_size - 2)
    )


def count_kept(model: nn.Module, task: Task, num_examples: int) -> int:
    """Counts the numbers that autograd keeps of a forward pass, without parameters."""
    parameters = {id(p) for p in model.parameters()}
    found: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        base = base_of(x)
        base = x if base is None else base
        if id(base) not in parameters:
            found[id(base)] = base
        return x

    dtype = torch.int64 if task.kind == "tokens" else None
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model(torch.zeros(num_examples, *task.shape, dtype=dtype))
    return sum(x.numel() for x in found.values())


@estimate.register
def _attention(config: AttentionConfig, task: Task, batch_size: int) -> Need:
    """Extrapolates from few blocks: all are equal."""
    return _of_depth(config, (1, 2), lambda small: rehearse(small, task, batch_size))


@estimate.register
def _resnet(config: ResnetConfig, task: Task, batch_size: int) -> Need:
    """Extrapolates from few blocks: all are equal, and each stage has one more at a time."""
    period = RESNET_STAGES * config.block_layers
    depths = (period + 2, 2 * period + 2)
    return _of_depth(config, depths, lambda small: rehearse(small, task, batch_size))


@estimate.register
def _cnn(config: CnnConfig, task: Task, batch_size: int) -> Need:
    """Extrapolates from few layers: those of a stage are equal, the remainder stays the same."""
    num_stages = min(config.stages, config.depth)
    rest = config.depth % num_stages
    depths = (2 * num_stages + rest, 3 * num_stages + rest)
    return _of_depth(config, depths, lambda small: rehearse(small, task, batch_size))


@estimate.register
def _densenet(config: DensenetConfig, task: Task, batch_size: int) -> Need:
    """Extrapolates by a square: each layer reads what all before it made.

    The parts that a transition keeps of its channels are whole for most compressions after four
    layers of a block.
    """
    num_layers, first = config.layers_per_block, 4 + config.layers_per_block % 4
    period = (config.depth - 4) // num_layers
    depths = [4 + period * (first + more) for more in (0, 4, 8)]
    return _of_depth(config, depths, lambda small: rehearse(small, task, batch_size))


@estimate.register
def _recurrent(config: RecurrentConfig, task: Task, batch_size: int) -> Need:
    """Extrapolates from few layers: all but the first are equal, with equal steps in time."""
    return _of_depth(config, (2, 3), lambda small: _over_time(small, task, batch_size))


def _over_time(config: RecurrentConfig, task: Task, batch_size: int) -> Need:
    """Extrapolates from few steps in time: they are equal, and so are the cuts of `truncation`."""
    num_steps, truncation = task.shape[0], config.truncation
    if num_steps <= 4:
        return rehearse(config, task, batch_size)

    def of(steps: int, truncation: int | None) -> Need:
        short = replace(task, shape=(steps, *task.shape[1:]))
        return rehearse(replace(config, truncation=truncation), short, batch_size)

    three, four = of(3, None), of(4, None)
    whole = three.plus(num_steps - 3, four.minus(three))
    num_cuts = 0 if truncation is None else (num_steps - 1) // truncation
    return whole.plus(num_cuts, of(4, 2).minus(four)) if num_cuts else whole


def _of_depth(config: Any, depths: Sequence[int], need_of: Callable[[Any], Need]) -> Need:
    """Computes the need at any depth, by Newton's polynomial through equally spaced depths."""
    if config.depth <= depths[-1]:
        return need_of(config)
    differences = [need_of(replace(config, depth=depth)) for depth in depths]
    steps, order = (config.depth - depths[0]) // (depths[1] - depths[0]), 0
    total = Need(0, 0)
    while differences:
        total = total.plus(math.comb(steps, order), differences[0])
        differences = [after.minus(before) for before, after in pairwise(differences)]
        order += 1
    return total
