"""Tries one update with the user's own code, on a copy, before a run begins.

PyTorch finds some faults in the backward pass only: an output without a graph, a layer that changes
in place what the backward pass needs. They are reported before a run folder is made. The trial
changes nothing that the run's numbers depend on.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vgexp.config import Config, targets
from vgexp.errors import QuestionError
from vgexp.lookup import explain_error
from vgexp.losses import Loss
from vgexp.seeds import without_draws
from vgexp.training import TrainState

_ATTENTION = (F.scaled_dot_product_attention, F.multi_head_attention_forward)
_IN_PLACE = ("modified by an inplace operation", "used in an in-place operation")
_AUTOGRAD = re.compile(r"at .*\bautograd\b")
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def rehearse(config: Config, state: TrainState, x: Tensor, y: Tensor) -> frozenset[str]:
    """Makes the passes of one update, if the configuration names code that takes part in it.

    Returns:
        The tables that only the passes show to be measured: `attention` of a model that calls
        torch's attention as a function.

    Raises:
        QuestionError: the passes raised something, or no gradient reaches a parameter.
    """
    named = [(key, path) for key, path in targets(config) if not key.startswith("output.")]
    if not named:
        return frozenset()
    seen = _Calls()
    tried = f"tried on one batch ({', '.join(f'{key}={path}' for key, path in named)})"
    device = next(state.model.parameters()).device
    with without_draws(), _copies(state.model, state.loss) as (model, loss):
        model.train()
        try:
            with seen, nullcontext() if state.half is None else state.half.context:
                outputs = model(x.to(device, copy=True))
                value = loss.mean(outputs, y.to(device, copy=True))
            _require_graph(tried, outputs, value)
            value.backward()  # type: ignore[no-untyped-call]
        except QuestionError:
            raise
        except Exception as error:
            if any(words in str(error).lower() for words in _MEMORY):
                return seen.tables  # the run reports it, as it does when memory runs out later
            raise _explain(tried, error) from error
        if all(p.grad is None for p in model.parameters()):
            raise _no_graph(tried, "no gradient reaches a parameter of the model")
    return seen.tables


class _Calls(TorchFunctionMode):
    """Notes the tables of the functions of torch that are called within it."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: frozenset[str] = frozenset()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _ATTENTION:
            self.tables |= {"attention"}
        return func(*args, **(kwargs or {}))


def _require_graph(tried: str, outputs: Any, value: Tensor) -> None:
    if not value.requires_grad:
        is_cut = isinstance(outputs, Tensor) and not outputs.requires_grad
        whose = "the model's output" if is_cut else "the loss"
        raise _no_graph(tried, f"{whose} has no graph that leads to a parameter")


def _no_graph(tried: str, why: str) -> QuestionError:
    return QuestionError(
        f"{tried}: {why}, so nothing can be trained\n"
        "allowed: a forward pass without detach(), no_grad(), .data or a detour through numpy"
    )


def _explain(tried: str, error: Exception) -> QuestionError:
    question = explain_error(f"{tried}: the forward or the backward pass raised", error)
    if not any(words in str(error) for words in _IN_PLACE):
        return question
    # The line where the backward pass failed is not in the user's code.
    lines = [line for line in str(question).splitlines() if not _AUTOGRAD.match(line)]
    return QuestionError("\n".join([*lines, "remedy: no in-place operation (relu_, x[...] = 0)"]))


@contextmanager
def _copies(model: nn.Module, loss: Loss) -> Iterator[tuple[nn.Module, Loss]]:
    """Copies of both, or if they cannot be copied, both themselves, restored afterwards."""
    # The copy of a compiled module would be compiled again.
    is_compiled = any(type(module).__name__ == "OptimizedModule" for module in model.modules())
    copies = None if is_compiled else _copy(model, loss)
    if copies is not None:
        yield copies
        return
    kept = [(x, x.detach().clone()) for x in (*model.parameters(), *model.buffers())]
    try:
        yield model, loss
    finally:
        with torch.no_grad():
            for x, value in kept:
                x.copy_(value)
        model.zero_grad(set_to_none=True)


def _copy(model: nn.Module, loss: Loss) -> tuple[nn.Module, Loss] | None:
    try:
        return copy.deepcopy((model, loss))
    except Exception:  # of somebody else's code any
        return None
