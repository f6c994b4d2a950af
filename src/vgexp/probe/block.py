"""The measured cells of steps, and the rows of `layers.csv` that they make.

Axes: S steps of one layout, C cells of a column in the order of its rows, R rows of a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgexp.probe.moments import Cells
from vgexp.probe.plan import Row
from vgexp.probe.weights import UPDATE_NORM
from vgexp.records import ACTIVATION_COLUMNS, WEIGHT_COLUMNS, Floats, Rows

ROWS_TOGETHER = 2**14
"""Rows that are made at a time, so that memory stays flat in depth."""

_GRADIENTS = ("grad_norm", "grad_max", "grad_norm_clipped")
_SLOPES = ("saturated_fraction", "dead_fraction")
_Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Labels:
    """What names the rows of a step, in forward order."""

    order: list[int]
    """Indices of the wanted rows."""
    layers: list[int | None]
    names: list[str]
    kinds: list[str]
    after: list[int | None]
    """For each wanted row, that of the next layer's main path, the first of its number."""


def labels_of(rows: Sequence[Row]) -> Labels:
    """The labels of rows as they are numbered now."""
    every = sorted(range(len(rows)), key=lambda i: (rows[i].layer is None, rows[i].layer or 0, i))
    main: dict[int, int] = {}
    for index in every:
        layer = rows[index].layer
        if layer is not None:
            main.setdefault(layer, index)
    order = [index for index in every if rows[index].is_wanted]
    wanted = [rows[index] for index in order]
    layers = [row.layer for row in wanted]
    after = [None if layer is None else main.get(layer + 1) for layer in layers]
    return Labels(order, layers, [r.name for r in wanted], [r.kind for r in wanted], after)


@dataclass(frozen=True)
class Block:
    """Cells of one step, still on the device, so that making a block never waits for it."""

    step: int
    labels: Labels
    cells: Mapping[str, Cells]
    examples: int
    """N: the factor of `delta_rms`."""
    loss_scale: Tensor | float
    """What dL/dz is too large by."""
    gradient_scale: Tensor | float
    """What the gradients are too large by."""

    def continues(self, other: Block) -> bool:
        """Whether the rows of both are made together: equal columns of equal rows."""
        if self.labels is not other.labels or self.cells.keys() != other.cells.keys():
            return False
        return all(
            (cells.rows, cells.missing, len(cells.values))
            == (earlier.rows, earlier.missing, len(earlier.values))
            for cells, earlier in zip(self.cells.values(), other.cells.values(), strict=True)
        )


def rows_of(blocks: Sequence[Block]) -> list[Rows]:
    """The blocks' rows, by step and in forward order; waits for the device."""
    return [_Steps(together).rows() for together in _runs(blocks)]


def _runs(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Consecutive blocks of one layout, no more than are to be in memory as rows."""
    run: list[Block] = []
    for block in blocks:
        is_full = (len(run) + 1) * len(block.labels.order) > ROWS_TOGETHER
        if run and (is_full or not block.continues(run[0])):
            yield run
            run = []
        run.append(block)
    if run:
        yield run


class _Steps:
    """S blocks of one layout as arrays."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._labels = blocks[0].labels
        self._cells = blocks[0].cells
        self._host_SC = _transferred(blocks)

    def rows(self) -> Rows:
        num_steps, labels = len(self._blocks), self._labels
        columns: dict[str, Sequence[Any]] = {
            "step": [block.step for block in self._blocks for _ in labels.order],
            "layer": labels.layers * num_steps,
            "name": labels.names * num_steps,
            "kind": labels.kinds * num_steps,
        }
        with np.errstate(all="ignore"):
            self._unscale()
            measured = {name: self._column(name, labels.order) for name in self._host_SC}
            _leave_out_unbounded(measured)
            if UPDATE_NORM in measured:
                measured["update_ratio"] = _update_ratio(measured)
            if "delta_rms" in measured:
                after = self._column("delta_rms", labels.after)
                measured["backward_gain"] = _backward_gain(measured["delta_rms"], after)
        for name in (*WEIGHT_COLUMNS, *ACTIVATION_COLUMNS):
            if name in measured:
                columns[name] = measured[name]
        return Rows("layers", columns)

    def _unscale(self) -> None:
        """Multiplies dL/dz by N, and divides by loss scales."""
        host = self._host_SC
        if "delta_rms" in host:
            # A scale that fell to 0 makes inf of this, as it does of a gradient.
            scale_S = np.array([float(block.loss_scale) for block in self._blocks])
            factor_S = np.array([block.examples for block in self._blocks]) / scale_S
            host["delta_rms"] = _times(host["delta_rms"], factor_S)
        gradient_S = [float(block.gradient_scale) for block in self._blocks]
        if any(scale != 1 for scale in gradient_S):
            for name in _GRADIENTS:
                if name in host:
                    host[name] = _times(host[name], [1 / scale for scale in gradient_S])

    def _column(self, name: str, order: Sequence[int | None]) -> Floats:
        """The cells of `order`'s rows in every step; empty where a row was not measured."""
        rows, _, missing = self._cells[name]
        host_SC = self._host_SC[name]
        if not missing and rows == tuple(order):
            return Floats(host_SC.ravel())
        place: dict[int | None, int]
        place = {row: index for index, row in enumerate(rows) if row not in missing}
        index_R: _Indices = np.array([place.get(row, -1) for row in order], dtype=np.intp)
        present = np.tile(index_R >= 0, len(self._blocks))
        return Floats(host_SC[:, index_R].ravel(), present)


def _transferred(blocks: Sequence[Block]) -> dict[str, NDArray[Any]]:
    """Column -> [S, C] in the dtype it was measured in, by one copy a dtype."""
    places: dict[torch.dtype, list[str]] = {}
    for name, cells in blocks[0].cells.items():
        if cells.values:
            dtype = max((x.dtype for x in cells.values), key=lambda d: d.itemsize)
            places.setdefault(dtype, []).append(name)
    host = {}
    for names in places.values():
        pieces = [x for block in blocks for name in names for x in block.cells[name].values]
        joined = torch.cat(pieces).cpu().numpy().reshape(len(blocks), -1)
        start = 0
        for name in names:
            end = start + len(blocks[0].cells[name].rows)
            host[name] = joined[:, start:end]
            start = end
    return host


def _times(values_SC: NDArray[Any], factor_S: Sequence[float] | NDArray[Any]) -> NDArray[Any]:
    """In float64, rounded once."""
    product: NDArray[Any] = values_SC * np.array(factor_S)[:, None]
    return product.astype(values_SC.dtype)


def _is_present(column: Floats) -> NDArray[np.bool_]:
    if column.present is None:
        return np.ones(len(column), dtype=np.bool_)
    return column.present


def _leave_out_unbounded(measured: dict[str, Floats]) -> None:
    """Empties saturated shares of unbounded activations, which are nan.

    Where z is not finite, phi' of it says nothing of saturated and dead units: nan.
    """
    if "saturated_fraction" in measured:
        shares = measured["saturated_fraction"]
        present = _is_present(shares) & ~np.isnan(shares.values)
        measured["saturated_fraction"] = Floats(shares.values, present)
    if "preact_std" not in measured:
        return
    std = measured["preact_std"]
    unknown = _is_present(std) & ~np.isfinite(std.values)
    if unknown.any():
        for name in _SLOPES:
            if name in measured:
                shares = measured[name]
                values = np.where(unknown, shares.values.dtype.type("nan"), shares.values)
                measured[name] = Floats(values, shares.present)


def _update_ratio(measured: Mapping[str, Floats]) -> Floats:
    """Change over norm where there is a gradient; not defined for a weight of norm 0."""
    change, norm = measured[UPDATE_NORM], measured["weight_norm"]
    if "grad_norm" not in measured:
        return Floats(change.values, np.zeros(len(change), dtype=np.bool_))
    present = _is_present(change) & _is_present(measured["grad_norm"]) & (norm.values != 0)
    return Floats(change.values / norm.values, present)


def _backward_gain(delta: Floats, after: Floats) -> Floats:
    """delta_rms over that of the next layer on the main path; empty where that is not defined."""
    present = _is_present(delta) & _is_present(after) & (after.values != 0)
    ratio = delta.values.astype(np.float64) / after.values.astype(np.float64)
    return Floats(ratio.astype(delta.values.dtype), present)
