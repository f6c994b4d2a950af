"""The work of one update, counted in calls of kernels and in the numbers that they make.

A count is the same on every machine, whatever else it is busy with, and time is not: a layer of
dead units, or weights that overflow, make the same step several times as long or as short.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vgexp.seeds import without_draws
from vgexp.torch_internals import KernelMode
from vgexp.training.state import TrainState
from vgexp.training.step import forward_backward, gradient_norm, take_step

ELEMENTS_PER_CALL = 15_000
"""How many numbers are written in the time that a call of a kernel takes by itself (6 us)."""
PRODUCTS_PER_CALL = 300_000
"""How many multiplications of a matrix product or a convolution are made in it, on one core."""
CALLS_OF_CONVOLUTION = 15
"""How many calls one pass of a convolution takes the time of, however small it is."""


@dataclass(frozen=True)
class Work:
    """The work of an update, in calls of kernels."""

    calls: float
    """Number of calls, whatever the size of what they are called with."""
    size: float
    """What the numbers that they make come to; it grows with the batch."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.calls + self.size


def count_work(state: TrainState) -> Work:
    """Makes one update, which the state is not to go on from, and counts its work.

    The work is 0 where torch does not show the kernels that are called.
    """
    counter = _Counter()
    with without_draws():
        batch = state.next_batch()
        with counter:
            forward_backward(state, batch)
            state.clip(state.parameters, gradient_norm(state))
            take_step(state)
    return Work(counter.calls, counter.size)


class _Counter(KernelMode):  # type: ignore[misc]
    """Counts the calls of kernels within it; a view costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.size = 0.0, 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "is_view", False):
            return out
        made = [each for each in _parts(out) if isinstance(each, Tensor)]
        self.calls += CALLS_OF_CONVOLUTION if _is_convolution(func) else 1
        self.size += sum(each.numel() for each in made) / ELEMENTS_PER_CALL
        self.size += _num_products(func, args, made) / PRODUCTS_PER_CALL
        return out


def _is_convolution(func: Any) -> bool:
    kind = getattr(func, "overloadpacket", None)
    return kind in (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)


def _num_products(func: Any, args: Any, made: list[Tensor]) -> float:
    """Multiplications of a product of matrices or of a convolution; 0 of anything else."""
    ops = torch.ops.aten
    kind = getattr(func, "overloadpacket", None)
    if kind in (ops.mm, ops.bmm, ops.matmul):
        return float(made[0].numel() * args[0].shape[-1])
    if kind in (ops.addmm, ops.baddbmm):
        return float(made[0].numel() * args[1].shape[-1])
    if kind == ops.convolution:
        return float(made[0].numel() * args[1][0].numel())
    if kind == ops.convolution_backward:
        # The gradients of the input and of the weight, each as many as the forward pass.
        gradient, weight = args[0], args[2]
        return float(len(made) and 2 * gradient.numel() * weight[0].numel())
    return 0.0


def _parts(out: Any) -> Any:
    return out if isinstance(out, tuple | list) else (out,)
