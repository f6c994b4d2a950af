"""`sweep.csv`: one row a job, written when the job ends, in the order of the jobs' numbers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vgexp import files, folders
from vgexp.errors import printable

FILE = "sweep.csv"
_FIRST = ("job", "status")
_LAST = "reason"
_NEEDED = {*_FIRST, _LAST}
_MOST_DIGITS = 9
"""The most digits of a job's number."""
_NO_METRICS = (*_FIRST, _LAST, "process")


@dataclass(frozen=True)
class JobRow:
    """The row of one job: its number, status, overrides, summary, and why it failed."""

    job: int
    status: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    def cells(self) -> dict[str, str]:
        """Column -> text, in the order of the header."""
        return {
            "job": str(self.job),
            "status": self.status,
            **{k: v for k, v in self.overrides.items() if k not in (*_FIRST, _LAST)},
            **{k: v for k, v in self.metrics.items() if k not in self.overrides},
            _LAST: self.reason,
        }


def record(
    folder: Path, rows: Sequence[JobRow], keys: Iterable[str] = (), *, anew: bool = False
) -> None:
    """Adds rows to the folder's `sweep.csv`, or replaces rows of the same jobs.

    The file is replaced as a whole, so that neither a reader nor a full disk nor a kill finds half
    of it. Jobs that end at the same time in several processes wait for each other. The file does
    not depend on the order in which jobs end.

    Args:
        keys: the keys that any job of the sweep overrides; their columns come first.
        anew: whether to leave out the rows that the file has.

    Raises:
        OSError: nothing was written; the file is unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with folders.lock_out_others(folder):
        table = {} if anew else {cells["job"]: cells for cells in read(folder)}
        table.update({str(row.job): row.cells() for row in rows})
        _replace(folder / FILE, list(keys), sorted(table.values(), key=_number))


def read(folder: Path) -> list[dict[str, str]]:
    """Reads the rows of the folder's `sweep.csv`, column -> text; none where there is no file."""
    try:
        text = files.read(folder / FILE, folders.MOST_SWEEP_BYTES).decode("utf-8", errors="replace")
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
        rows = [{k: v for k, v in row.items() if k is not None} for row in reader]
    except (FileNotFoundError, csv.Error):
        return []
    return [row for row in rows if _is_number(row.get("job", "")) and row.keys() >= _NEEDED]


def metrics(summary: Mapping[str, Any]) -> dict[str, str]:
    """The summary's metrics as cells; `status` and `reason` have their own columns."""
    return {
        key: cell(value)
        for key, value in summary.items()
        if key not in _NO_METRICS and not isinstance(value, (Mapping, list, tuple))
    }


def cell(value: object) -> str:
    """Formats a cell: empty for None, the shortest form that reads back for a float."""
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return repr(value) if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MOST_DIGITS


def _number(cells: Mapping[str, str]) -> int:
    return int(cells["job"])


def _replace(path: Path, keys: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    names = dict.fromkeys([*keys, *(name for cells in rows for name in cells)])
    header = [*_FIRST, *(name for name in names if name not in (*_FIRST, _LAST)), _LAST]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writerow({name: printable(name) for name in header})
    writer.writerows({name: printable(text) for name, text in row.items()} for row in rows)
    with folders.replace_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
