"""The columns that need weights and gradients only, measured around one optimizer step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vgexp import metrics
from vgexp.probe import stacks
from vgexp.probe.moments import Cells
from vgexp.probe.plan import Row

Stacks = list[tuple[tuple[int, ...], Tensor]]
"""(rows, [G, N]): tensors of one shape, stacked where they are small."""


UPDATE_NORM = "update_norm"
"""Norm of W's change; `update_ratio` is this over `weight_norm`."""


class WeightMeter:
    """Measures steps: gradients before clipping, as the optimizer sees them, and the update."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        self._cells: dict[str, Cells] = {}
        self._before: Stacks = []

    def before_clip(self) -> None:
        """Takes the gradient's columns now; without this call `take_gradients` takes them."""
        groups = self._gradients()
        rows = _rows(groups)
        largest, zero = [], []
        for _, grad in groups:
            size = grad.abs()
            largest.append(size.amax(1))
            # In place: a comparison that makes booleans is twice as slow.
            zero.append(size.eq_(0).mean(1))
        self._cells["grad_norm"] = _norms(groups)
        self._cells["grad_max"] = Cells(rows, tuple(largest))
        self._cells["grad_zero_fraction"] = Cells(rows, tuple(zero))

    def take_gradients(self) -> None:
        """Takes the gradient that the optimizer sees, and what `before_clip` did not take."""
        if "grad_norm" in self._cells:
            self._cells["grad_norm_clipped"] = _norms(self._gradients())
        else:
            self.before_clip()
            self._cells["grad_norm_clipped"] = self._cells["grad_norm"]

    def copy_weights(self) -> None:
        """Takes weight norms, and copies of the weights that may move."""
        weights = self._stacks({i: row.weight for i, row in enumerate(self._rows) if row.is_wanted})
        self._cells["weight_norm"] = _norms(weights)
        self._before = [
            (rows, w.clone() if len(rows) == 1 else w)
            for rows, w in weights
            if any(self._rows[i].weight.requires_grad for i in rows)
        ]

    def after_step(self) -> None:
        """Takes the norm of the change of the weights that may move."""
        changes: Stacks = []
        for rows, before in self._before:
            after = _stacked([_values(self._rows[i].weight.detach()) for i in rows])
            changes.append((rows, torch.sub(before, after, out=before)))
        self._before = []
        if changes:
            self._cells[UPDATE_NORM] = _norms(changes)

    def collect(self) -> dict[str, Cells]:
        """Ends a step: column -> what was measured."""
        cells, self._cells, self._before = self._cells, {}, []
        return cells

    def _gradients(self) -> Stacks:
        return self._stacks(
            {
                index: row.weight.grad
                for index, row in enumerate(self._rows)
                if row.is_wanted and row.weight.requires_grad and row.weight.grad is not None
            }
        )

    def _stacks(self, tensors: dict[int, Tensor]) -> Stacks:
        present = tuple(tensors)
        if present not in self._groups:
            self._groups[present] = _groups(tensors)
        return [
            (rows, _stacked([_values(tensors[i].detach()) for i in rows]))
            for rows in self._groups[present]
        ]


def _values(x: Tensor) -> Tensor:
    """Dense values, real, in a dtype that norms are taken in."""
    if x.layout is not torch.strided:
        x = x.to_dense()
    if x.dtype is torch.float32 or x.dtype is torch.float64:
        return x
    return torch.view_as_real(x) if x.is_complex() else x.float()


def _groups(tensors: Mapping[int, Tensor]) -> list[tuple[int, ...]]:
    """Rows whose tensors go into one stack: equal in kind, and not too large."""
    kinds = (((x.shape, x.dtype, x.device), _most(x), index) for index, x in tensors.items())
    return [tuple(rows) for rows in stacks.grouped(kinds)]


def _most(x: Tensor) -> int:
    return 1 if x.is_cpu and x.numel() > metrics.SMALL_TENSOR else stacks.most_together(x)


def _stacked(tensors: list[Tensor]) -> Tensor:
    """[G, N] of G equal shapes; a view for one tensor."""
    if len(tensors) == 1:
        return tensors[0].reshape(1, -1)
    return torch.stack(tensors).flatten(1)


def _rows(groups: Stacks) -> tuple[int, ...]:
    return tuple([row for rows, _ in groups for row in rows])


def _norms(groups: Stacks) -> Cells:
    return Cells(_rows(groups), tuple([metrics.row_norms(x) for _, x in groups]))
