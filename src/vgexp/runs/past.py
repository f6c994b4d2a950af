"""A run that was made, as a user of Python has it: its folder, read when something is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgexp.config import Config
from vgexp.errors import QuestionError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from vgexp.diagnosis import Diagnosis
    from vgexp.past import PastRun


def _table(name: str) -> cached_property[pd.DataFrame]:
    """Makes the property that reads a table once and keeps it."""

    def read(run: Run) -> pd.DataFrame:
        return run.table(name)

    read.__doc__ = f"The table `{name}.csv`; `vgexp list metrics` says what a column means."
    return cached_property(read)


@dataclass(frozen=True)
class Run:
    """A run folder: its tables as DataFrames, its summary and its configuration.

    Each is read when it is first asked for, and then kept. A table that the run does not have is a
    `QuestionError`. There is an attribute for each of `quantities.TABLES`.
    """

    folder: Path

    layers = _table("layers")
    steps = _table("steps")
    evals = _table("evals")
    timing = _table("timing")
    loss = _table("loss")
    parameters = _table("parameters")
    wiring = _table("wiring")
    histograms = _table("histograms")
    time = _table("time")
    recurrence = _table("recurrence")
    attention = _table("attention")
    pretraining = _table("pretraining")
    curvature = _table("curvature")
    flight = _table("flight")
    jacobian = _table("jacobian")
    paths = _table("paths")
    shattering = _table("shattering")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What `summary.json` holds.

        Raises:
            QuestionError: it is missing or damaged.
        """
        return self._read().require_summary()

    @cached_property
    def config(self) -> Config:
        """The resolved configuration, which `vgexp.run` takes again.

        Raises:
            QuestionError: it is missing or damaged.
        """
        return self._read().require_config()

    def diagnose(self) -> Diagnosis:
        """Health, cause and findings, from all files of the run; as `vgexp.diagnose(run)`.

        Raises:
            QuestionError: it has neither metrics nor a table of layers, or a file is damaged.
        """
        from vgexp.past.diagnosing import diagnose_run

        return diagnose_run(self._read())

    def plot(self, name: str | None = None) -> Figure:
        """A figure of the run: its overview, or the one of a name (`vgexp list figures`).

        Raises:
            QuestionError: no such figure, or the run has no table that it is drawn from.
        """
        from vgexp.report import figures

        return figures.run_figure(self.folder, name)

    def _repr_html_(self) -> str:
        """What a notebook shows: verdict, words, metrics and the overview."""
        from vgexp.report import notebook

        return notebook.as_html(self.folder)

    def table(self, name: str) -> pd.DataFrame:
        """The table `<name>.csv`, read anew. NaN is both a value that is nan and an empty cell.

        Raises:
            QuestionError: the run has no such table.
        """
        return self._read().read(name)

    def is_measured(self, name: str = "layers") -> pd.DataFrame:
        """Says of each cell of `table(name)` whether it has a value, even if that is nan.

        Raises:
            QuestionError: the run has no such table.
        """
        return self._read().is_measured(name)

    def _read(self) -> PastRun:
        """A reader of the folder as it is now."""
        from vgexp.past import PastRun

        return PastRun(self.folder)


def load(folder: Path | str) -> Run:
    """The run in a folder.

    Raises:
        QuestionError: there is no run in it.
    """
    from vgexp import tables

    found = tables.find_runs([folder])
    if found != [Path(folder)]:
        raise QuestionError(
            f"{folder} is not a run folder but holds {len(found)}\nnearest: {found[0]}"
        )
    return Run(Path(folder))
