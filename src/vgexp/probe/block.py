"""The measured cells of one step, and the rows of `layers.csv` that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vgexp.probe.moments import Cells
from vgexp.probe.plan import Row
from vgexp.records import ACTIVATION_COLUMNS, WEIGHT_COLUMNS, Rows

_UNDEFINED_WHEN_NAN = ("saturated_fraction",)


@dataclass(frozen=True)
class Block:
    """Cells still on the device, so that making a block never waits for it."""

    step: int
    weights: Sequence[Row]
    cells: Mapping[str, Cells]

    def rows(self) -> Rows:
        """The block's rows in forward order; waits for the device."""
        order = sorted(range(len(self.weights)), key=self._position)
        place = {row: position for position, row in enumerate(order)}
        values = self._transferred()
        columns: dict[str, list[Any]] = {
            "step": [self.step] * len(order),
            "layer": [self.weights[i].layer for i in order],
            "name": [self.weights[i].name for i in order],
            "kind": [self.weights[i].kind for i in order],
        }
        for column in (*WEIGHT_COLUMNS, *ACTIVATION_COLUMNS):
            if column not in self.cells:
                continue
            column_values: list[Any] = [None] * len(order)
            for row, value in zip(self.cells[column].rows, values[column], strict=True):
                if not (column in _UNDEFINED_WHEN_NAN and value != value):
                    column_values[place[row]] = value
            columns[column] = column_values
        if "update_ratio" in columns:
            _clear_undefined(columns["update_ratio"], columns["weight_norm"])
        if "delta_rms" in columns:
            columns["backward_gain"] = _backward_gain(columns["layer"], columns["delta_rms"])
        return Rows("layers", columns)

    def _position(self, row: int) -> tuple[bool, int, int]:
        layer = self.weights[row].layer
        return layer is None, layer or 0, row

    def _transferred(self) -> dict[str, list[Any]]:
        """Column -> numpy scalars in the dtype they were measured in, by one copy a dtype."""
        host: dict[str, list[Any]] = {}
        for dtype in {cells.values.dtype for cells in self.cells.values()}:
            names = [n for n, cells in self.cells.items() if cells.values.dtype == dtype]
            joined = torch.cat([self.cells[n].values for n in names]).cpu().numpy()
            start = 0
            for name in names:
                end = start + len(self.cells[name].rows)
                host[name] = list(joined[start:end])
                start = end
        return host


def _clear_undefined(ratio: list[Any], weight_norm: Sequence[Any]) -> None:
    """A change relative to a weight of norm 0 is not defined."""
    for i, norm in enumerate(weight_norm):
        if norm is not None and norm == 0:
            ratio[i] = None


def _backward_gain(layers: Sequence[int | None], delta: Sequence[Any]) -> list[Any]:
    """delta_rms over that of the next main-path layer, whose weight is the first of its number."""
    main: dict[int, Any] = {}
    for layer, value in zip(layers, delta, strict=True):
        if layer is not None:
            main.setdefault(layer, value)
    gains: list[Any] = []
    for layer, value in zip(layers, delta, strict=True):
        below = None if layer is None else main.get(layer + 1)
        if value is None or below is None or below == 0:
            gains.append(None)
        else:
            gains.append(type(value)(float(value) / float(below)))
    return gains
