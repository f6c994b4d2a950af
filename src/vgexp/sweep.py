"""A sweep is a folder of runs and `sweep.csv`: a row a job, written as each job ends."""

from __future__ import annotations

import csv
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vgexp.errors import QuestionError

try:
    import fcntl
except ImportError:  # not a POSIX system: its launchers run one job at a time
    fcntl = None  # type: ignore[assignment]

FILE = "sweep.csv"
PLAN = "multirun.yaml"
FAILED = "failed"
_FIRST = ("job", "status")
_LAST = "reason"


@dataclass(frozen=True)
class Row:
    """One job: its number, how it ended, what it overrode, its summary, why it failed."""

    job: int
    status: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    def cells(self) -> dict[str, str]:
        """Column -> text, in the order in which columns enter the header."""
        return {
            "job": str(self.job),
            "status": self.status,
            **self.overrides,
            **{k: v for k, v in self.figures.items() if k not in self.overrides},
            _LAST: self.reason,
        }


def record(folder: Path, rows: Sequence[Row]) -> None:
    """Adds rows to the folder's `sweep.csv`; a job that has a row already has it replaced.

    The file is replaced as a whole, so that a reader, a full disk or a kill never meets a half
    of it; jobs that end at the same time in several processes wait for each other.

    Raises:
        OSError: nothing could be written; the file is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        table = {cells["job"]: cells for cells in read(folder)}
        table.update({str(row.job): row.cells() for row in rows})
        _replace(folder / FILE, _header(table.values()), list(table.values()))


def read(folder: Path) -> list[dict[str, str]]:
    """The rows of the folder's `sweep.csv`, column -> text; none where there is no file."""
    try:
        with (folder / FILE).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, restval="")
            return [{k: v for k, v in row.items() if k is not None} for row in reader]
    except FileNotFoundError:
        return []


def figures(summary: Mapping[str, Any]) -> dict[str, str]:
    """The summary's scalars as cells; `status` has its own column."""
    return {
        key: cell(value)
        for key, value in summary.items()
        if key not in (*_FIRST, _LAST) and not isinstance(value, (Mapping, list, tuple))
    }


def cell(value: object) -> str:
    """A value as a table's cell: empty for None, shortest form that reads back for a float."""
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return repr(value) if isinstance(value, float) else str(value)


def refuse_used(folder: Path) -> None:
    """Checks that a new sweep may begin in the folder.

    Raises:
        QuestionError: it is a file, or it holds a sweep.
    """
    refuse_file(folder)
    for name in (FILE, PLAN):
        if (folder / name).exists():
            raise QuestionError(
                f"{folder} holds a sweep already ({name})\n"
                "allowed: another folder (hydra.sweep.dir); nothing was overwritten"
            )


def withdraw(folder: Path) -> None:
    """Removes the folder of a sweep of which no job has begun, unless something else is in it."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {PLAN}:
        (folder / PLAN).unlink(missing_ok=True)
        folder.rmdir()


def refuse_file(folder: Path) -> None:
    """Checks that a folder can be there.

    Raises:
        QuestionError: it is a file, or a folder above it is.
    """
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise QuestionError(f"{path} is a file\nallowed: a folder to write the run into")
            return


def _header(rows: Any) -> list[str]:
    names = dict.fromkeys(name for cells in rows for name in cells)
    middle = [name for name in names if name not in (*_FIRST, _LAST)]
    return [*_FIRST, *middle, _LAST]


def _replace(path: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
