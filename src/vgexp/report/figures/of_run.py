"""Draws the figures of a run folder, and writes them beside its tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vgexp import files, folders
from vgexp.errors import QuestionError, unknown
from vgexp.past import PastRun
from vgexp.quantities import TABLES
from vgexp.report.figures import style
from vgexp.report.figures.catalogue import FIGURES, OVERVIEW, RunFigure
from vgexp.report.figures.overview import number, overview_of_run
from vgexp.report.figures.signature import sign

FOLDER = folders.FIGURES
FORMATS = ("png", "svg")
_OF_OVERVIEW = ("layers", "steps", "evals", "time", "attention")
_ON_OVERVIEW = ("gradient_map", "learning_curves")
"""Of which it needs one: the rest is beside them."""
_AT_START = "at_start"
"""What a page of `vgexp signal`'s tables is."""
_OVER_SEEDS: Mapping[str, str] = {
    "backward_signal": _AT_START,
    "forward_signal": _AT_START,
    "through_time": "time_at_start",
}
"""Figure of a training run -> the one that shows the same of a run of `vgexp signal`."""
_OF_TRAINING: Mapping[str, str] = {
    _AT_START: "backward_signal",
    "time_at_start": "through_time",
    "jacobian": "backward_signal",
}
"""The other way round."""


@style.apply_style()
def draw(folder: Path | str) -> list[Path]:
    """Writes every figure whose table is there and has something: `figures/<name>.png` and `.svg`.

    The overview is the last of them; a run of `vgexp signal` has none, its one figure is a page.
    Older ones are replaced. Those of tables that are no longer there are removed, those of tables
    that cannot be read stay; files of other names are left alone.

    Returns:
        The files, in the order of `FIGURES`, then those of the overview.

    Raises:
        QuestionError: tables that cannot be read, after all figures that could be drawn were; or
            `figures` is a link or a file, and nothing was drawn.
        OSError: files that cannot be written; likewise, and whatever else there was to be said.
    """
    source = _Source(Path(folder), FIGURES.values())
    files.require_folder(source.run.folder / FOLDER)
    written: list[Path] = []
    problems: dict[str, list[str]] = {}
    is_unwritten = False
    for name in (*FIGURES, OVERVIEW):
        paths = [source.run.folder / FOLDER / f"{name}.{kind}" for kind in FORMATS]
        try:
            if not source.has(name):
                _remove(paths)
                continue
            paths[0].parent.mkdir(exist_ok=True)
            figure = source.draw(name)
            written += [style.write(figure, path) for path in paths]
        except (style.UnwritableError, OSError) as error:
            is_unwritten = True
            words = f"cannot write into {source.run.folder / FOLDER}: {error.strerror}"
            problems.setdefault(words, []).append(name)
        except QuestionError as error:
            problems.setdefault(str(error), []).append(name)
    if problems:
        lines = [f"{words}\nnot drawn: {', '.join(names)}" for words, names in problems.items()]
        raise (OSError if is_unwritten else QuestionError)("\n".join(lines))
    return written


def run_figure(folder: Path | str, name: str | None = None) -> Figure:
    """Draws one figure of a run folder; without a name the overview, or `at_start`.

    Raises:
        QuestionError: no such figure, or the run has no table for it, or one that is damaged.
    """
    if name is None:
        source = _Source(Path(folder), FIGURES.values())
        return source.draw(_AT_START if source.is_over_seeds else OVERVIEW)
    if name == OVERVIEW:
        return _Source(Path(folder), FIGURES.values()).draw(OVERVIEW)
    if name not in FIGURES:
        raise unknown("figure", name, [*FIGURES, OVERVIEW])
    return _Source(Path(folder), [FIGURES[name]]).draw(name)


def draw_instead(folder: Path | str, name: str) -> tuple[str, Figure]:
    """Draws a figure of a run folder, or the one that shows the same of a run of another kind.

    Returns:
        The name of the figure that was drawn, and it.

    Raises:
        QuestionError: the run has no table for either, or one that is damaged.
    """
    source = _Source(Path(folder), FIGURES.values())
    instead = _OVER_SEEDS if source.is_over_seeds else _OF_TRAINING
    name = instead.get(name, name)
    if not source.has(name):
        raise QuestionError(f"this run has no numbers for {name}")
    return name, source.draw(name)


@style.apply_style()
def write_beside(folder: Path | str, name: str, figure: Figure) -> Path:
    """Writes a figure where `draw` writes it; returns the PNG.

    Raises:
        QuestionError: `figures` is a link or a file.
        OSError: it cannot be written.
    """
    place = Path(folder) / FOLDER
    files.require_folder(place)
    place.mkdir(exist_ok=True)
    picture, *_ = [style.write(figure, place / f"{name}.{kind}") for kind in FORMATS]
    return picture


class _Source:
    """A run folder's tables as figures need them, each read once and when it is asked for."""

    def __init__(self, folder: Path, wanted: Iterable[RunFigure]) -> None:
        # Damage to a summary or a configuration keeps nothing from being drawn.
        self.run = PastRun(folder, is_strict=False)
        self._columns: dict[str, list[str]] = {"steps": ["step", "loss_scale"]}
        for figure in wanted:
            for table, names in figure.columns.items():
                self._columns.setdefault(table, []).extend(names)
        self._frames: dict[str, pd.DataFrame] = {}

    def is_there(self, table: str) -> bool:
        """Whether a table is there and not empty, as after a run that was killed at its start."""
        path = self.run.folder / f"{table}.csv"
        # What is no regular file is refused where it is read.
        return self.run.has_table(table) and (not path.is_file() or path.lstat().st_size > 0)

    def table(self, table: str) -> pd.DataFrame:
        """Reads the columns of a table that figures show.

        Raises:
            QuestionError: it cannot be read.
        """
        if table not in self._frames:
            self._frames[table] = self.run.read_with_inf(table, self._columns[table])
        return self._frames[table]

    @cached_property
    def is_over_seeds(self) -> bool:
        """Whether the tables are those of `vgexp signal`."""
        return self.is_there("layers") and "seed" in self.run.columns("layers")

    def has(self, name: str) -> bool:
        """Whether the run has values that a figure shows."""
        if name == OVERVIEW:
            return not self.is_over_seeds and any(map(self.has, _ON_OVERVIEW))
        figure = FIGURES[name]
        if not self.is_there(figure.table) or figure.is_over_seeds != self.is_over_seeds:
            return False
        frame = self.table(figure.table)
        return any(frame[name].notna().any() for name in figure.measured)

    def draw(self, name: str) -> Figure:
        """Draws a figure, and names the run on it."""
        if name == OVERVIEW:
            there = {table: self.table(table) for table in _OF_OVERVIEW if self.is_there(table)}
            return sign(overview_of_run(there, self.run.summary, self.run.dtype), self.run)
        figure = FIGURES[name]
        frames = [
            self.table(table)
            if table == figure.table or self.is_there(table)
            else _empty(table, columns)
            for table, columns in figure.columns.items()
        ]
        facts = {name: _FACTS[name](self.run) for name in figure.facts}
        return sign(figure.make(*frames, **facts), self.run)


_FACTS: Mapping[str, Callable[[PastRun], Any]] = {
    "dtype": lambda run: run.dtype,
    "loss_scale": lambda run: run.loss_scales,
    "constant_loss": lambda run: number(run.summary.get("constant_loss")),
}
"""What figures are told beside their tables -> how it is read of a run."""


def _empty(table: str, columns: Collection[str]) -> pd.DataFrame:
    kinds = {column.name: column.kind for column in TABLES[table]}
    types = {"int": "int64", "float": "float64", "text": "object"}
    return pd.DataFrame({name: pd.Series(dtype=types[kinds[name]]) for name in columns})


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(NotADirectoryError):  # a file has the folder's name: nothing to remove
            path.unlink(missing_ok=True)
