"""What a run left on disk, read a few columns at a time; what cannot be read is noted."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from vgexp import files, folders, resuming, tables
from vgexp.config import Config
from vgexp.diagnosis.signal import SMALLEST_NORMAL, loss_scales
from vgexp.errors import QuestionError, unknown
from vgexp.quantities import LAYERS, absence
from vgexp.report.comparing.past_layers import shortfall
from vgexp.report.grid import HAS_VALUE, LARGEST_ENTRY, Grid, grid_of
from vgexp.tables import ABSENT

UNFINISHED = "unfinished"
RUNNING = "running"
_KEYS = ("step", "layer", "kind")


class Recorded:
    """A run folder. Whatever of it is missing or damaged is left out, and said in `notes`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The summary; `{"status": ...}` of a run that has none."""
        if files.exists(self.folder / folders.SUMMARY):
            try:
                return tables.read_summary(self.folder)
            except QuestionError as error:
                self._note(error)
        status = RUNNING if folders.is_occupied(self.folder) else UNFINISHED
        return {"status": status, **self._ending}

    @cached_property
    def config(self) -> Config | None:
        """The configuration, where there is one that can be read."""
        if not files.exists(self.folder / folders.CONFIG):
            return None
        try:
            return tables.read_config(self.folder)
        except QuestionError as error:
            self._note(error)
            return None

    @property
    def can_go_on(self) -> bool:
        """Whether it did not come to its end and can be resumed."""
        open_statuses = (UNFINISHED, resuming.FAILED, resuming.INTERRUPTED)
        try:
            folders.require_own(self.folder)
        except QuestionError:  # resuming it refuses as well
            return False
        return self.config is not None and self.summary.get("status") in open_statuses

    @property
    def dtype(self) -> str | None:
        """The network's, of the summary or the configuration; None: neither tells."""
        told = str(self.summary.get("dtype") or (self.config.dtype if self.config else ""))
        return told if told in SMALLEST_NORMAL else None

    def table(self, name: str, columns: Collection[str]) -> pd.DataFrame | None:
        """Some columns of a table; None where there is none, or none that can be read."""
        if not files.exists(self.folder / f"{name}.csv"):
            if name in ("layers", "steps"):
                self._note(f"{name}.csv is not there")
            return None
        try:
            frame = tables.read(self.folder, name, columns)
        except QuestionError as error:
            self._note(error)
            return None
        told = (shortfall(self.folder, name, self.summary), absence(name, frame.attrs[ABSENT]))
        for gap in filter(None, told):
            self._note(f"{name}.csv {gap}")
        return frame

    def layers(self, metrics: Collection[str]) -> dict[str, pd.DataFrame]:
        """Metric -> the rows of `layers.csv` with it, and `has_value`; the file is read once, and
        once more where values are missing. None of them where it cannot be read.

        Beside a gradient's norm stands its largest entry, which tells where it underflowed.
        """
        columns = {name for metric in metrics for name in _with(metric)}
        frame = self.table("layers", {*_KEYS, *columns})
        if frame is None:
            return {}
        frame["kind"] = frame["kind"].astype("category")
        doubtful = [metric for metric in metrics if frame[metric].isna().any()]
        empty = pd.DataFrame()
        if doubtful:
            empty = tables.empty_cells(self.folder, "layers", doubtful)
        return {
            metric: frame[[*_KEYS, *_with(metric)]].assign(
                **{HAS_VALUE: ~empty[metric] if metric in doubtful else True}
            )
            for metric in metrics
        }

    def num_without_layer(self, layers: pd.DataFrame) -> int:
        """Weights that no forward pass used, which have rows but no layer."""
        if not layers["layer"].isna().any():
            return 0
        names = self.table("layers", ["layer", "name"])
        return 0 if names is None else int(names.loc[names["layer"].isna(), "name"].nunique())

    @cached_property
    def steps(self) -> pd.DataFrame | None:
        """`steps.csv` as far as it is drawn."""
        return self.table("steps", ("step", "loss", "accuracy", "clipped", "skipped", "loss_scale"))

    def require_metric(self, metric: str) -> None:
        """Checks that a name is that of a column of numbers.

        Raises:
            QuestionError: it is not; with the nearest.
        """
        known = {column.name: column.kind for column in LAYERS}
        allowed = [name for name, kind in known.items() if kind == "float"]
        frame = None
        if metric not in known and files.exists(self.folder / "layers.csv"):
            further = set(tables.column_names(self.folder, "layers")) - known.keys()
            allowed += sorted(further)
            frame = tables.read(self.folder, "layers", [metric]) if metric in further else None
        if metric not in allowed:
            raise unknown("metric of layers.csv", metric, allowed)
        if frame is not None and not pd.api.types.is_numeric_dtype(frame[metric]):
            raise QuestionError(f"metric {metric} is a text\nallowed: a column of numbers")

    def grid(self, frame: pd.DataFrame, metric: str) -> Grid:
        """Of a frame of `layers`; where dtype or number of examples is not known, nothing of it
        underflows."""
        dtype, num_examples = self.dtype, 1
        if self.config is not None:
            num_examples = self.config.data.batch_size * self.config.train.accumulate
        elif metric == "delta_rms":
            dtype = None
        scales = None if self.steps is None else loss_scales(self.steps)
        return grid_of(frame, metric, dtype, scales, num_examples)

    @cached_property
    def _ending(self) -> dict[str, str]:
        """What a sweep's table tells of a job without a summary."""
        whole = self.folder.resolve()
        for above in list(whole.parents)[:3]:
            job = tables.sweep_jobs(above).get(whole.relative_to(above).as_posix())
            if job is not None:
                return dict(job.ending)
        return {}

    def _note(self, problem: QuestionError | str) -> None:
        text = "; ".join(str(problem).replace(f"{self.folder}/", "").splitlines())
        if text not in self.notes:
            self.notes.append(text)


def _with(metric: str) -> list[str]:
    return [metric, LARGEST_ENTRY] if metric == "grad_norm" else [metric]
