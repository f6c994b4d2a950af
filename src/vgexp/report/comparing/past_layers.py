"""A past run's `layers.csv`, a column at a time, and what is missing of its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from vgexp import files, tables
from vgexp.errors import QuestionError
from vgexp.quantities import READOUT, TABLES
from vgexp.report.grid import HAS_VALUE, path_of


class PastLayers:
    """The table as it is asked for: a metric's column alone, read once.

    A long run's whole table is hundreds of megabytes, of which a comparison shows a column.
    """

    def __init__(self, folder: Path, strict: bool) -> None:
        self._folder = folder
        self._strict = strict
        self._frames: dict[str, pd.DataFrame] = {}
        self._columns: list[str] | None = None
        self.problem: str | None = None
        """Why the table, which then is one without columns, cannot be read; None before it was.

        `strict`: that is an error instead.
        """
        self.absent: list[str] = []
        """Columns that were asked for and that the file, of an earlier version, does not have."""

    @property
    def exists(self) -> bool:
        """Whether there is such a file."""
        return files.exists(self._folder / "layers.csv")

    @property
    def columns(self) -> list[str]:
        """The columns; none where there is no such file."""
        if self._columns is None:
            self._columns = []
            if not self.exists:
                self.problem = "is not there"
                return []
            try:
                self._columns = tables.column_names(self._folder, "layers")
            except QuestionError as error:
                self._give_up(error)
        return self._columns

    def is_numeric(self, column: str) -> bool:
        """Whether a column holds nothing but numbers and empty cells."""
        kind = next((c.kind for c in TABLES["layers"] if c.name == column), None)
        if kind is not None:  # known without reading it
            return kind != "text" and column in self.columns
        frame = self._frame(column)
        return frame is not None and is_numeric_dtype(frame[column])

    def measured_steps(self, metric: str) -> list[int]:
        """Steps at which a column has a value, even if that is nan."""
        frame = self._frame(metric)
        if frame is None:
            return []
        return sorted(frame.loc[frame[HAS_VALUE], "step"].unique().tolist())

    def values(self, metric: str, step: int) -> dict[str, float | None]:
        """Layer -> value of a column at a step: main path, then `readout`; None where empty.

        Of a block what `path_of` makes of its weights.
        """
        frame = self._frame(metric)
        if frame is None:
            return {}
        path, _ = path_of(frame[frame["step"] == step], metric)
        ordered = path.sort_values("layer", kind="stable")
        found: dict[str, float | None] = {}
        for is_last in (False, True):
            rows = ordered[(ordered["kind"] == READOUT) == is_last]
            names = [READOUT] * len(rows) if is_last else map(str, rows["layer"])
            cells = zip(names, rows[metric].tolist(), rows[HAS_VALUE], strict=True)
            found |= {name: value if has_value else None for name, value, has_value in cells}
        return found

    def history(self, metric: str, end: int) -> pd.Series:
        """Step -> value of the first (`end` 0) or the last (-1) hidden layer with a row there, at
        the steps with a value."""
        frame = self._frame(metric)
        if frame is None:
            return pd.Series(dtype="float64")
        path, _ = path_of(frame, metric)
        ordered = path[path["kind"] != READOUT].sort_values(["step", "layer"], kind="stable")
        at_end = ordered.drop_duplicates("step", keep="last" if end else "first")
        return at_end[at_end[HAS_VALUE]].set_index("step")[metric]

    def _frame(self, metric: str) -> pd.DataFrame | None:
        """The rows with that column; None where it cannot be read."""
        if metric not in self.columns:
            is_known = any(column.name == metric for column in TABLES["layers"])
            if self.columns and is_known and metric not in self.absent:
                self.absent.append(metric)
            return None
        if metric not in self._frames:
            try:
                self._frames[metric] = self._read(metric)
            except QuestionError as error:
                self._give_up(error)
                return None
        return self._frames[metric]

    def _read(self, metric: str) -> pd.DataFrame:
        frame = tables.read(self._folder, "layers", ("step", "layer", "kind", metric))
        frame["kind"] = frame["kind"].astype("category")
        frame[HAS_VALUE] = True
        if frame[metric].isna().any():  # the file is read again: a nan is no empty cell
            frame[HAS_VALUE] = ~tables.empty_cells(self._folder, "layers", [metric])[metric]
        return frame

    def _give_up(self, error: QuestionError) -> None:
        if self._strict:
            raise error
        self._columns = []
        path = self._folder / "layers.csv"
        self.problem = _in_one_line(error, path)


def shortfall(
    folder: Path, table: str, summary: Mapping[str, Any], num_rows: int = 1
) -> str | None:
    """What is missing at the end of a table, in a few words; None where nothing is.

    Args:
        summary: only where it says that the run completed can it be told how long the table was.
        num_rows: of each step, at the least.
    """
    try:
        extent = tables.extent_of(folder, table)
    except QuestionError as error:
        return _in_one_line(error, folder / f"{table}.csv")
    if extent is None:
        return None
    parts = []
    steps = summary.get("steps") if summary.get("status") == "completed" else None
    if isinstance(steps, int) and steps > 0:
        num_rows = max(extent.num_first, num_rows)
        if extent.last_step is None:
            parts.append("has no row")
        elif extent.last_step < steps - 1:
            parts.append(f"ends at step {extent.last_step}, the run at step {steps - 1}")
        if extent.last_step is not None and extent.num_last < num_rows:
            parts.append(f"has {extent.num_last} of {num_rows} rows at step {extent.last_step}")
    if extent.is_torn:
        parts.append("ends within a line")
    return ", ".join(parts) or None


def _in_one_line(error: QuestionError, path: Path) -> str:
    """What is wrong with a file, without its name."""
    return "; ".join(str(error).replace(f"{path} ", "").splitlines())
