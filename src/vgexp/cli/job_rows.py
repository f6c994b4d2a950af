"""Writes how the jobs of a sweep ended, as rows of `sweep.csv`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vgexp import folders, resuming, sweep
from vgexp.cli import overrides
from vgexp.errors import printable
from vgexp.sweep import plan


def list_override_keys(entries: Sequence[plan.Entry]) -> list[str]:
    """Lists the keys that any job overrides, in the order of the columns."""
    words = dict.fromkeys(word for entry in entries for word in entry.overrides)
    return list(overrides.read_values(list(words)))


def find_differing_keys(entries: Sequence[plan.Entry]) -> frozenset[str]:
    """Finds the keys that jobs override with different values."""
    words = [frozenset(entry.overrides) for entry in entries]
    every = frozenset.intersection(*words) if words else frozenset()
    differing = frozenset().union(*words) - every
    return frozenset(word.partition("=")[0].lstrip("+") for word in differing)


def add_ending(row: sweep.JobRow, summary: Mapping[str, Any]) -> sweep.JobRow:
    """Adds to a row what the summary of its job says."""
    return dataclasses.replace(
        row,
        status=str(summary.get("status", "completed")),
        metrics=sweep.metrics(summary),
        reason=str(summary.get("reason", "")),
    )


def record_endings(folder: Path, known: plan.Plan) -> None:
    """Adds rows to `sweep.csv` for jobs that were killed before they could write their own.

    Where the file has rows or columns that belong to no job, it is made anew.
    """
    written = {cells["job"]: cells for cells in sweep.read(folder)}
    rows = []
    for entry in known.entries:
        summary = folders.summary_of(folder / entry.folder)
        if summary.get("status") in (*resuming.ENDED, resuming.FAILED, resuming.INTERRUPTED):
            rows.append(
                add_ending(
                    sweep.JobRow(entry.job, "", overrides.read_values(entry.overrides)), summary
                )
            )
    keys = list_override_keys(known.entries)
    columns = {*keys, *(name for row in rows for name in row.cells())}
    jobs = {str(entry.job) for entry in known.entries}
    has_unknown = bool(written.keys() - jobs) or any(
        rows and cells.keys() - columns for cells in written.values()
    )
    changed = [row for row in rows if not _says(written.get(str(row.job), {}), row)]
    if changed or has_unknown:
        with suppress(OSError):  # the next job's row tries again
            sweep.record(folder, rows if has_unknown else changed, keys, anew=has_unknown)


def _says(cells: Mapping[str, str], row: sweep.JobRow) -> bool:
    return all(cells.get(name, "") == printable(text) for name, text in row.cells().items())
