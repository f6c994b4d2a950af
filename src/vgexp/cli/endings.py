"""How jobs of a sweep ended, as rows of `sweep.csv`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vgexp import folders, resuming, sweep
from vgexp.cli import overrides
from vgexp.sweep import plan


def override_keys(entries: Sequence[plan.Entry]) -> list[str]:
    """What any job overrides, in the order of the columns."""
    words = dict.fromkeys(word for entry in entries for word in entry.overrides)
    return list(overrides.values(list(words)))


def differing_keys(entries: Sequence[plan.Entry]) -> frozenset[str]:
    """What jobs override differently."""
    words = [frozenset(entry.overrides) for entry in entries]
    every = frozenset.intersection(*words) if words else frozenset()
    return frozenset(word.partition("=")[0].lstrip("+") for own in words for word in own - every)


def ended(row: sweep.Row, summary: Mapping[str, Any]) -> sweep.Row:
    """The row with what a summary says."""
    return dataclasses.replace(
        row,
        status=str(summary.get("status", "completed")),
        figures=sweep.figures(summary),
        reason=str(summary.get("reason", "")),
    )


def record_endings(folder: Path, known: plan.Plan) -> None:
    """Makes `sweep.csv` say what the summaries of jobs say that were killed before they could."""
    written = {cells["job"]: cells for cells in sweep.read(folder)}
    rows = []
    for entry in known.entries:
        summary = folders.summary_of(folder / entry.folder)
        if summary.get("status") in (*resuming.ENDED, sweep.FAILED):
            row = ended(sweep.Row(entry.job, "", overrides.values(entry.overrides)), summary)
            there = written.get(str(entry.job), {})
            if any(there.get(name, "") != text for name, text in row.cells().items()):
                rows.append(row)
    if rows:
        with suppress(OSError):  # the next job's row tries again
            sweep.record(folder, rows, override_keys(known.entries))
