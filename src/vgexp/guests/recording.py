"""Writes the run folder of somebody's own loop, and never ends that loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any, final

from vgexp import folders
from vgexp.errors import LostError, QuestionError, reason
from vgexp.folders import Prefix
from vgexp.quantities import TABLES, Quantity
from vgexp.records import Rows
from vgexp.runs.start import warn
from vgexp.sinks.csv_files import CsvFiles

FLUSH_SECONDS = 2.0
"""Rows are written after so many seconds at the latest."""


def require_free(folder: Path) -> None:
    """Refuses a folder that holds a run, with the nearest name that is free.

    Raises:
        QuestionError: nothing may be written there.
    """
    try:
        folders.require_free(folder)
    except QuestionError as error:
        if not folder.is_dir():
            raise
        raise QuestionError(f"{error}\nnearest: {find_free(folder)}") from None


def find_free(folder: Path) -> Path:
    """The folder, or the first of `folder_2`, `folder_3` and so on that does not exist."""
    found = folder
    for number in count(2):
        if not found.exists():
            break
        found = folder.with_name(f"{folder.name}_{number}")
    return found


@final
class Recording:
    """The tables of a folder. The first error of the disk ends the recording, and is told once.

    Args:
        own_columns: of `layers.csv`, after those that are declared.
        note: is told why the recording ended.
    """

    def __init__(
        self, folder: Path, own_columns: Sequence[Quantity], note: Callable[[str], object]
    ) -> None:
        self.folder = folder
        self.has_failed = False
        self._columns = {**TABLES, "layers": (*TABLES["layers"], *own_columns)}
        self._note = note
        self._files: dict[str, CsvFiles] = {}
        self._prefixes: dict[str, Prefix] = {}
        self._held = ExitStack()
        self._settings: Mapping[str, Any] = {}
        self._last = time.monotonic()
        self._seconds_before = 0.0
        self._start = self._last

    def open(self, settings: Mapping[str, Any]) -> None:
        """Takes the folder; the first time it must be free, later the tables go on.

        Raises:
            QuestionError: another process writes it, or it holds another run.
            OSError: it cannot be written.
        """
        with ExitStack() as held:
            held.enter_context(folders.occupy(self.folder))
            if not self._prefixes:
                folders.require_free(self.folder)
                self._write(settings)
            self._held = held.pop_all()
        self._start = self._last = time.monotonic()
        if self.has_failed:
            return
        try:
            for table in ("layers", "steps"):
                self._file_of(table)
        except BaseException:
            self._leave()
            raise

    @property
    def is_due(self) -> bool:
        """Whether it is time to write what waits."""
        return time.monotonic() - self._last > FLUSH_SECONDS

    @property
    def seconds(self) -> float:
        """Seconds within the `with` so far."""
        return self._seconds_before + time.monotonic() - self._start

    def add(self, rows: Rows) -> bool:
        """Appends rows to their table. Returns whether they are in it."""
        if self.has_failed or not len(rows):
            return not self.has_failed
        try:
            self._file_of(rows.table)(rows)
        except (OSError, LostError, QuestionError) as error:
            self.fail(error)
            return False
        return True

    def wrote(self, step: int, settings: Mapping[str, Any]) -> None:
        """Adds the row of `timing.csv` after what waited was written, and writes what more is known
        of the run since it began."""
        self._last = time.monotonic()
        self.add(Rows("timing", {"step": [step], "seconds": [round(self.seconds, 6)]}))
        if settings != self._settings and not self.has_failed:
            try:
                self._write(settings)
            except OSError as error:
                self.fail(error)

    def finish(self, summary: Callable[[], Mapping[str, Any]]) -> None:
        """Writes the summary, once the tables are on the disk itself, and leaves the folder."""
        self._seconds_before = self.seconds
        try:
            for file in self._files.values():
                if not self.has_failed:
                    file.require_in(self.folder)
                    self._prefixes |= file.settle()
            folders.write_summary(self.folder, summary())
        except Exception as error:
            self.fail(error)
        finally:
            self._leave()

    def _write(self, settings: Mapping[str, Any]) -> None:
        folders.write_guest_config(self.folder, settings)
        folders.sync_names(self.folder)
        self._settings = settings

    def _leave(self) -> None:
        """Leaves the folder to others."""
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        self._files.clear()
        self._held.close()

    def fail(self, error: Exception) -> None:
        """Ends the recording, and says so once."""
        if not self.has_failed:
            self.has_failed = True
            text = f"{self.folder} is not written any more: {reason(error)}"
            self._note(text)
            with suppress(Exception):
                warn(f"{text}; training goes on")

    def _file_of(self, table: str) -> CsvFiles:
        if table not in self._files:
            self._files[table] = CsvFiles(
                self.folder,
                [table],
                {name: kept for name, kept in self._prefixes.items() if name == table},
                self._columns,
            )
        return self._files[table]
