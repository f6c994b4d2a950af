"""Calls of torch's fused cells, without oneDNN where oneDNN cannot make them.

On a CPU torch gives a fused LSTM in a half precision to oneDNN, which has it for some processors
only and raises on the others. torch's own implementation computes the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from vgexp.seeds import allocate


def call(cell: nn.Module, x_BSI: Tensor, hx: Any) -> Any:
    """What the cell returns, with whatever implementation of it works here."""
    with _no_onednn() if _is_refused(cell, x_BSI) else nullcontext():
        return cell(x_BSI, hx)


def _is_refused(cell: nn.Module, x: Tensor) -> bool:
    if not (isinstance(cell, nn.RNNBase) and x.is_cpu and torch.is_autocast_enabled("cpu")):
        return False
    kind: Callable[..., nn.RNNBase] = type(cell)
    return torch._C._get_mkldnn_enabled() and not _works(kind, torch.get_autocast_dtype("cpu"))


@cache
def _works(kind: Callable[..., nn.RNNBase], dtype: torch.dtype) -> bool:
    """Whether a cell of this kind can be called by autocast to a dtype: a tiny one is tried.

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
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)
