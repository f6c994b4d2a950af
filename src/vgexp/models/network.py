"""What every model of ours is, whatever its family."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from vgexp.inits import Branch
from vgexp.watch import Meter, Watch


class Network(nn.Module, ABC):
    """A model that says itself where to measure; its weights are not drawn yet.

    It draws no random number as it is made: `inits.initialise` does.
    """

    recomputes = False
    """Whether activations are computed again in the backward pass instead of being kept."""

    time_points: int | None = 10
    """Times, equally far apart, at which a recurrent state is watched; None: every one."""

    @abstractmethod
    def watches(self) -> list[Watch]:
        """One watch for each weight matrix or kernel, in forward order; in a layer the main path's
        first."""

    def meters(self) -> list[Meter]:
        """What measures its narrow tables."""
        return []

    def branches(self) -> Sequence[Branch]:
        """Its residual branches, in forward order."""
        return ()

    def special_draws(self) -> Mapping[str, Callable[[Tensor, float, Generator], None]]:
        """Weight name -> how it is drawn, of weights that `model.init` is not about.

        As `Init.draw`: fills a tensor in place, given the gain and a generator.
        """
        return {}


State = TypeVar("State")
"""What one block hands to the next: a tensor, or a tuple of tensors."""


def run_blocks(
    blocks: Sequence[Callable[[State], State]],
    state: State,
    recomputes: bool,
    counting: Sequence[_BatchNorm] = (),
) -> State:
    """The blocks one after another; recomputing, in about sqrt(n) segments of sqrt(n) blocks.

    Of each segment only the input is kept for the backward pass, and one segment at a time is
    computed again, so that memory grows as sqrt(n) instead of n (Chen 2016).

    Args:
        counting: modules of the blocks whose running statistics move once for each forward pass,
            computed again or not.
    """
    if not (recomputes and torch.is_grad_enabled()):
        return _run(blocks, state)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _not_counting(counting)

    size = max(1, math.isqrt(len(blocks)))
    for start in range(0, len(blocks), size):
        segment = blocks[start : start + size]
        state = checkpoint(_run, segment, state, use_reentrant=False, context_fn=contexts)
    return state


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Its modules with running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def _not_counting(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Batch norms note the batch's statistics in copies of their buffers, which are thrown away.

    Without buffers they would keep fewer tensors than the pass that is repeated; to write the old
    values back would change what autograd has kept.
    """
    kept = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        for name, buffer in norm._buffers.items():
            norm._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)


def _run(blocks: Sequence[Callable[[State], State]], state: State) -> State:
    for block in blocks:
        state = block(state)
    return state


def linear(num_features: int, num_units: int, bias: bool) -> nn.Linear:
    """A linear layer that draws no random number; its biases are 0, its weights not set."""
    on_meta = nn.Linear(num_features, num_units, bias=bias, device="meta")
    made = on_meta.to_empty(device=torch.get_default_device())
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made
