"""Curvature of the loss: the ends of the Hessian's spectrum, its trace, and the stability limit.

Axes: P all trainable parameters, one after another.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeGuard, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vgexp import metrics
from vgexp.data.batches import Batch
from vgexp.errors import QuestionError, one_line, reason
from vgexp.losses import Loss
from vgexp.models import Network
from vgexp.records import Rows
from vgexp.seeds import GlobalStream, generator
from vgexp.training.spectrum import BASIS, Ends, Product, ends, trace

NAME = "model"
"""The row of all trainable parameters together."""
NUM_KEPT = BASIS + 8
"""Numbers kept for each parameter while it is measured: basis, copy, and vectors at work."""
PROBES = 6
"""Vectors of signs for the trace."""
FRESH = 0.3
"""Length of the random part of a start, beside the last eigenvector's 1."""
# In torch's error for an operation without a second derivative.
_NOT_TWICE = ("is not implemented", "differentiate twice", "double backward")


class Descent(Protocol):
    """The part of `TrainState` that is needed here; that class contains this module's own."""

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    stream: GlobalStream
    step: int


@final
class Curvature:
    """Measures `curvature.csv`; the search for an eigenvector starts near the last one found.

    H is the Hessian of the current update's loss with respect to all trainable parameters: the mean
    over its examples, all micro-batches, with its dropout masks and batch statistics, in the
    parameters' dtype (no autocast) and without weight decay. It is taken on a copy of the model, so
    that running statistics and hooks are not touched.

    Random numbers depend on seed and step alone, so the eigenvector is the only state.

    Args:
        every: steps between measurements; the first step and the last are measured too.
    """

    def __init__(self, every: int, seed: int) -> None:
        self._every, self._seed = every, seed
        self._vector_P: Tensor | None = None

    def is_due(self, step: int, *, is_last: bool) -> bool:
        """Whether it is measured at this step."""
        return is_last or step % self._every == 0

    def rows(self, state: Descent, batch: Batch) -> Rows:
        """Makes the row of the coming update. Waits for the device.

        Raises:
            QuestionError: the model cannot be copied, or not be differentiated twice.
        """
        before = state.stream.state_dict()
        try:
            with _twice_differentiable():
                product, like_P = _product(state, batch, before)
                found, mean, error = self._measure(product, like_P, state.step)
        finally:
            state.stream.load_state_dict(before)
        self._vector_P = found.vector_P if found.largest == found.largest else None
        columns: dict[str, Any] = {
            "step": state.step,
            "name": NAME,
            "lr": state.optimizer.param_groups[0]["lr"],
            "hessian_max": found.largest,
            "stability_limit": stability_limit(state.optimizer),
            "hessian_max_residual": found.largest_residual,
            "hessian_min": found.smallest,
            "hessian_min_residual": found.smallest_residual,
            "hessian_trace": mean,
            "hessian_trace_error": error,
            "num_products": found.num_products,
        }
        return Rows("curvature", {name: [value] for name, value in columns.items()})

    def _measure(self, product: Product, like_P: Tensor, step: int) -> tuple[Ends, float, float]:
        draws = generator(self._seed, f"curvature/{step}")
        start_P = torch.randn(like_P.shape, generator=draws).to(like_P)
        if self._vector_P is not None:
            start_P = self._vector_P.to(like_P) + start_P * (
                FRESH / metrics.row_norms(start_P[None])
            )
        found = ends(product, start_P)
        return found, *trace(product, found, _signs(like_P, draws))

    def state_dict(self) -> Tensor | None:
        """The last eigenvector."""
        return self._vector_P

    def load_state_dict(self, state: Tensor | None) -> None:
        """Continues from an eigenvector."""
        self._vector_P = state


def stability_limit(optimizer: torch.optim.Optimizer) -> float | None:
    """The largest eigenvalue of H at which an update still shrinks its direction, on a quadratic.

    (2 + 2 momentum) / lr - weight_decay for SGD with heavy-ball momentum, 2 / lr without it (Polyak
    1964; Cohen 2021, 3 and B). None for optimizers that divide each entry by a number of its own:
    their limit depends on H and on these numbers together (Cohen 2022).
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return None
    (group,) = optimizer.param_groups
    if group["lr"] == 0:
        return float("inf")
    limit: float = (2 + 2 * group["momentum"]) / group["lr"] - group["weight_decay"]
    return limit


def _product(state: Descent, batch: Batch, before: list[Tensor]) -> tuple[Product, Tensor]:
    """Makes the function v -> H v, and a vector of its size, dtype and device.

    For one batch, the graph of the gradient is made once and kept. For several micro-batches, which
    are there to save memory, one graph at a time is made again for every product.

    Args:
        before: the state of the random stream before the update, for its dropout masks.
    """
    model = _copy(state.model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    sizes = [p.numel() for p in parameters]
    like_P = parameters[0].new_zeros(sum(sizes))

    def gradients() -> Iterator[list[Tensor | None]]:
        state.stream.load_state_dict(before)
        for x, y in batch:
            loss = state.loss.mean(model(x), y) / len(batch)
            yield list(torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True))

    held = list(gradients()) if len(batch) == 1 else None

    def product(v_P: Tensor) -> Tensor:
        parts = [
            part.view_as(p) for part, p in zip(torch.split(v_P, sizes), parameters, strict=True)
        ]
        sum_P = torch.zeros_like(like_P)
        for grads in gradients() if held is None else held:
            sum_P += _times(grads, parameters, parts)
        return sum_P

    return product, like_P


def _times(
    grads: list[Tensor | None], parameters: list[nn.Parameter], parts: list[Tensor]
) -> Tensor:
    """Differentiates the gradient along v; 0 where it does not depend on a parameter."""
    curved = [(g, v.to(g)) for g, v in zip(grads, parts, strict=True) if _bends(g)]
    for p in parameters:
        p.grad = None
    if curved:
        # Not `grad`, which would go past an operation that says it has no second derivative.
        torch.autograd.backward([g for g, _ in curved], [v for _, v in curved], retain_graph=True)
    slopes = (torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
    return torch.cat([slope.flatten() for slope in slopes])


def _bends(grad: Tensor | None) -> TypeGuard[Tensor]:
    return grad is not None and grad.requires_grad


def _signs(like_P: Tensor, draws: torch.Generator) -> Iterator[Tensor]:
    """Vectors of -1 and 1, drawn on the CPU: one seed gives one trace on every device."""
    for _ in range(PROBES):
        bits_P = torch.randint(2, like_P.shape, generator=draws, dtype=torch.int8)
        yield 2 * bits_P.to(like_P) - 1


def _copy(model: nn.Module) -> nn.Module:
    try:
        made = copy.deepcopy(model)
    except Exception as error:
        raise _refusal(f"the model cannot be copied: {reason(error)}") from error
    if isinstance(made, Network):
        made.recomputes = False  # checkpointed activations are differentiable once only
    for module in made.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = False  # sparse gradients are differentiable once only
    return made


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Replaces, within, operations that have no second derivative by others that have one."""
    cudnn = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _NOT_TWICE):
            raise
        raise _refusal(f"the loss has no second derivative: {one_line(str(error))}") from error
    finally:
        torch.backends.cudnn.enabled = cudnn


def _refusal(why: str) -> QuestionError:
    return QuestionError(
        f"probe.curvature_every asks for the curvature of this model, but {why}\n"
        "allowed: probe.curvature_every=0, or a model whose every operation can be differentiated"
        " twice"
    )
