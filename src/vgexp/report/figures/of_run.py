"""Figures of a run folder: what is there is read once, drawn, and written beside the tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas.api.types import is_float_dtype

from vgexp import files, folders, tables
from vgexp.diagnosis.signal import loss_scales
from vgexp.errors import QuestionError, unknown
from vgexp.quantities import TABLES
from vgexp.report.figures import style
from vgexp.report.figures.catalogue import FIGURES, OVERVIEW, RunFigure
from vgexp.report.figures.overview import known_dtype, number, overview
from vgexp.report.figures.signature import signature, signed

FOLDER = folders.FIGURES
FORMATS = ("png", "svg")
_OF_OVERVIEW = ("layers", "steps", "evals", "time", "attention")
_ON_OVERVIEW = ("gradient_map", "learning_curves")
"""Of which it needs one: the rest is beside them."""
_CHUNK_BYTES = 2**20
_AT_START = "at_start"
"""What a page of `vgexp signal`'s tables is."""


@style.styled()
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
    files.require_folder(source.folder / FOLDER)
    written: list[Path] = []
    problems: dict[str, list[str]] = {}
    is_unwritten = False
    for name in (*FIGURES, OVERVIEW):
        paths = [source.folder / FOLDER / f"{name}.{kind}" for kind in FORMATS]
        try:
            if not source.has(name):
                _remove(paths)
                continue
            paths[0].parent.mkdir(exist_ok=True)
            figure = source.drawn(name)
            written += [style.write(figure, path) for path in paths]
        except (style.UnwritableError, OSError) as error:
            is_unwritten = True
            words = f"cannot write into {source.folder / FOLDER}: {error.strerror}"
            problems.setdefault(words, []).append(name)
        except QuestionError as error:
            problems.setdefault(str(error), []).append(name)
    if problems:
        lines = [f"{words}\nnot drawn: {', '.join(names)}" for words, names in problems.items()]
        raise (OSError if is_unwritten else QuestionError)("\n".join(lines))
    return written


def run_figure(folder: Path | str, name: str | None = None) -> Figure:
    """One figure of a run folder; None: its page, which is the overview or `at_start`.

    Raises:
        QuestionError: no such figure, or the run has no table for it, or one that is damaged.
    """
    if name is None:
        source = _Source(Path(folder), FIGURES.values())
        return source.drawn(_AT_START if source.is_over_seeds else OVERVIEW)
    if name == OVERVIEW:
        return _Source(Path(folder), FIGURES.values()).drawn(OVERVIEW)
    if name not in FIGURES:
        raise unknown("figure", name, [*FIGURES, OVERVIEW])
    return _Source(Path(folder), [FIGURES[name]]).drawn(name)


def with_inf(folder: Path, table: str, columns: Collection[str]) -> pd.DataFrame:
    """The columns of a table, a value that is `nan` as inf: a frame has only NaN for what is not
    finite and for what was not measured, and a figure shows the one and leaves out the other."""
    frame = tables.read(folder, table, columns)
    doubtful = [str(n) for n in frame if is_float_dtype(frame[n]) and frame[n].isna().any()]
    if doubtful and _says_nan(folder / f"{table}.csv"):
        is_empty = tables.empty_cells(folder, table, doubtful)
        for name in doubtful:
            frame.loc[frame[name].isna() & ~is_empty[name], name] = np.inf
    return frame


class _Source:
    """A run folder's tables as figures need them, each read once and when it is asked for."""

    def __init__(self, folder: Path, wanted: Iterable[RunFigure]) -> None:
        self.folder = folder
        self._columns: dict[str, list[str]] = {}
        for figure in wanted:
            scales = {"steps": ("step", "loss_scale")} if "loss_scale" in figure.facts else {}
            for table, names in (*figure.columns.items(), *scales.items()):
                self._columns.setdefault(table, []).extend(names)
        self._frames: dict[str, pd.DataFrame] = {}
        self._summary: dict[str, Any] | None = None

    @property
    def summary(self) -> dict[str, Any]:
        """What `summary.json` holds; nothing where it is missing or damaged."""
        if self._summary is None:
            self._summary = {}
            with suppress(QuestionError):
                self._summary = tables.read_summary(self.folder)
        return self._summary

    def is_there(self, table: str) -> bool:
        """Whether it is there and not empty, as a run leaves it that was killed at its start."""
        path = self.folder / f"{table}.csv"
        # What is no regular file is refused where it is read.
        return files.exists(path) and (not path.is_file() or path.lstat().st_size > 0)

    def table(self, table: str) -> pd.DataFrame:
        """The columns of a table that figures show, as they are to be drawn."""
        if table not in self._frames:
            known = [column.name for column in TABLES[table]]
            there = dict.fromkeys((*tables.column_names(self.folder, table), *known))
            wanted = [name for name in there if name in self._columns[table]]
            self._frames[table] = with_inf(self.folder, table, wanted)
        return self._frames[table]

    @cached_property
    def is_over_seeds(self) -> bool:
        """Whether the tables are those of `vgexp signal`."""
        return self.is_there("layers") and "seed" in tables.column_names(self.folder, "layers")

    def has(self, name: str) -> bool:
        """Whether there is something to see."""
        if name == OVERVIEW:
            return not self.is_over_seeds and any(map(self.has, _ON_OVERVIEW))
        figure = FIGURES[name]
        if not self.is_there(figure.table) or figure.is_over_seeds != self.is_over_seeds:
            return False
        frame = self.table(figure.table)
        return any(frame[name].notna().any() for name in figure.measured)

    def drawn(self, name: str) -> Figure:
        if name == OVERVIEW:
            there = {table: self.table(table) for table in _OF_OVERVIEW if self.is_there(table)}
            return self.signed(overview(there, self.summary))
        figure = FIGURES[name]
        frames = [
            self.table(table)
            if table == figure.table or self.is_there(table)
            else _empty(table, columns)
            for table, columns in figure.columns.items()
        ]
        return self.signed(figure.make(*frames, **self._facts(figure.facts)))

    def signed(self, figure: Figure) -> Figure:
        """The figure with the words of which run it is."""
        return signed(figure, self._signature)

    @cached_property
    def _signature(self) -> str:
        return signature(self.folder)

    def _facts(self, names: Iterable[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "dtype" in names:
            found["dtype"] = self._dtype()
        if "loss_scale" in names and self.is_there("steps"):
            # A damaged table is told of by the figures of it.
            with suppress(QuestionError):
                found["loss_scale"] = loss_scales(self.table("steps"))
        if "constant_loss" in names:
            found["constant_loss"] = number(self.summary.get("constant_loss"))
        return found

    def _dtype(self) -> str | None:
        if "dtype" in self.summary:
            return known_dtype(self.summary)
        with suppress(QuestionError):
            return tables.read_config(self.folder).dtype
        return "float32"


def _says_nan(path: Path) -> bool:
    """Whether a file may hold the value nan, which is told faster than where."""
    before = b""
    with files.open_to_read(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            if b",nan" in before + chunk:
                return True
            before = chunk[-3:]
    return False


def _empty(table: str, columns: Collection[str]) -> pd.DataFrame:
    kinds = {column.name: column.kind for column in TABLES[table]}
    types = {"int": "int64", "float": "float64", "text": "object"}
    return pd.DataFrame({name: pd.Series(dtype=types[kinds[name]]) for name in columns})


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(NotADirectoryError):  # a file has the folder's name: nothing to remove
            path.unlink(missing_ok=True)
