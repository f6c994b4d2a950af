"""Says what is missing at the end of a table that was cut short."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgexp import tables

_WHOLE = ("completed", "stopped")
"""Statuses of runs of which `steps` says how many steps the tables have."""


def shortfall(
    folder: Path, table: str, summary: Mapping[str, Any], num_rows: int = 1
) -> str | None:
    """Says what a table lacks at its end; None where it lacks nothing.

    Args:
        summary: only where it says that the run completed, or that a rule stopped it, can it be
            told how long the table was.
        num_rows: the rows that each step has at the least.

    Raises:
        QuestionError: the file cannot be read.
    """
    extent = tables.extent_of(folder, table)
    if extent is None:
        return None
    parts = []
    steps = summary.get("steps") if summary.get("status") in _WHOLE else None
    if isinstance(steps, int) and steps > 0:
        num_rows = max(extent.num_first, num_rows)
        if extent.last_step is None:
            parts.append("has no row")
        elif extent.last_step < steps - 1:
            parts.append(f"ends at step {extent.last_step}, the run at step {steps - 1}")
        if extent.last_step is not None and extent.num_last < num_rows:
            parts.append(f"has {extent.num_last} of {num_rows} rows at step {extent.last_step}")
    if extent.is_torn:
        parts.append("ends within a line")
    return ", ".join(parts) or None
