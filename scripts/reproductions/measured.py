"""What reproductions read of their runs: jobs by what they were asked, means over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vgexp import tables
from vgexp.config import flatten


@dataclass(frozen=True)
class Measured:
    """A run on disk, its tables read when they are asked for."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Dotted key -> value."""
        return dict(flatten(tables.read_config(self.folder)))

    @cached_property
    def summary(self) -> dict[str, Any]:
        return dict(tables.read_summary(self.folder))

    @cached_property
    def layers(self) -> pd.DataFrame:
        return tables.read(self.folder, "layers")

    @cached_property
    def hidden(self) -> pd.DataFrame:
        """Rows of step 0 without the read-out."""
        rows = self.layers[self.layers["step"] == 0]
        return rows[rows["kind"] != "readout"]

    def table(self, name: str) -> pd.DataFrame:
        return tables.read(self.folder, name)


def runs_below(folder: Path) -> list[Measured]:
    """A run's or a sweep's, in the order of its jobs."""
    return [Measured(path) for path in tables.find_runs([folder])]


def where(runs: Iterable[Measured], **asked: Any) -> list[Measured]:
    """Those whose configuration has these values; `model__gain` stands for `model.gain`."""
    wanted = {key.replace("__", "."): value for key, value in asked.items()}
    return [run for run in runs if all(run.config[key] == wanted[key] for key in wanted)]


def chosen(run: Measured, group: str) -> str:
    """The name of a group's choice that the run's command gave."""
    overrides = tables.sweep_jobs(run.folder.parent)[run.folder.name].overrides
    return str(overrides[group])


def geometric_mean(values: Any) -> float:
    """Of the positive finite ones; nan where there is none."""
    numbers = np.asarray(values, dtype="float64")
    numbers = numbers[np.isfinite(numbers) & (numbers > 0)]
    return float(np.exp(np.log(numbers).mean())) if numbers.size else math.nan


def by_layer(rows: pd.DataFrame, column: str) -> pd.Series:
    """Geometric means over seeds, by layer."""
    return rows.groupby("layer")[column].apply(geometric_mean)


def factor(rows: pd.DataFrame, skipped: int = 0, column: str = "backward_gain") -> float:
    """Geometric mean over seeds and layers, without so many at each end."""
    last = int(rows["layer"].max())
    inner = rows[(rows["layer"] > skipped) & (rows["layer"] < last - skipped)]
    return geometric_mean(inner[column])


def span(values: Iterable[float], digits: int = 3) -> str:
    """`0.31 to 0.42`: the smallest and the largest, or the one there is."""
    numbers = sorted(float(value) for value in values)
    low, high = (f"{number:.{digits}g}" for number in (numbers[0], numbers[-1]))
    return low if low == high else f"{low} to {high}"


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the least-squares line of ln y on ln x: the power of x by which y grows."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
