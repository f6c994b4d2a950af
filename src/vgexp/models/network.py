"""The base of every model that says itself where it is measured."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from vgexp.activations import slope
from vgexp.inits import Branch, Draw
from vgexp.models.stages import Stage
from vgexp.skips import Combine
from vgexp.torch_internals import BATCH_NORMS
from vgexp.watch import Meter, Watch

Named = Mapping[Tensor, tuple[str, nn.Parameter]]
"""Parameter -> its name in the model, and the parameter itself."""


class Network(nn.Module, ABC):
    """A model that says where to measure it; its weights are not drawn yet.

    It draws no random number as it is made: `inits.initialise` does.
    """

    recomputes = False
    """Whether the backward pass computes activations again, so that they need not be kept."""

    time_points: int | None = 10
    """Number of equally spaced times at which a recurrent state is measured; None: all times."""

    fitted_variances: Mapping[str, float] = MappingProxyType({})
    """Weight -> the variance to which its init brought its output, on the batch of the fit; empty:
    the init fits none."""

    @abstractmethod
    def watches(self) -> list[Watch]:
        """Watches each weight matrix or kernel, in forward order; in a layer the main path comes
        first."""

    def meters(self) -> list[Meter]:
        """Returns the meters of its narrow tables."""
        return []

    def branches(self) -> Sequence[Branch]:
        """Returns its residual branches, in forward order."""
        return ()

    def stages(self) -> Sequence[Stage]:
        """Returns the maps that it is a chain of, first to last; none: it is no chain.

        From the inputs, or where these are tokens from what is made of them, to the outputs.
        """
        return ()

    def special_draws(self) -> Mapping[str, Draw]:
        """Maps the names of weights that `model.init` does not draw to how they are drawn.

        As `Init.draw`: fills a tensor in place, given the gain and a generator.
        """
        return {}


State = TypeVar("State")
"""What one block hands to the next: a tensor, or a tuple of tensors."""


def run_blocks(blocks: Sequence[Callable[[State], State]], state: State, recomputes: bool) -> State:
    """Runs blocks one after another; recomputing, in about sqrt(n) segments of sqrt(n) blocks.

    Of each segment only the input is kept for the backward pass, and one segment at a time is
    computed again, so that memory grows as sqrt(n) instead of n (Chen 2016). What is computed again
    draws the same masks, and moves the running statistics of no batch norm again.
    """
    if not (recomputes and torch.is_grad_enabled()):
        return _run(blocks, state)
    # Loads torch's compiler, or sympy, depending on the version of torch.
    from torch.utils.checkpoint import checkpoint

    size = max(1, math.isqrt(len(blocks)))
    for start in range(0, len(blocks), size):
        segment = blocks[start : start + size]
        state = checkpoint(_run, segment, state, use_reentrant=False, context_fn=_contexts)
    return state


def _run(blocks: Sequence[Callable[[State], State]], state: State) -> State:
    for block in blocks:
        state = block(state)
    return state


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Returns the contexts of a segment's first forward pass, and of the one that repeats it."""
    return nullcontext(), _statistics_kept()


@contextmanager
def _statistics_kept() -> Iterator[None]:
    """Restores the running statistics of batch norms that are called within.

    A hook on every module's call finds them, whatever the blocks are.
    """
    kept: dict[nn.Module, dict[str, Tensor]] = {}

    def lend_copies(module: nn.Module, _args: object) -> None:
        if isinstance(module, BATCH_NORMS) and module not in kept:
            kept[module] = dict(module.named_buffers(recurse=False))
            for name, buffer in kept[module].items():
                setattr(module, name, buffer.clone())

    hook = register_module_forward_pre_hook(lend_copies)
    try:
        yield
    finally:
        hook.remove()
        for module, buffers in kept.items():
            for name, buffer in buffers.items():
                setattr(module, name, buffer)


def gate_watches(skip: Combine | None, number: int, kind: str, named: Named) -> Iterator[Watch]:
    """Watches each gate of a skip; z is what its sigmoid reads."""
    for affine, sigmoid in skip.gates if skip is not None else ():
        yield Watch(
            *named[affine.weight],
            number,
            kind,
            preact=affine,
            activation=sigmoid,
            act=sigmoid,
            slope=slope("sigmoid", sigmoid),
        )


def linear(num_features: int, num_units: int, bias: bool) -> nn.Linear:
    """Makes a linear layer without drawing random numbers: weights are not set, biases are 0."""
    made = nn.Linear(num_features, num_units, bias=bias, device="meta")
    # Not by `to_empty`: what it calls on the meta device imports sympy.
    made.weight = nn.Parameter(torch.empty(num_units, num_features))
    if bias:
        made.bias = nn.Parameter(torch.zeros(num_units))
    return made
