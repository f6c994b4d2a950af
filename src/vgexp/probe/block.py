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


@dataclass(frozen=True)
class Block:
    """Cells still on the device, so that making a block never waits for it."""

    step: int
    weights: Sequence[Row]
    cells: Mapping[str, Cells]
    examples: int
    """N: the factor of `delta_rms`."""
    loss_scale: Tensor | float

    def rows(self) -> Rows:
        """The block's rows in forward order; waits for the device."""
        wanted = [i for i, row in enumerate(self.weights) if row.is_wanted]
        order = sorted(wanted, key=self._position)
        measured = self._measured()
        layers = [self.weights[i].layer for i in order]
        columns: dict[str, Sequence[Any]] = {
            "step": [self.step] * len(order),
            "layer": layers,
            "name": [self.weights[i].name for i in order],
            "kind": [self.weights[i].kind for i in order],
        }
        for column in (*WEIGHT_COLUMNS, *ACTIVATION_COLUMNS):
            if column in measured:
                columns[column] = _with_empty(measured[column], order)
        if "delta_rms" in columns:
            after = self._main_deltas(measured["delta_rms"])
            columns["backward_gain"] = _backward_gain(layers, columns["delta_rms"], after)
        return Rows("layers", columns)

    def _position(self, row: int) -> tuple[bool, int, int]:
        layer = self.weights[row].layer
        return layer is None, layer or 0, row

    def _main_deltas(self, delta: Mapping[int, Any]) -> dict[int, Any]:
        """Layer -> delta_rms of its main-path weight, the first of its number."""
        main: dict[int, Any] = {}
        for row in sorted(range(len(self.weights)), key=self._position):
            layer = self.weights[row].layer
            if layer is not None:
                main.setdefault(layer, delta.get(row))
        return main

    def _measured(self) -> dict[str, dict[int, Any]]:
        """Column -> row -> its value, those that are not defined left out."""
        host = self._transferred()
        with np.errstate(all="ignore"):
            if "delta_rms" in host:
                delta = host["delta_rms"]
                host["delta_rms"] = (delta * self.examples / float(self.loss_scale)).astype(
                    delta.dtype
                )
        by_row = {}
        for name, values in host.items():
            rows, _, missing = self.cells[name]
            pairs = zip(rows, values, strict=True)
            by_row[name] = {row: v for row, v in pairs if row not in missing}
        if "saturated_fraction" in by_row:
            shares = by_row["saturated_fraction"]
            by_row["saturated_fraction"] = {r: v for r, v in shares.items() if v == v}
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


def _with_empty(values: Mapping[int, Any], order: Sequence[int]) -> list[Any]:
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
