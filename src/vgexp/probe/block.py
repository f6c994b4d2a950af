"""Collects the measured cells of steps, and makes rows of `layers.csv` of them.

Axes: S steps of one layout, C cells of a column in the order of its rows, R rows of a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgexp.probe.moments import ColumnCells
from vgexp.probe.plan import PlanRow
from vgexp.probe.weights import UPDATE_NORM
from vgexp.quantities import LAYERS
from vgexp.records import Floats, Rows

ROWS_TOGETHER = 2**14
"""The most rows of a block, so that making rows needs no more memory in a deeper net."""
STEPS_TOGETHER = 64
"""The most steps of a block."""

_SCALES_WITH = {UPDATE_NORM: "nothing", **{column.name: column.scales_with for column in LAYERS}}
OWN = "own "
"""What the names of cells begin with that the user's own functions measure: nothing is divided out
of these."""
_SLOPES = ("saturated_fraction", "dead_fraction")
_Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Labels:
    """The names, layers and kinds of the rows of a step, in forward order."""

    order: list[int]
    """Indices of the wanted rows."""
    layers: list[int | None]
    names: list[str]
    kinds: list[str]
    after: list[int | None]
    """For each wanted row, the next layer's row on the main path, which is its first."""


def labels_of(rows: Sequence[PlanRow]) -> Labels:
    """Makes the labels of rows from their present numbers."""
    every = sorted(
        range(len(rows)),
        key=lambda i: (rows[i].layer is None, rows[i].layer or 0, rows[i].rank, i),
    )
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


class StepCells(NamedTuple):
    """The cells of one step, still on the device."""

    step: int
    cells: Mapping[str, ColumnCells]
    examples: float
    """N, over several ranks the mean of theirs: the factor of `delta_rms`."""
    loss_scale: Tensor | float
    """The factor by which dL/dz is too large."""
    gradient_scale: Tensor | float
    """The factor by which the gradients are too large."""


class _CellRange(NamedTuple):
    """The place of a column's cells: entries `start` to `end` of a step's row of an array."""

    rows: tuple[int, ...]
    missing: frozenset[int]
    dtype: torch.dtype
    start: int
    end: int


class StepBlock:
    """Consecutive steps of one layout, which have the same columns of the same rows.

    Their cells are copied into one array for each dtype, on their device. So to add a step never
    waits for the device, and of a step no small tensors remain: they would lie between the large
    tensors of the next step, and keep the memory there from being used again.
    """

    def __init__(self, labels: Labels, first: StepCells) -> None:
        self._labels = labels
        self._steps: list[StepCells] = []
        self._most = max(1, min(STEPS_TOGETHER, ROWS_TOGETHER // max(1, len(labels.order))))
        self._pieces = _pieces(first.cells)
        self._columns: dict[str, _CellRange] = {}
        self._arrays_SC: dict[torch.dtype, Tensor] = {}
        self._lay_out(first.cells)
        self.add(first)

    def takes(self, labels: Labels, added: StepCells) -> bool:
        """Whether a step has this layout, and the block has room for it."""
        if labels is not self._labels or len(self._steps) == self._most:
            return False
        cells, columns = added.cells, self._columns
        return _pieces(cells) == self._pieces and all(
            (one.rows, one.missing) == columns[name][:2]
            for name, one in cells.items()
            if one.values
        )

    def add(self, added: StepCells) -> None:
        """Adds a step that `takes` accepts."""
        pieces: dict[torch.dtype, list[Tensor]] = {dtype: [] for dtype in self._arrays_SC}
        for name, column in self._columns.items():
            pieces[column.dtype] += added.cells[name].values
        for dtype, array_SC in self._arrays_SC.items():
            torch.cat(pieces[dtype], out=array_SC[len(self._steps)])
        self._steps.append(added._replace(cells={}))

    def close(self) -> None:
        """Frees the memory of steps that will not come."""
        if len(self._steps) < self._most:
            for dtype, array_SC in self._arrays_SC.items():
                self._arrays_SC[dtype] = array_SC[: len(self._steps)].clone()

    def rows(self) -> Rows:
        """Makes the rows, by step and in forward order; waits for the device."""
        return _Host(self._labels, self._steps, self._columns, self._host_arrays()).rows()

    def _lay_out(self, cells: Mapping[str, ColumnCells]) -> None:
        ends: dict[torch.dtype, int] = {}
        for name, one in cells.items():
            if one.values:
                dtype = max((x.dtype for x in one.values), key=lambda d: d.itemsize)
                start = ends.get(dtype, 0)
                ends[dtype] = start + len(one.rows)
                self._columns[name] = _CellRange(one.rows, one.missing, dtype, start, ends[dtype])
        device = next((x.device for one in cells.values() for x in one.values), None)
        for dtype, end in ends.items():
            self._arrays_SC[dtype] = torch.empty(self._most, end, dtype=dtype, device=device)

    def _host_arrays(self) -> dict[torch.dtype, NDArray[Any]]:
        return {d: x[: len(self._steps)].cpu().numpy() for d, x in self._arrays_SC.items()}


def _pieces(cells: Mapping[str, ColumnCells]) -> list[tuple[str, int, frozenset[torch.dtype]]]:
    """The name, the number of pieces and the dtypes of each measured column."""
    return [
        (name, len(one.values), frozenset(map(_dtype, one.values)))
        for name, one in cells.items()
        if one.values
    ]


_dtype = attrgetter("dtype")


class _Host:
    """The cells of a block as arrays on the host, one a column."""

    def __init__(
        self,
        labels: Labels,
        steps: Sequence[StepCells],
        columns: Mapping[str, _CellRange],
        arrays_SC: Mapping[torch.dtype, NDArray[Any]],
    ) -> None:
        self._labels, self._steps, self._columns = labels, steps, columns
        self._host_SC = {
            name: arrays_SC[column.dtype][:, column.start : column.end]
            for name, column in columns.items()
        }

    def rows(self) -> Rows:
        num_steps, labels = len(self._steps), self._labels
        columns: dict[str, Sequence[Any]] = {
            "step": [step.step for step in self._steps for _ in labels.order],
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
        declared = [column.name for column in LAYERS]
        columns |= {name: measured[name] for name in declared if name in measured}
        own = [name for name in measured if name.startswith(OWN)]
        columns |= {name.removeprefix(OWN): measured[name] for name in own}
        return Rows("layers", columns)

    def _unscale(self) -> None:
        """Multiplies what scales with dL/dz by N, and divides by the scales of loss and gradient.

        A scale that fell to 0 makes inf of a value.
        """
        steps = self._steps
        examples_S = np.array([step.examples for step in steps])
        loss_scale_S = np.array([float(step.loss_scale) for step in steps])
        gradient_scale_S = np.array([float(step.gradient_scale) for step in steps])
        factors_S: Mapping[str | None, NDArray[np.float64]] = {
            "delta": examples_S / loss_scale_S,
            "gradient": 1 / gradient_scale_S,
            "nothing": np.ones(len(steps)),
        }
        for name, values_SC in self._host_SC.items():
            factor_S = factors_S["nothing" if name.startswith(OWN) else _SCALES_WITH[name]]
            if (factor_S != 1).any():
                self._host_SC[name] = _times(values_SC, factor_S)

    def _column(self, name: str, order: Sequence[int | None]) -> Floats:
        """The cells of some rows in every step; empty where a row was not measured."""
        rows, missing = self._columns[name][:2]
        host_SC = self._host_SC[name]
        if not missing and rows == tuple(order):
            return Floats(host_SC.ravel())
        place: dict[int | None, int]
        place = {row: index for index, row in enumerate(rows) if row not in missing}
        index_R: _Indices = np.array([place.get(row, -1) for row in order], dtype=np.intp)
        present = np.tile(index_R >= 0, len(self._steps))
        return Floats(host_SC[:, index_R].ravel(), present)


def _times(values_SC: NDArray[Any], factor_S: Sequence[float] | NDArray[Any]) -> NDArray[Any]:
    """Multiplies in float64, and rounds once."""
    product: NDArray[Any] = values_SC * np.array(factor_S)[:, None]
    return product.astype(values_SC.dtype)


def _is_present(column: Floats) -> NDArray[np.bool_]:
    if column.present is None:
        return np.ones(len(column), dtype=np.bool_)
    return column.present


def _leave_out_unbounded(measured: dict[str, Floats]) -> None:
    """Removes saturated shares of unbounded activations, which are nan.

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
    """The change over the norm where there is a gradient; not defined for a weight of norm 0."""
    change, norm = measured[UPDATE_NORM], measured["weight_norm"]
    if "grad_norm" not in measured:
        return Floats(change.values, np.zeros(len(change), dtype=np.bool_))
    present = _is_present(change) & _is_present(measured["grad_norm"]) & (norm.values != 0)
    return Floats(change.values / norm.values, present)


def _backward_gain(delta: Floats, after: Floats) -> Floats:
    """delta_rms over that of the next layer on the main path; empty where not defined."""
    present = _is_present(delta) & _is_present(after) & (after.values != 0)
    ratio = delta.values.astype(np.float64) / after.values.astype(np.float64)
    return Floats(ratio.astype(delta.values.dtype), present)
