"""The columns that need weights and gradients only, measured around one optimizer step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from vgexp import metrics
from vgexp.probe.moments import Cells
from vgexp.probe.plan import Row


class WeightMeter:
    """Measures one step: gradients before clipping, as the optimizer sees them, and the update.

    Small tensors of one shape are reduced as one stack; large ones each on its own.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._cells: dict[str, Cells] = {}
        self._before: list[tuple[tuple[int, ...], Tensor]] = []

    def before_clip(self) -> None:
        """Takes the gradient's columns now; without this call `before_step` takes them."""
        groups = _groups(
            {i: g for i, row in enumerate(self._rows) if (g := _grad(row)) is not None}
        )
        norm, largest, zero = [], [], []
        for _, grad in groups:
            norm.append(metrics.row_norms(grad))
            largest.append(grad.abs().amax(1))
            zero.append(1 - torch.count_nonzero(grad, dim=1) / grad.shape[1])
        indices = tuple(i for group, _ in groups for i in group)
        if indices:
            dtype = norm[0].dtype
            self._cells["grad_norm"] = Cells(indices, torch.cat(norm))
            self._cells["grad_max"] = Cells(indices, torch.cat(largest))
            self._cells["grad_zero_fraction"] = Cells(indices, torch.cat(zero).to(dtype))

    def before_step(self) -> None:
        """Takes the gradient that the optimizer sees, weight norms, and copies of the weights."""
        if "grad_norm" in self._cells:
            groups = _groups(
                {i: g for i, row in enumerate(self._rows) if (g := _grad(row)) is not None}
            )
            indices = tuple(i for group, _ in groups for i in group)
            clipped = torch.cat([metrics.row_norms(grad) for _, grad in groups])
            self._cells["grad_norm_clipped"] = Cells(indices, clipped)
        else:
            self.before_clip()
            if "grad_norm" in self._cells:
                self._cells["grad_norm_clipped"] = self._cells["grad_norm"]
        weights = _groups({i: row.weight.detach() for i, row in enumerate(self._rows)}, copy=True)
        indices = tuple(i for group, _ in weights for i in group)
        norm = torch.cat([metrics.row_norms(weight) for _, weight in weights])
        self._cells["weight_norm"] = Cells(indices, norm)
        self._before = weights

    def after_step(self) -> None:
        """Takes `update_ratio` of the weights that have a gradient."""
        has_grad = set(self._cells["grad_norm"].rows) if "grad_norm" in self._cells else set()
        change: list[Tensor] = []
        indices: list[int] = []
        for group, before in self._before:
            if has_grad.isdisjoint(group):
                continue
            after = _flat([_values(self._rows[i].weight.detach()) for i in group])
            change.append(metrics.row_norms(torch.sub(after, before, out=before)))
            indices.extend(group)
        self._before = []
        if not indices:
            return
        weight_norm = self._cells["weight_norm"]
        at = {row: position for position, row in enumerate(weight_norm.rows)}
        reference = torch.stack([weight_norm.values[at[i]] for i in indices])
        ratio = torch.cat(change) / reference
        kept = [position for position, row in enumerate(indices) if row in has_grad]
        rows = tuple(indices[position] for position in kept)
        values = ratio if len(kept) == len(indices) else ratio[kept]
        self._cells["update_ratio"] = Cells(rows, values)

    def cells(self) -> dict[str, Cells]:
        """Column -> what was measured."""
        return self._cells


def _grad(row: Row) -> Tensor | None:
    grad = row.weight.grad
    return grad.detach() if grad is not None and row.weight.requires_grad else None


def _values(x: Tensor) -> Tensor:
    """Dense values, real, in a dtype that norms are taken in."""
    if x.is_sparse:
        x = x.to_dense()
    if x.is_complex():
        x = torch.view_as_real(x)
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _groups(
    tensors: dict[int, Tensor], *, copy: bool = False
) -> list[tuple[tuple[int, ...], Tensor]]:
    """(rows, [R, N] stack) for each group of equal shape; with `copy` never a view."""
    by_kind: dict[object, list[int]] = defaultdict(list)
    values = {index: _values(x) for index, x in tensors.items()}
    for index, x in values.items():
        alone = index if x.numel() > metrics.SMALL_TENSOR else None
        by_kind[(x.shape, x.dtype, x.device, alone)].append(index)
    groups = []
    for indices in by_kind.values():
        stack = _flat([values[i] for i in indices])
        groups.append((tuple(indices), stack.clone() if copy and len(indices) == 1 else stack))
    return groups


def _flat(tensors: list[Tensor]) -> Tensor:
    """[R, N] of R equal shapes; a view for one tensor."""
    if len(tensors) == 1:
        return tensors[0].reshape(1, -1)
    return torch.stack(tensors).flatten(1)
