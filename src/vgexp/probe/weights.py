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
    """Measures steps: gradients before clipping, as the optimizer sees them, and the update.

    Its methods are called without gradients being recorded.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._weights = {
            index: row.weight
            for index, row in enumerate(rows)
            if row.is_wanted and row.weight is not None
        }
        self._groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        self._cells: dict[str, Cells] = {}
        self._before: Stacks = []
        self._scratch: Tensor | None = None

    def before_clip(self) -> None:
        """Takes the gradient's columns now; without this call `take_gradients` takes them."""
        groups = self._gradients()
        rows = _rows(groups)
        norms = _norms(groups)
        largest, zero = [], []
        for members, grad in groups:
            size = self._size(grad) if len(members) == 1 else grad.abs_()
            largest.append(size.amax(1))
            # In place: a comparison that makes booleans is twice as slow.
            zero.append(size.eq_(0).mean(1))
        self._cells["grad_norm"] = norms
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
        weights = self._stacks(self._weights)
        self._cells["weight_norm"] = _norms(weights)
        self._before = [
            (rows, w.clone() if len(rows) == 1 else w)
            for rows, w in weights
            if any(self._weights[i].requires_grad for i in rows)
        ]

    def after_step(self) -> None:
        """Takes the norm of the change of the weights that may move."""
        changes: Stacks = []
        for rows, before in self._before:
            after = _stacked([self._weights[i] for i in rows])
            changes.append((rows, torch.sub(before, after, out=before)))
        self._before = []
        if changes:
            self._cells[UPDATE_NORM] = _norms(changes)

    def collect(self) -> dict[str, Cells]:
        """Ends a step: column -> what was measured."""
        cells, self._cells, self._before = self._cells, {}, []
        return cells

    def _gradients(self) -> Stacks:
        grads = {}
        for index, weight in self._weights.items():
            if weight.requires_grad and (grad := weight.grad) is not None:
                grads[index] = grad
        return self._stacks(grads)

    def _size(self, grad: Tensor) -> Tensor:
        """|g| of a gradient that is not ours: in memory that the one before was in, if it fits."""
        if self._scratch is None or not _fits(grad, self._scratch):
            self._scratch = torch.empty_like(grad)
        return torch.abs(grad, out=self._scratch[:, : grad.shape[1]])

    def _stacks(self, tensors: Mapping[int, Tensor]) -> Stacks:
        present = tuple(tensors)
        groups = self._groups.get(present)
        if groups is None:
            groups = self._groups[present] = _groups(tensors)
        return [(rows, _stacked([tensors[i] for i in rows])) for rows in groups]


def _groups(tensors: Mapping[int, Tensor]) -> list[tuple[int, ...]]:
    """Rows whose tensors go into one stack: equal in kind, and not too large."""
    groups: list[list[int]] = []
    open_groups: dict[object, list[int]] = {}
    for index, x in tensors.items():
        kind = (x.shape, x.dtype, x.device)
        alone = x.is_cpu and x.numel() > metrics.SMALL_TENSOR
        group = open_groups.get(kind)
        if group is None or alone or len(group) >= stacks.most_together(x):
            open_groups[kind] = group = []
            groups.append(group)
        group.append(index)
    return [tuple(rows) for rows in groups]


def _stacked(tensors: list[Tensor]) -> Tensor:
    """[G, N] of G equal shapes, dense, real, in a dtype that norms are taken in.

    A view for one tensor of such a kind.
    """
    dense = [x if x.layout is torch.strided else x.to_dense() for x in tensors]
    stacked = dense[0].unsqueeze(0) if len(dense) == 1 else torch.stack(dense)
    if stacked.dtype is not torch.float32 and stacked.dtype is not torch.float64:
        stacked = torch.view_as_real(stacked) if stacked.is_complex() else stacked.float()
    return stacked.flatten(1)


def _fits(x_1N: Tensor, scratch: Tensor) -> bool:
    alike = (x_1N.dtype, x_1N.device) == (scratch.dtype, scratch.device)
    return alike and x_1N.shape[1] <= scratch.shape[1]


def _rows(groups: Stacks) -> tuple[int, ...]:
    return tuple([row for rows, _ in groups for row in rows])


def _norms(groups: Stacks) -> Cells:
    return Cells(_rows(groups), tuple([metrics.row_norms(x) for _, x in groups]))
