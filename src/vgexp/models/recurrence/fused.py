"""Calls of torch's fused cells, without oneDNN where oneDNN cannot compute them.

On a CPU torch gives a fused LSTM in a half precision to oneDNN, which has it for some processors
only and raises on the others. torch's own implementation computes the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from vgexp.seeds import allocate

_KINDS: tuple[type[nn.RNNBase], ...] = (nn.LSTM, nn.GRU, nn.RNN)


def call(cell: nn.Module, x_BSI: Tensor, hx: Any) -> Any:
    """Calls a cell with an implementation that works on this machine."""
    with _working(cell):
        return cell(x_BSI, hx)


def make_work(model: nn.Module) -> None:
    """Makes the fused cells of a user's model call an implementation that works on this machine."""
    for cell in model.modules():
        if isinstance(cell, nn.RNNBase):
            _surround(cell)


def _surround(cell: nn.RNNBase) -> None:
    entered: list[ExitStack] = []

    def enter(cell: nn.Module, _: Any) -> None:
        entered.append(ExitStack())
        entered[-1].enter_context(_working(cell))

    def leave(*_: Any) -> None:
        # A hook before ours may have raised.
        if entered:
            entered.pop().close()

    cell.register_forward_pre_hook(enter)
    cell.register_forward_hook(leave, always_call=True)


@contextmanager
def _working(cell: nn.Module) -> Iterator[None]:
    """Within, torch uses an implementation of the cell that works on this machine."""
    if not _is_refused(cell):
        yield
        return
    with _no_onednn():
        yield


def _kind(cell: nn.Module) -> Callable[..., nn.RNNBase] | None:
    """torch's own, of which the user's may be a special one that is made in another way."""
    return next((kind for kind in _KINDS if isinstance(cell, kind)), None)


def _is_refused(cell: nn.Module) -> bool:
    kind = _kind(cell)
    if kind is None or not torch.is_autocast_enabled("cpu"):
        return False
    return (
        next(cell.parameters()).is_cpu
        and bool(torch.backends.mkldnn.enabled)
        and not _works(kind, torch.get_autocast_dtype("cpu"))
    )


@cache
def _works(kind: Callable[..., nn.RNNBase], dtype: torch.dtype) -> bool:
    """Whether autocast to a dtype can call a cell of this kind; it tries a tiny one.

    Both passes are tried, since oneDNN may have the first without the second.
    """
    # An evaluation, which keeps no gradients, may be the first to ask.
    with torch.inference_mode(False), torch.device("cpu"):
        cell, x_BSI = allocate(kind(1, 1, device="meta")), torch.zeros(1, 1, 1)
        for parameter in cell.parameters():
            nn.init.zeros_(parameter)
        # Without its cache, which may hand a weight that was cast without gradients to the second.
        half = torch.autocast("cpu", dtype=dtype, cache_enabled=False)
        try:
            with torch.no_grad(), half:
                cell(x_BSI)
            with torch.enable_grad():
                with half:
                    outputs, _ = cell(x_BSI)
                torch.autograd.grad(outputs.sum(), list(cell.parameters()))
        except RuntimeError:
            return False
    return True


@contextmanager
def _no_onednn() -> Iterator[None]:
    # torch.backends.mkldnn.flags would set more than this, and warns of it where there is no XPU.
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before
