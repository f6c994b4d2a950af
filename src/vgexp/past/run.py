"""Reads a run folder: the one place that reads its summary, configuration and tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from vgexp import files, folders, resuming, tables
from vgexp.config import Config
from vgexp.diagnosis.signal import SMALLEST_NORMAL, loss_scales
from vgexp.errors import QuestionError
from vgexp.past.extent import shortfall
from vgexp.past.lazy import LazyTables
from vgexp.past.problems import Problems
from vgexp.past.sweep import job_of
from vgexp.past.values import find_values, put_inf_for_nan, split_by_metric
from vgexp.quantities import TABLES, absence
from vgexp.tables import SweepJob

UNFINISHED = "unfinished"
"""The status of a run that has no summary, and of which no sweep knows how it ended."""
_KEYS = ("step", "layer", "kind")
_EXPECTED = ("layers", "steps")
"""Tables whose absence is a problem."""
_OPEN = (UNFINISHED, resuming.FAILED, resuming.INTERRUPTED)


class PastRun:
    """A run on disk. Each of its parts is read when it is first asked for.

    A part that is damaged raises a `QuestionError` where the run is strict. Otherwise it is left
    out like one that is missing, and `problems` says why.
    """

    def __init__(
        self, folder: Path | str, *, is_strict: bool = True, job: SweepJob | None = None
    ) -> None:
        """Reads nothing yet.

        Args:
            folder: the run's.
            is_strict: whether what is damaged is an error.
            job: what the sweep knows of the run; None: the sweep is looked for.
        """
        self.folder = Path(folder)
        self.is_strict = is_strict
        self._job = job
        self._problems = Problems(self.folder, is_strict)
        self._absent: dict[str, list[str]] = {}
        self._columns: dict[str, list[str]] = {}
        self._frames: dict[str, list[pd.DataFrame]] = {}
        self._layers: dict[tuple[str, ...], Mapping[str, pd.DataFrame]] = {}

    @property
    def problems(self) -> list[str]:
        """What is missing or damaged of all that was read so far, a sentence for each."""
        return self._problems.told

    @property
    def lost_files(self) -> list[str]:
        """Those of the files read so far that are missing or cannot be read."""
        return self._problems.lost

    def problems_of(self, table: str) -> list[str]:
        """Those of `problems` that are about one table."""
        return self._problems.of(f"{table}.csv")

    # ---------------------------------------------------------------- summary and configuration

    @property
    def summary(self) -> dict[str, Any]:
        """What `summary.json` holds; nothing where it is missing, or damaged if not strict."""
        return self._summary or {}

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """The summary; of a run without one its status, and the reason that its sweep knows."""
        if self._summary is None:
            return {"status": UNFINISHED, **self.job.ending}
        return self._summary

    def require_summary(self) -> dict[str, Any]:
        """Reads the summary.

        Raises:
            QuestionError: it is missing or damaged, strict or not.
        """
        return tables.read_summary(self.folder)

    @cached_property
    def config(self) -> Config | None:
        """The configuration; None where it is missing, or damaged if not strict."""
        if not self.has(folders.CONFIG) or self.is_guest:
            return None
        return self._problems.try_to_read(folders.CONFIG, self.require_config)

    @cached_property
    def is_guest(self) -> bool:
        """Whether a loop of somebody's own made the run; such a run has no configuration."""
        return folders.is_guest(self.folder)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What is known of somebody's own loop, by dotted key; empty for a run of vgexp's."""
        if not self.is_guest:
            return {}
        read = self._problems.try_to_read
        return read(folders.CONFIG, lambda: tables.read_settings(self.folder)) or {}

    def require_config(self) -> Config:
        """Reads the configuration.

        Raises:
            QuestionError: it is missing or damaged, strict or not.
        """
        return tables.read_config(self.folder)

    @cached_property
    def job(self) -> SweepJob:
        """What the sweep above the run knows of it."""
        return job_of(self.folder) if self._job is None else self._job

    @cached_property
    def dtype(self) -> str | None:
        """The network's dtype, by the summary or the configuration; None: neither tells it."""
        told = self.outcome.get("dtype")
        if told is None and self.config is not None:
            told = self.config.dtype
        return told if isinstance(told, str) and told in SMALLEST_NORMAL else None

    @cached_property
    def loss_scales(self) -> pd.Series | None:
        """Step -> loss scale; None where there is no table of steps."""
        if not self.has_table("steps"):
            return None
        steps = self.table("steps", ("step", "loss_scale"))
        return None if steps is None else loss_scales(steps)

    @cached_property
    def is_running(self) -> bool:
        """Whether the run has no ending yet, and a process is writing it."""
        return self.outcome.get("status") == UNFINISHED and folders.is_occupied(self.folder)

    @property
    def can_go_on(self) -> bool:
        """Whether the run did not come to its end and can be resumed."""
        try:
            folders.require_regular_files(self.folder)
        except QuestionError:  # resuming it refuses as well
            return False
        is_open = self.outcome.get("status") in _OPEN and not self.is_running
        return is_open and self.config is not None

    # ---------------------------------------------------------------- tables

    def has(self, file: str) -> bool:
        """Whether something in the folder has this name; reading it says whether it is a file."""
        return files.exists(self.folder / file)

    def has_table(self, table: str) -> bool:
        """Whether there is a file of this table."""
        return self.has(f"{table}.csv")

    def columns(self, table: str) -> list[str]:
        """Lists the columns of a table's file; none where there is no file."""
        if table not in self._columns and self.has_table(table):
            found = self._problems.try_to_read(
                f"{table}.csv", lambda: tables.column_names(self.folder, table)
            )
            self._columns[table] = found or []
        return self._columns.get(table, [])

    def table(self, table: str, columns: Collection[str] | None = None) -> pd.DataFrame | None:
        """Reads some columns of a table, or all; None if it is missing, or damaged and not strict.

        If not strict, what is missing at its end is a problem as well.
        """
        return self._table(table, lambda: self.read(table, columns))

    def tables(self, known: Mapping[str, pd.DataFrame] | None = None) -> LazyTables:
        """The tables by name, each read whole when it is first asked for.

        Args:
            known: tables that somebody has read already.
        """
        return LazyTables(self, known)

    def read(self, table: str, columns: Collection[str] | None = None) -> pd.DataFrame:
        """Reads some columns of a table, or all, in the order of its file.

        Raises:
            QuestionError: it is missing or damaged, strict or not.
        """
        if columns is None:  # whoever wants it whole keeps it
            return self._read(table, None)
        kept = self._frames.setdefault(table, [])
        frame = next((known for known in kept if {*columns} <= {*known}), None)
        if frame is None:
            frame = self._read(table, columns)
            kept.append(frame)
        return frame[[name for name in frame if name in columns]].copy()

    def read_with_inf(self, table: str, columns: Collection[str]) -> pd.DataFrame:
        """Reads columns as `read` does, with inf for a value that is nan.

        In a frame NaN is both what is not finite and what was not measured. A figure shows the
        one and leaves out the other.
        """
        frame = self.read(table, columns)
        put_inf_for_nan(frame, find_values(self.folder, table, frame))
        return frame

    def is_measured(self, table: str) -> pd.DataFrame:
        """Says of each cell of a table whether it has a value, even if that is nan.

        Raises:
            QuestionError: it is missing or damaged, strict or not.
        """
        return find_values(self.folder, table, self.read(table))

    def layers(
        self, metrics: Collection[str], beside: Collection[str] = ()
    ) -> Mapping[str, pd.DataFrame]:
        """Reads metrics of `layers.csv`, each with its step, layer and kind.

        `has_value` says whether a metric has a value, even if that is nan. The file is read once
        for all metrics.

        A metric that nobody declared and that has no column is left out; so are all where the file
        cannot be read.

        Args:
            metrics: columns of numbers.
            beside: columns that follow each of them.
        """
        key = (*metrics, "", *beside)
        if key not in self._layers:
            self._layers[key] = self._layer_rows(metrics, beside)
        return self._layers[key]

    def is_numeric(self, table: str, column: str) -> bool:
        """Whether a table has this column, and it holds nothing but numbers and empty cells."""
        kind = next((known.kind for known in TABLES[table] if known.name == column), None)
        if column not in self.columns(table):
            return False
        if kind is not None:  # known without reading it
            return kind != "text"
        frame = self.table(table, [column])
        return frame is not None and is_numeric_dtype(frame[column])

    def shortfall(self, table: str) -> str | None:
        """Says what is missing at the end of a table, or why that cannot be told."""
        # Nobody knew beforehand which step of somebody's own loop would be the last.
        outcome = {} if self.is_guest and table != "steps" else self.outcome
        try:
            gap = shortfall(self.folder, table, outcome, self._num_rows(table))
        except QuestionError as error:
            return self._problems.words_of(error)
        return f"{table}.csv {gap}" if gap else None

    def absence(self, table: str) -> str | None:
        """Says which columns that were asked for an older table does not have."""
        words = absence(table, self._absent.get(table, []))
        return f"{table}.csv {words}" if words else None

    # ---------------------------------------------------------------- how it is read

    @cached_property
    def _summary(self) -> dict[str, Any] | None:
        if not self.has(folders.SUMMARY):
            return None
        return self._problems.try_to_read(folders.SUMMARY, self.require_summary)

    def _read(self, table: str, columns: Collection[str] | None) -> pd.DataFrame:
        """Reads a file. Of the columns that it lacks, those that `quantities` declares come empty,
        since an earlier version wrote it, and the others do not come."""
        if columns is not None:
            declared = {column.name for column in TABLES[table]}
            there = self.columns(table) if not declared.issuperset(columns) else ()
            columns = [name for name in columns if name in declared or name in there]
        frame = tables.read(self.folder, table, columns)
        known = self._absent.setdefault(table, [])
        known += [name for name in frame.attrs[tables.ABSENT] if name not in known]
        return frame

    def _table(self, table: str, read: Callable[[], pd.DataFrame]) -> pd.DataFrame | None:
        file = f"{table}.csv"
        if not self.has(file):
            if table in _EXPECTED:
                self._problems.note(file, f"{file} is not there", is_lost=True)
            return None
        frame = self._problems.try_to_read(file, read)
        if frame is not None and not self.is_strict:
            for words in filter(None, (self.shortfall(table), self.absence(table))):
                self._problems.note(file, words)
        return frame

    def _layer_rows(
        self, metrics: Collection[str], beside: Collection[str]
    ) -> Mapping[str, pd.DataFrame]:
        wanted = {*_KEYS, *metrics, *beside}
        frame = self._table("layers", lambda: self._read("layers", wanted))
        if frame is None:
            return {}
        frame["kind"] = frame["kind"].astype("category")
        there = frame[[name for name in metrics if name in frame]]
        found = self._problems.try_to_read(
            "layers.csv", lambda: find_values(self.folder, "layers", there)
        )
        return {} if found is None else split_by_metric(frame, found, _KEYS, beside)

    def _num_rows(self, table: str) -> int:
        """Counts the rows that each step has at least: the main path's and the read-out's."""
        num_layers = self.outcome.get("num_layers")
        if table != "layers" or not isinstance(num_layers, int):
            return 1
        with suppress(QuestionError):  # told of where the configuration is asked for
            if self.config is not None and self.config.probe.layers is None:
                return num_layers + 1
        return 1
