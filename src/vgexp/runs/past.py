"""A run that was made: its folder, read when asked."""

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


@dataclass(frozen=True)
class Run:
    """A run folder, read when asked: tables as DataFrames, summary, configuration."""

    folder: Path

    @cached_property
    def layers(self) -> pd.DataFrame:
        """`layers.csv`: a row a weight and measured step."""
        return self.table("layers")

    @cached_property
    def steps(self) -> pd.DataFrame:
        """`steps.csv`: a row an optimizer step."""
        return self.table("steps")

    @cached_property
    def evals(self) -> pd.DataFrame:
        """`evals.csv`: a row an evaluation of a split."""
        return self.table("evals")

    @cached_property
    def histograms(self) -> pd.DataFrame:
        """`histograms.csv`: a row a bin of z or h that has entries, of a weight and step."""
        return self.table("histograms")

    @cached_property
    def time(self) -> pd.DataFrame:
        """`time.csv`: a row a recurrent state and watched time; only of recurrent models."""
        return self.table("time")

    @cached_property
    def recurrence(self) -> pd.DataFrame:
        """`recurrence.csv`: a row a recurrent matrix; only of recurrent models."""
        return self.table("recurrence")

    @cached_property
    def attention(self) -> pd.DataFrame:
        """`attention.csv`: a row a head and measured step, of a model that attends."""
        return self.table("attention")

    @cached_property
    def curvature(self) -> pd.DataFrame:
        """`curvature.csv`: a row a measured Hessian, where `probe.curvature_every` asks for it."""
        return self.table("curvature")

    @cached_property
    def jacobian(self) -> pd.DataFrame:
        """`jacobian.csv` of `vgexp signal`: singular values by layer (`signal.jacobian`)."""
        return self.table("jacobian")

    @cached_property
    def paths(self) -> pd.DataFrame:
        """`paths.csv` of `vgexp signal`: the gradient by length of path (`signal.paths`)."""
        return self.table("paths")

    @cached_property
    def shattering(self) -> pd.DataFrame:
        """`shattering.csv` of `vgexp signal`: gradients at nearby inputs (`signal.shattering`)."""
        return self.table("shattering")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """`summary.json`."""
        from vgexp import tables

        return tables.read_summary(self.folder)

    @cached_property
    def config(self) -> Config:
        """The resolved configuration, which `vgexp.run` takes again."""
        from vgexp import tables

        return tables.read_config(self.folder)

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
        """The table `<name>.csv`, read anew.

        Raises:
            QuestionError: the run has no such table.
        """
        from vgexp import tables

        return tables.read(self.folder, name)


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
