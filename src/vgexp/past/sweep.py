"""Finds what the sweep above a run knows of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vgexp import tables
from vgexp.tables import SweepJob

_FOLDERS_ABOVE = 3
"""How many folders above a job's its sweep's may be (`hydra.sweep.subdir`)."""


def jobs_of(folders: Iterable[Path]) -> dict[Path, SweepJob]:
    """Returns each folder's job, as the nearest sweep above knows it; each sweep is read once.

    A folder that is in no sweep has a job of which nothing is known.
    """
    whole = {folder: folder.resolve() for folder in folders}
    above = {sweep for path in whole.values() for sweep in path.parents[:_FOLDERS_ABOVE]}
    # The nearest sweep comes last, so that its word counts.
    known = {
        sweep / name: job
        for sweep in sorted(above, key=lambda sweep: len(sweep.parts))
        for name, job in tables.sweep_jobs(sweep).items()
    }
    return {folder: known.get(path, SweepJob()) for folder, path in whole.items()}


def problems_of_sweeps(paths: Iterable[Path | str], folders: Iterable[Path]) -> list[str]:
    """Says what is damaged of the sweeps that runs belong to, and which jobs have not begun.

    Args:
        paths: what was asked for; a sweep counts if it is one of these folders or below one.
        folders: the runs.
    """
    asked = [Path(path).resolve() for path in paths]
    above = dict.fromkeys(
        sweep
        for folder in folders
        for sweep in folder.parents[:_FOLDERS_ABOVE]
        if any(sweep.resolve().is_relative_to(path) for path in asked)
    )
    return [words for sweep in above for words in tables.sweep_problems(sweep)]


def job_of(folder: Path) -> SweepJob:
    """Returns the job of one folder."""
    return jobs_of([folder])[folder]
