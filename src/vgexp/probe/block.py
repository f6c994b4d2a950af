"""The measured cells of one step, and the rows of `layers.csv` that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgexp.probe.moments import Cells
from vgexp.probe.plan import Row
from vgexp.probe.weights import UPDATE_NORM
from vgexp.records import ACTIVATION_COLUMNS, WEIGHT_COLUMNS, Rows

Floats = NDArray[Any]
_GRADIENTS = {"grad_norm", "grad_max", "grad_norm_clipped"}


@dataclass(frozen=True)
class Labels:
    """What names the rows of a step, in forward order."""

    order: list[int]
    """Indices of the wanted rows."""
    layers: list[int | None]
    names: list[str]
    kinds: list[str]
    main: dict[int, int]
    """Layer -> row of its main-path weight, the first of its number."""


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
    return Labels(
        order, [r.layer for r in wanted], [r.name for r in wanted], [r.kind for r in wanted], main
    )


@dataclass(frozen=True)
class Block:
    """Cells still on the device, so that making a block never waits for it."""

    step: int
    labels: Labels
    cells: Mapping[str, Cells]
    examples: int
    """N: the factor of `delta_rms`."""
    loss_scale: Tensor | float
    """What dL/dz is too large by."""
    gradient_scale: Tensor | float
    """What the gradients are too large by."""

    def rows(self) -> Rows:
        """The block's rows in forward order; waits for the device."""
        labels, measured = self.labels, self._measured()
        columns: dict[str, Sequence[Any]] = {
            "step": [self.step] * len(labels.order),
            "layer": labels.layers,
            "name": labels.names,
            "kind": labels.kinds,
        }
        for column in (*WEIGHT_COLUMNS, *ACTIVATION_COLUMNS):
            if column in measured:
                columns[column] = _in_order(measured[column], labels.order)
        if "delta_rms" in columns:
            deltas = measured["delta_rms"]
            main = {layer: deltas.get(row) for layer, row in labels.main.items()}
            columns["backward_gain"] = _backward_gain(labels.layers, columns["delta_rms"], main)
        return Rows("layers", columns)

    def _measured(self) -> dict[str, dict[int, Any]]:
        """Column -> row -> its value, those that are not defined left out."""
        host = self._transferred()
        with np.errstate(all="ignore"):
            if "delta_rms" in host:
                delta = host["delta_rms"]
                host["delta_rms"] = (delta * self.examples / float(self.loss_scale)).astype(
                    delta.dtype
                )
            for name in _GRADIENTS & host.keys():
                values = host[name]
                host[name] = (values / float(self.gradient_scale)).astype(values.dtype)
        by_row = {}
        for name, values in host.items():
            rows, _, missing = self.cells[name]
            pairs = zip(rows, values, strict=True)
            by_row[name] = {row: v for row, v in pairs if row not in missing}
        if "saturated_fraction" in by_row:
            shares = by_row["saturated_fraction"]
            by_row["saturated_fraction"] = {r: v for r, v in shares.items() if v == v}
        if "preact_std" in host and not np.isfinite(host["preact_std"]).all():
            _mark_unknown_slopes(by_row)
        if UPDATE_NORM in by_row:
            by_row["update_ratio"] = self._update_ratio(by_row)
        return by_row

    def _update_ratio(self, by_row: Mapping[str, Mapping[int, Any]]) -> dict[int, Any]:
        """Change over norm where there is a gradient; not defined for a weight of norm 0."""
        norm, with_gradient = by_row["weight_norm"], by_row.get("grad_norm", {})
        with np.errstate(all="ignore"):
            return {
                row: change / norm[row]
                for row, change in by_row[UPDATE_NORM].items()
                if norm[row] != 0 and row in with_gradient
            }

    def _transferred(self) -> dict[str, Floats]:
        """Column -> values in the dtype they were measured in, by one copy a dtype."""
        pieces: dict[torch.dtype, list[Tensor]] = {}
        places: list[tuple[str, torch.dtype, int]] = []
        for name, cells in self.cells.items():
            if not cells.values:
                continue
            dtype = max((x.dtype for x in cells.values), key=lambda d: d.itemsize)
            pieces.setdefault(dtype, []).extend(cells.values)
            places.append((name, dtype, len(cells.rows)))
        joined = {dtype: torch.cat(each).cpu().numpy() for dtype, each in pieces.items()}
        start = dict.fromkeys(joined, 0)
        host = {}
        for name, dtype, length in places:
            host[name] = joined[dtype][start[dtype] : start[dtype] + length]
            start[dtype] += length
        return host


def _mark_unknown_slopes(by_row: dict[str, dict[int, Any]]) -> None:
    """Where z is not finite, phi' of it says nothing of saturated and dead units: nan."""
    for name in ("saturated_fraction", "dead_fraction"):
        shares = by_row.get(name, {})
        for row, std in by_row["preact_std"].items():
            if row in shares and not np.isfinite(std):
                shares[row] = std.dtype.type("nan")


def _in_order(values: Mapping[int, Any], order: list[int]) -> list[Any]:
    """The rows' values; None where there is none."""
    if list(values) == order:
        return list(values.values())
    return [values.get(row) for row in order]


def _backward_gain(
    layers: Sequence[int | None], delta: Sequence[Any], main: Mapping[int, Any]
) -> list[Any]:
    """delta_rms over that of the next layer on the main path; None where that is not defined."""
    gains: list[Any] = []
    for layer, value in zip(layers, delta, strict=True):
        after = None if layer is None else main.get(layer + 1)
        if value is None or after is None or after == 0:
            gains.append(None)
        else:
            gains.append(type(value)(float(value) / float(after)))
    return gains
