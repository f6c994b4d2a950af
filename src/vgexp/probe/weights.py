"""The columns that need weights and gradients only, measured around one optimizer step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from vgexp import metrics
from vgexp.probe.moments import Cells
from vgexp.probe.plan import Row

Groups = list[tuple[tuple[int, ...], Tensor]]
"""(rows, [G, N]): tensors of one shape, stacked where they are small."""


class WeightMeter:
    """Measures one step: gradients before clipping, as the optimizer sees them, and the update."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._cells: dict[str, Cells] = {}
        self._seen: list[tuple[int, int, int]] = []
        self._before: Groups = []

    def before_clip(self) -> None:
        """Takes the gradient's columns now; without this call `before_step` takes them."""
        grads = self._gradients()
        if not grads:
            return
        groups = _groups({index: _values(grad) for index, grad in grads.items()})
        indices = _indices(groups)
        largest, zero = [], []
        for _, grad in groups:
            size = grad.abs()
            largest.append(size.amax(1))
            # In place: a comparison that makes booleans is twice as slow.
            zero.append(size.eq_(0).mean(1))
        self._cells["grad_norm"] = Cells(indices, metrics.group_norms([g for _, g in groups]))
        self._cells["grad_max"] = Cells(indices, torch.cat(largest))
        self._cells["grad_zero_fraction"] = Cells(indices, torch.cat(zero))
        self._seen = _versions(grads)

    def before_step(self) -> None:
        """Takes the gradient that the optimizer sees, weight norms, and copies of the weights."""
        if "grad_norm" not in self._cells:
            self.before_clip()
        grads = self._gradients()
        if _versions(grads) != self._seen:
            groups = _groups({index: _values(grad) for index, grad in grads.items()})
            clipped = Cells(_indices(groups), metrics.group_norms([g for _, g in groups]))
            self._cells["grad_norm_clipped"] = clipped
        elif grads:
            self._cells["grad_norm_clipped"] = self._cells["grad_norm"]
        weights = _groups({i: _values(row.weight.detach()) for i, row in enumerate(self._rows)})
        norm = metrics.group_norms([w for _, w in weights])
        self._cells["weight_norm"] = Cells(_indices(weights), norm)
        moving = [(rows, w) for rows, w in weights if not grads.keys().isdisjoint(rows)]
        self._before = [(rows, w.clone() if len(rows) == 1 else w) for rows, w in moving]

    def after_step(self) -> None:
        """Takes `update_ratio` of the weights that have a gradient."""
        if not self._before:
            return
        changes = []
        for rows, before in self._before:
            after = _stacked([_values(self._rows[i].weight.detach()) for i in rows])
            changes.append(torch.sub(before, after, out=before))
        change = Cells(_indices(self._before), metrics.group_norms(changes))
        self._before = []
        has_grad = self._cells["grad_norm"].rows
        reference = _picked(self._cells["weight_norm"], has_grad)
        ratio = _picked(change, has_grad) / reference
        self._cells["update_ratio"] = Cells(has_grad, ratio)

    def cells(self) -> dict[str, Cells]:
        """Column -> what was measured."""
        return self._cells

    def _gradients(self) -> dict[int, Tensor]:
        return {
            index: row.weight.grad
            for index, row in enumerate(self._rows)
            if row.weight.grad is not None and row.weight.requires_grad
        }


def _versions(grads: dict[int, Tensor]) -> list[tuple[int, int, int]]:
    """What tells whether gradients were changed: clipping does it in place or replaces them."""
    return [(index, id(grad), grad._version) for index, grad in grads.items()]


def _picked(cells: Cells, rows: tuple[int, ...]) -> Tensor:
    """The values of `rows`, in that order."""
    if cells.rows == rows:
        return cells.values
    place = {row: position for position, row in enumerate(cells.rows)}
    return torch.stack([cells.values[place[row]] for row in rows])


def _values(x: Tensor) -> Tensor:
    """Dense values, real, in a dtype that norms are taken in."""
    if x.is_sparse:
        x = x.to_dense()
    if x.is_complex():
        x = torch.view_as_real(x)
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _groups(tensors: dict[int, Tensor]) -> Groups:
    by_kind: dict[object, list[int]] = defaultdict(list)
    for index, x in tensors.items():
        alone = index if x.numel() > metrics.SMALL_TENSOR else None
        by_kind[(x.shape, x.dtype, x.device, alone)].append(index)
    return [(tuple(rows), _stacked([tensors[i] for i in rows])) for rows in by_kind.values()]


def _stacked(tensors: list[Tensor]) -> Tensor:
    """[G, N] of G equal shapes; a view for one tensor."""
    if len(tensors) == 1:
        return tensors[0].reshape(1, -1)
    return torch.stack(tensors).flatten(1)


def _indices(groups: Groups) -> tuple[int, ...]:
    return tuple(i for rows, _ in groups for i in rows)
